"""Sections of the report by themselves, for the inspector: strategies, results, detectors and defences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from heatprint.core.errors import StoreError
from heatprint.core.reading import read_json
from heatprint.report import defence, forensics
from heatprint.report.atlas import atlas
from heatprint.report.bought import bought
from heatprint.report.cards import cards as attack_cards
from heatprint.report.defence import Section
from heatprint.report.pages import templates
from heatprint.report.pictures import bar_uri
from heatprint.report.read import read_run, whole
from heatprint.report.summary import attacked, key_figures, withstood
from heatprint.report.tables import arm_table, error_tables, mixture_table

FORENSICS, DEFENCE, CARDS = "forensics.json", "defence.json", "cards"


def _fitting(view: Callable[[Path], str]) -> Callable[[Path], str]:
    """The same view, which says of a damaged run that it is one."""

    @wraps(view)
    def told(folder: Path) -> str:
        with whole(folder):
            return view(folder)

    return told


@_fitting
def clusters(folder: Path) -> str:
    """The strategies of the network, from a finished run folder, as HTML without a head."""
    return _rendered("view_clusters.html.j2", atlas=atlas(read_run(folder, points=False)), bar=bar_uri())


@_fitting
def results(folder: Path) -> str:
    """Table 1, its columns, each attack, and report cards."""
    run = read_run(folder, points=False)
    return _rendered(
        "view_results.html.j2", run=run, folder=folder, lead=attacked(run), withstood=withstood(run),
        key_figures=key_figures(run), mixture=mixture_table(run), arms=arm_table(run), bought=bought(run),
        cards=attack_cards(run), errors=error_tables(run), report_cards=list(_report_cards(folder)),
    )  # fmt: skip


@_fitting
def detection(folder: Path) -> str:
    """What detectors found, where ``heatprint detect --benchmark`` has run."""
    told = _told(folder / FORENSICS)
    return _rendered("view_detection.html.j2", folder=folder, sections=sections(forensics.lines(told)) if told else [])


@_fitting
def defences(folder: Path) -> str:
    """What was advised and bought, where ``heatprint defend --auto`` has run."""
    told = _told(folder / DEFENCE)
    return _rendered("view_defence.html.j2", folder=folder, sections=defence.sections(told) if told else [])


VIEWS: Mapping[str, Callable[[Path], str]] = {
    "clusters": clusters,
    "results": results,
    "detection": detection,
    "defences": defences,
}


def sections(lines: list[str]) -> list[Section]:
    """Our own Markdown, headings, paragraphs and tables, as sections of one table each; the second has no title."""
    found: list[dict[str, Any]] = []
    told = [line for line in lines if line]
    for line, after in zip(told, [*told[1:], ""], strict=True):
        if line.startswith("## "):
            found.append(_section(line.removeprefix("## ")))
        elif line.startswith("|---"):
            continue
        elif line.startswith("|") and after.startswith("|---"):
            if found[-1]["heads"]:
                found.append(_section(""))
            found[-1]["heads"] = _cells(line)
        elif line.startswith("|"):
            found[-1]["rows"].append(_cells(line))
        else:
            found[-1]["words"].append(line)
    return [Section(**one) for one in found]


def _section(title: str) -> dict[str, Any]:
    return {"title": title, "words": [], "heads": [], "rows": []}


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]


def _rendered(template: str, **content: Any) -> str:
    return templates().get_template(template).render(**content)


def _told(path: Path) -> dict[str, Any] | None:
    """A file of numbers, if it is there."""
    try:
        return dict(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}). Run the command that wrote it again.") from error


def _report_cards(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / CARDS).glob("*/card.json")):
        told = _told(path)
        if told:
            yield {"title": path.parent.name, **told}
