"""What one attack did to one classifier, in numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from heatprint.core.values import Attacked
from heatprint.evaluation.shares import share


def attack_summary(attacked: Attacked) -> dict[str, Any]:
    """Success over the images that were classified correctly, sizes of the successes, and queries.

    Misclassified images are counted apart as ``skipped``; they are neither attempts nor successes.
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
        "trace": {
            name: int(values[~attacked.skipped].sum())
            for name, values in attacked.trace.items()
            if values.dtype == torch.bool
        },
    }


def _median(values: Tensor) -> float | None:
    return round(float(values.double().quantile(0.5)), 6) if len(values) else None
