"""Percentages that carry their counts and their uncertainty."""

from __future__ import annotations

from typing import Any

from scipy.stats import binomtest
from torch import Tensor


def share(count: int | Tensor, total: int) -> dict[str, Any] | None:
    """A share with its 95 % Wilson interval; None of nothing.

    Returns:
        ``{"count": k, "total": n, "share": k / n, "low": ..., "high": ...}``, rounded to six places so that equal
        counts give equal text.
    """
    if total == 0:
        return None
    interval = binomtest(int(count), total).proportion_ci(method="wilson")
    return {
        "count": int(count),
        "total": total,
        "share": round(int(count) / total, 6),
        "low": round(float(interval.low), 6),
        "high": round(float(interval.high), 6),
    }
