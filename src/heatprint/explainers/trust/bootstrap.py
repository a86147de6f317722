"""What a mean over images is worth: its interval, and whether one map's mean beats another's on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.core.streams import stream

RESAMPLES = 2000
FEWEST = 6  # below it even unanimous images can be chance: 2 / 2**5 > 0.05

Better = Literal["higher", "lower", "neither"]
Verdict = Literal["better", "worse", "not distinguishable", "too few images", ""]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over images with its 95 % percentile bootstrap interval; NaN where there was no image."""

    mean: float
    low: float
    high: float


def interval(values: Tensor, *, seed: int = 0) -> Interval:
    """Mean of per-image values [N] and the interval it would have over other images of the kind; NaN is left out."""
    kept = values[~values.isnan()].double()
    if not len(kept):
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"))
    low, high = _means(kept, seed).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(mean=float(kept.mean()), low=low, high=high)


def paired_verdict(values: Tensor, rival: Tensor, better: Better, *, seed: int = 0) -> Verdict:
    """Whether values [N] are better than a rival's on the same images: the paired bootstrap of their difference.

    Returns:
        "better" or "worse" where the 95 % interval of the mean difference excludes 0; nothing where neither
        direction is better.
    """
    if better == "neither":
        return ""
    gain = (values.double() - rival.double()) * (1 if better == "higher" else -1)
    gain = gain[~gain.isnan()]
    if len(gain) < FEWEST:
        return "too few images"
    found = interval(gain, seed=seed)
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "not distinguishable"


def _means(values: Tensor, seed: int) -> Tensor:
    """Means of resamples of the images, [RESAMPLES]; the resamples depend on the seed and the count alone."""
    count = len(values)
    rng = stream(seed, "trust/bootstrap", count)
    # how often each image is in a resample: multinomial counts, and one matrix product instead of a large gather
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    return torch.from_numpy(weights) @ values
