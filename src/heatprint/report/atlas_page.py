"""A page with nothing but an atlas: for a classifier and images without a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from heatprint.core.store import Part
from heatprint.report.atlas import section
from heatprint.report.pages import as_bytes, policy, templates
from heatprint.report.pictures import bar_uri


def atlas_page(
    found: Mapping[str, Any],
    drawn: Part,
    *,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    copies: str | None = None,
    labelled: bool = True,
) -> bytes:
    """One offline HTML file; equal arguments give equal bytes.

    Args:
        found: The atlas as ``metrics.json`` of a run has it.
        drawn: What its cards show, one row and one entry of every array per card.
        title: Heading of the page.
        facts: What was looked at and how, by name, to stand under the heading.
        notes: What a reader must know of the images: what was left out, what is not known of them.
        copies: Name of the attacked copies, as the atlas has it; None without any.
        labelled: Whether the true class of every image is known; without it an image holds by keeping its answer.

    Returns:
        The page, which asks for nothing from outside.
    """
    pages = templates()
    script = pages.get_template("page.js").render()
    page = pages.get_template("atlas_page.html.j2").render(
        title=title,
        facts=facts,
        notes=notes,
        atlas=section(
            found,
            drawn,
            {} if copies is None else {copies: copies},
            kind="images",
            held="still right" if labelled else "same answer",
        ),
        bar=bar_uri(),
        version=facts.get("heatprint", ""),
        page_script=Markup(script),
        policy=policy([script]),
    )
    return as_bytes(page)
