"""Figures 4 to 6: the signatures of all images in the plane, as data for plotly.

The page draws them; this module only says which points belong to which marker. Ids and class names go into JSON
that sits inside the page, so every `<`, `>` and `&` is written as an escape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any

from heatprint.report.read import Run
from heatprint.report.tables import studied_attacks

MOST_CLASSES = 6  # one map each; beyond that a page of maps helps nobody
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "pentagon", "star")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Points that share a marker; `rows` are positions in the columns."""

    name: str
    rows: list[int]
    colour: str
    symbol: str
    hidden: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One map."""

    number: int
    title: str
    caption: str
    traces: tuple[Trace, ...]


def plots(run: Run) -> list[Plot]:
    """Figure 4 for all classes, then one figure per class; none without points."""
    if not run.map.columns["id"]:
        return []
    shown = run.classes[:MOST_CLASSES]
    attack = _mapped_attack(run)
    return [_by_class(run), *(_one_class(run, name, 5 + n, attack) for n, name in enumerate(shown))]


def embedded(run: Run, drawn: list[Plot]) -> str:
    """The points and the maps as JSON that is safe inside a script element."""
    columns = run.map.columns
    value = {
        "id": columns["id"],
        "label": columns["label"],
        "kind": ["clean" if kind == "clean" else run.attack_title(kind) for kind in columns["kind"]],
        "predicted": columns["predicted"],
        "umap": [_rounded(columns["x"]), _rounded(columns["y"])],
        "pca": [_rounded(columns["px"]), _rounded(columns["py"])],
        "contours": [
            {**one, "colour": f"class-{n % len(SYMBOLS)}"} for n, one in enumerate(run.map.contours) if one["levels"]
        ],
        "plots": [
            {
                "div": f"map-{plot.number}",
                "traces": [
                    {"name": t.name, "rows": t.rows, "colour": t.colour, "symbol": t.symbol, "hidden": t.hidden}
                    for t in plot.traces
                ],
            }
            for plot in drawn
        ],
    }
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _rounded(values: list[Any]) -> list[float | None]:
    return [round(float(v), 4) if v is not None and isfinite(v) else None for v in values]


def _mapped_attack(run: Run) -> str | None:
    """FGSM as in the paper; another attack where FGSM is not on the map."""
    there = set(run.map.columns["kind"]) - {"clean"}
    return "fgsm" if "fgsm" in there else next((name for name in studied_attacks(run) if name in there), None)


def _select(run: Run, *, label: str, kind: str) -> list[int]:
    labels, kinds = run.map.columns["label"], run.map.columns["kind"]
    return [n for n in range(len(labels)) if labels[n] == label and kinds[n] == kind]


def _by_class(run: Run) -> Plot:
    traces = []
    for n, name in enumerate(run.classes):
        rows = _select(run, label=name, kind="clean")
        traces.append(_trace(name, rows, f"class-{n % len(SYMBOLS)}", SYMBOLS[n % len(SYMBOLS)]))
    return Plot(
        number=4,
        title="Clean images by class",
        caption="Signatures of all clean test images, before any attack. "
        + "The lines hold half and nine tenths of each class." * bool(run.map.contours),
        traces=tuple(traces),
    )


def _one_class(run: Run, name: str, number: int, attack: str | None) -> Plot:
    """One class: which of its clean images fell to the attack, and where their attacked copies lie."""
    ids, predicted = run.map.columns["id"], run.map.columns["predicted"]
    copies = _select(run, label=name, kind=attack) if attack else []
    flipped = {ids[row] for row in copies}
    own = _select(run, label=name, kind="clean")
    others = [row for other in run.classes if other != name for row in _select(run, label=other, kind="clean")]
    fell = [row for row in own if ids[row] in flipped]
    held = [row for row in own if ids[row] not in flipped and predicted[row] == name]
    wrong = [row for row in own if ids[row] not in flipped and predicted[row] != name]
    title = run.attack_title(attack) if attack else "the attack"
    traces = [
        _trace("clean, other classes", others, "faint", "circle"),
        _trace(f"clean {name}, held", held, "held", "circle"),
        _trace(f"clean {name}, fell to {title}", fell, "fell", "circle"),
        _trace(f"clean {name}, wrong before", wrong, "wrong-before", "square-open"),
    ]
    if attack:
        traces.append(_trace(f"{title} copies", copies, "copy", "x"))
    for other in sorted(set(run.map.columns["kind"]) - {"clean", attack}):
        rows = _select(run, label=name, kind=other)
        traces.append(_trace(f"{run.attack_title(other)} copies", rows, "other", "cross", hidden=True))
    return Plot(
        number=number,
        title=f"{name}: clean and attacked",
        caption=f"Clean images of {name}, which of them {title} flipped, and the attacked copies.",
        traces=tuple(trace for trace in traces if trace.rows),
    )


def _trace(name: str, rows: list[int], colour: str, symbol: str, *, hidden: bool = False) -> Trace:
    return Trace(name=f"{name} ({len(rows)})", rows=rows, colour=colour, symbol=symbol, hidden=hidden)
