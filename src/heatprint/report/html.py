"""The page: one Jinja template with everything inlined, and a policy that forbids it to ask for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from heatprint.report.artefact import section
from heatprint.report.atlas import atlas
from heatprint.report.before_after import comparisons, heads
from heatprint.report.bought import bought
from heatprint.report.bundle import bundled, styles
from heatprint.report.cards import cards
from heatprint.report.charts import training_charts
from heatprint.report.explore import explored, spelled
from heatprint.report.figures import attack_strips, before_after_strips, clean_strips
from heatprint.report.map_quality import quality
from heatprint.report.maps import MOST_CLASSES, embedded, plots
from heatprint.report.pages import policy, templates
from heatprint.report.pictures import COLOUR_MAP, bar_uri
from heatprint.report.read import Run
from heatprint.report.summary import attacked, key_figures, listed, withstood
from heatprint.report.tables import arm_table, error_tables, mixture_table, settings_tables, studied_attacks

EXPLORE_STYLES = ("controls", "map/map", "pair/pair")


def render(run: Run, folder: Path) -> str:
    """The whole page of a run and its folder as text."""
    pages, told = templates(), explored(folder)
    return pages.get_template("page.html.j2").render(explore=told, **_content(run), **_machinery(pages, run, told))


def _content(run: Run) -> dict[str, Any]:
    """What the page says."""
    return {
        "run": run,
        "class_names": listed(run.classes),
        "lead": attacked(run),
        "withstood": withstood(run),
        "bought": bought(run),
        "key_figures": key_figures(run),
        "mixture": mixture_table(run),
        "arms": arm_table(run),
        "fig1": attack_strips(run),
        "fig2": clean_strips(run),
        "fig3": before_after_strips(run),
        "comparisons": comparisons(run),
        "measures": heads(),
        "planted": section(run),
        "map_quality": quality(run),
        "atlas": atlas(run),
        "cards": cards(run),
        "errors": error_tables(run),
        "training": [
            (run.arm_title(arm["name"]), training_charts(arm.get("training") or [])) for arm in run.metrics["arms"]
        ],
        "studied": listed([run.attack_title(name) for name in studied_attacks(run)] or ["the attacks above"]),
        "skipped": run.settings["data"].get("skipped") or [],
        "plan": run.settings["explainer"].get("plan") or [],
        "settings": settings_tables(run),
        "colour_map": COLOUR_MAP,
        "bar": bar_uri(),
    }


def _machinery(pages: Environment, run: Run, told: dict[str, Any] | None) -> dict[str, Any]:
    """The scripts, the data they draw, and the policy that lets only them run."""
    drawn = plots(run)
    page_script = pages.get_template("page.js").render()
    explore = bundled("explore") if told else ""
    plotly = get_plotlyjs().replace("</script", "<\\/script") if drawn else ""
    return {
        "plots": drawn,
        "left_out": run.classes[MOST_CLASSES:],
        "map_data": Markup(embedded(run, drawn)),
        "plotly": Markup(plotly),
        "page_script": Markup(page_script),
        "explore_data": Markup(spelled(told)) if told else "",
        "explore_script": Markup(explore),
        "explore_style": Markup(styles(EXPLORE_STYLES)) if told else "",
        "policy": policy([script for script in (plotly, explore, page_script) if script]),
    }
