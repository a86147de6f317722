"""Before and after: how far each attack moves the explanations, as a table and as distributions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.charts import Distribution, distribution
from heatprint.report.measures import TITLES, told, told_quartiles
from heatprint.report.read import Run
from heatprint.report.tables import is_control, ordered_attacks

SHOWN = ("rank_correlation", "moved", "moved_unsigned", "on_changed", "clean_on_changed", "chance", "peak_distance")
EXPLAINED = {"predicted": "their own predictions", "true": "the true class"}
CHARTED = "predicted"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Median and quartiles of one measure, and how many pairs it is defined for where that is not all."""

    median: str
    quartiles: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the maps of a pair explain, and the measures."""

    explained: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One attack.

    Attributes:
        title: Its name.
        pairs: How many pairs were compared, of how many and of what.
        control: Whether it knows nothing of the model.
        rows: One for each kind of target.
        charts: Of the relevance moved, each map explaining its own prediction: title and distribution.
    """

    title: str
    pairs: str
    control: bool
    rows: tuple[Row, ...]
    charts: tuple[tuple[str, Distribution], ...]


def comparisons(run: Run) -> list[Comparison]:
    """Every attack whose pairs the run compared, in the order of the tables."""
    pairs = run.metrics.get("pairs") or {}
    return [
        Comparison(
            title=run.attack_title(name),
            pairs=f"{pairs[name]['images']:,} of {pairs[name]['available']:,} {pairs[name]['of']}",
            control=is_control(run, name),
            rows=tuple(_row(words, pairs[name]["explained"][kind]) for kind, words in EXPLAINED.items()),
            charts=tuple(_charts(pairs[name]["explained"][CHARTED])),
        )
        for name in ordered_attacks(run)
        if name in pairs and pairs[name]["images"]
    ]


def heads() -> list[str]:
    """The titles of the measures, in the order of the cells."""
    return [TITLES[name] for name in SHOWN]


def _row(words: str, found: Mapping[str, Any]) -> Row:
    return Row(explained=words, cells=tuple(_cell(name, found["measures"][name]) for name in SHOWN))


def _charts(found: Mapping[str, Any]) -> Iterator[tuple[str, Distribution]]:
    for name in ("moved", "moved_unsigned"):
        chart = distribution(found["histograms"][name], found["measures"][name]["median"], TITLES[name])
        if chart:
            yield TITLES[name], chart


def _cell(name: str, spread: Mapping[str, Any]) -> Cell:
    if not spread["count"]:
        return Cell(median="–", quartiles="", note="not defined")
    return Cell(
        median=told(name, spread["median"]),
        quartiles=told_quartiles(name, spread),
        note=f"{spread['count']:,} pairs" if spread["undefined"] else "",
    )
