"""What one attack did to one classifier, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heatprint.core.values import Attacked
from heatprint.evaluation.shares import share

POINTS = 24  # of the curve of success against queries


def attack_summary(attacked: Attacked, classes: Sequence[str]) -> dict[str, Any]:
    """Success over the images that were classified correctly, sizes of the successes, queries, and where they went.

    Misclassified images are counted apart as ``skipped``; they are neither attempts nor successes. ``flows`` holds,
    for each class, how many of its images were driven out (false negatives the attack made) and how many of others
    were driven in (false positives), and for each pair how many went from one to the other. ``curve`` holds the
    successes that came within so many forward passes.
    """
    won = attacked.success
    steps = attacked.step[won]
    histogram = Counter(attacked.step[~attacked.skipped].tolist())
    tried = attacked.attempted
    return {
        "images": len(attacked.clean),
        "skipped": int(attacked.skipped.sum()),
        "success": share(won.sum(), tried),
        "step": {"median": _median(steps), "histogram": {str(k): n for k, n in sorted(histogram.items())}},
        "l0": {"median": _median(attacked.distance.l0[won])},
        "l2": {"median": _median(attacked.distance.l2[won])},
        "linf": {"median": _median(attacked.distance.linf[won])},
        "forwards": int(attacked.forwards.sum()),
        "backwards": int(attacked.backwards.sum()),
        "forwards_per_image": round(int(attacked.forwards.sum()) / tried, 1) if tried else None,
        "flows": flows(attacked, classes),
        "curve": curve(attacked),
        "trace": {
            name: int(values[~attacked.skipped].sum())
            for name, values in attacked.trace.items()
            if values.dtype == torch.bool
        },
    }


def flows(attacked: Attacked, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per class: its images attacked, driven out of it and driven into it, and the classes they went to."""
    count = len(classes)
    labels, found = attacked.clean.labels, attacked.logits.argmax(1)
    won = attacked.success
    moved = torch.zeros((count, count), dtype=torch.long)
    moved.index_put_((labels[won], found[won]), torch.ones(int(won.sum()), dtype=torch.long), accumulate=True)
    tried = torch.bincount(labels[~attacked.skipped], minlength=count)
    return [
        {
            "class": name,
            "attacked": int(tried[row]),
            "driven_out": share(moved[row].sum(), int(tried[row])),
            "driven_in": share(moved[:, row].sum(), int(tried.sum() - tried[row])),
            "to": {classes[k]: int(moved[row, k]) for k in moved[row].argsort(descending=True) if moved[row, k]},
        }
        for row, name in enumerate(classes)
    ]


def curve(attacked: Attacked) -> list[tuple[int, int]]:
    """Points (forward passes, successes within them), evenly spread over the logarithm of the former."""
    first = attacked.first_hit[attacked.success & (attacked.first_hit > 0)].sort().values
    if not len(first):
        return []
    top = int(attacked.forwards.max())
    places = torch.unique(torch.logspace(0, math.log10(max(top, 1)), POINTS, dtype=torch.float64).round().long())
    return [(int(q), int(torch.searchsorted(first, q, right=True))) for q in places]


def _median(values: Tensor) -> float | None:
    return round(float(values.double().quantile(0.5)), 6) if len(values) else None
