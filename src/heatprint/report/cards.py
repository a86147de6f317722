"""One card per attack: where it stands, how often it won, how far it went and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.charts import BarChart, LineChart, histogram, query_curve
from heatprint.report.read import Run
from heatprint.report.tables import Share, is_control, ordered_attacks, plain, setting, strong_attacks

STEP_UNITS = {"fgsm": "first gain that flips the label, in levels of 1/255", "one-pixel": "generation of the success"}

TRACES = {
    "unflip": "un-flipped: a larger step undoes the success",
    "certified": "certified: no single pixel in a colour tried changes the decision",
}
NORMS = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """The attack on one part of the data.

    Attributes:
        name: ``"test"`` or ``"train"``.
        images: All images of the part.
        skipped: Misclassified before, so not attacked.
        success: Of the images attacked.
        facts: Name and value of the sizes and costs.
        chart: Steps of the first success, or None where the attack has no steps.
        curve: Success against queries, or None without one.
        flows: Per class, what the attack drove out of it and into it.
    """

    name: str
    images: int
    skipped: int
    success: Share | None
    facts: tuple[tuple[str, str], ...]
    chart: BarChart | None
    curve: LineChart | None
    flows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One attack."""

    title: str
    role: str
    taxonomy: Mapping[str, Any]
    settings: str
    unit: str
    parts: tuple[Part, ...]


def cards(run: Run) -> list[Card]:
    """Every attack of the run, in the order of the tables."""
    found = []
    for name in ordered_attacks(run):
        spec, measured = run.settings["attacks"].get(name, {}), run.metrics["attacks"].get(name) or {}
        taxonomy = dict(spec.get("taxonomy") or {})
        unit = STEP_UNITS.get(spec.get("method", name), "step of the first success")
        settings = ", ".join(f"{key} = {setting(value)}" for key, value in (spec.get("settings") or {}).items())
        found.append(
            Card(
                title=run.attack_title(name),
                role=_role(run, name),
                taxonomy=taxonomy | {"norm": NORMS.get(taxonomy.get("norm", ""), taxonomy.get("norm", "–"))},
                settings=settings or "none",
                unit=unit,
                parts=tuple(_part(part, measured[part], unit) for part in ("test", "train") if measured.get(part)),
            )
        )
    return found


def _role(run: Run, name: str) -> str:
    if is_control(run, name):
        return "control"
    return "strong check" if name in strong_attacks(run) else "studied"


def _part(name: str, row: Mapping[str, Any], unit: str) -> Part:
    steps = (row.get("step") or {}).get("histogram") or {}
    return Part(
        name=name,
        images=row["images"],
        skipped=row["skipped"],
        success=row.get("success"),
        facts=tuple(_facts(row)),
        chart=histogram(steps, unit) if any(int(step) >= 0 for step in steps) else None,
        curve=query_curve(row.get("curve") or [], row["images"] - row["skipped"]),
        flows=tuple(row.get("flows") or ()),
    )


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sizes of the successful changes and queries of all attempts, in words; what is not there is left out."""
    tried = row["images"] - row["skipped"]
    facts = []
    for key, title, unit in (
        ("l0", "median L0 of successes", "changed pixels"),
        ("l2", "median L2 of successes", "(pixel values 0 to 1)"),
        ("linf", "median L∞ of successes", "/ 255"),
    ):
        median = (row.get(key) or {}).get("median")
        if median is not None:
            facts.append((title, f"{plain(median)} {unit}"))
    median = (row.get("step") or {}).get("median")
    if median is not None and median >= 0:
        facts.append(("median first success", f"step {plain(median)}"))
    for key, title in (("forwards", "forward passes"), ("backwards", "backward passes")):
        if row.get(key) is not None and tried:
            facts.append((f"{title} per attacked image", f"{row[key] / tried:,.1f} ({row[key]:,} in all)"))
    for key, count in (row.get("trace") or {}).items():
        facts.append((TRACES.get(key, key), f"{count:,} of {tried:,} attacked images"))
    return facts
