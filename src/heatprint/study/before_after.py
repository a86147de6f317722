"""Before and after, over more images than the figures show: how far each attack moves the explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch
from heatprint.data.splits import sample
from heatprint.explainers import compare
from heatprint.explainers.pairs import MEASURES, columns, spread
from heatprint.explainers.target import Which

TARGETS: tuple[Which, ...] = ("predicted", "true")
CHARTED = ("moved", "moved_unsigned")
BINS = 20  # of a chart, from 0 to 1


def chosen_pairs(attacked: Attacked, count: int, *, control: bool) -> tuple[Batch, Batch, int]:
    """At most `count` successes, in equal shares of the classes; of a control, whose point is not success, attempts.

    Returns:
        The clean images, their attacked copies, and how many there were to choose from.
    """
    every = (~attacked.skipped if control else attacked.success).nonzero().squeeze(1)
    rows = every[sample(attacked.clean.take(every), count)]
    return attacked.clean.take(rows), attacked.adversarial.take(rows), len(every)


def measured(
    classifier: Classifier, clean: Batch, changed: Batch, method: Explainer, progress: Progress = silent
) -> Part:
    """One row per pair and target: each image for its own prediction, and both for the true class."""
    rows: list[dict[str, Any]] = []
    for number, target in enumerate(TARGETS if len(clean) else ()):

        def shown(done: int, total: int, note: object = "", number: int = number) -> None:
            progress(number * total + done, len(TARGETS) * total, note)

        seen = compare(classifier, clean, changed, method, target=target, progress=shown)
        rows += [{"explained": target, **row} for row in seen.rows()]
    return Part(rows=columns(rows))


def summarised(parts: Sequence[Part], *, available: int, control: bool) -> Mapping[str, Any]:
    """What `metrics.json` says of one attack: per target the spread of every measure, and the bins of the chart."""
    explained = [kind for part in parts for kind in part.rows.get("explained", [])]
    measures = {name: [value for part in parts for value in part.rows.get(name, [])] for name in MEASURES}
    told: dict[str, Any] = {
        "of": "attempts" if control else "successes",
        "available": available,
        "images": len(explained) // len(TARGETS),
        "explained": {},
    }
    for target in TARGETS:
        rows = [row for row, which in enumerate(explained) if which == target]
        values = {name: [measures[name][row] for row in rows] for name in MEASURES} if rows else {}
        told["explained"][target] = {
            "measures": {name: spread(values.get(name, [])) for name in MEASURES},
            "histograms": {name: _histogram(values.get(name, [])) for name in CHARTED},
        }
    return told


def _histogram(values: list[float]) -> list[int]:
    """Counts of the defined values; what rounding put past 1 counts as 1."""
    array = np.array(values, dtype=float)
    counts: list[int] = np.histogram(array[~np.isnan(array)].clip(0, 1), bins=BINS, range=(0, 1))[0].tolist()
    return counts
