"""How much an attack needed: the smallest gain of each image, and the median of many, some of which never fell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from heatprint.core.values import Attacked


@dataclass(frozen=True, kw_only=True)
class Median:
    """A median with its 95 % interval.

    Attributes:
        median: The smallest gain by which at least half of the images had fallen; infinite where fewer ever fell.
        low: Lower end of the interval; NaN below six images, where no interval reaches 95 %.
        high: Upper end; infinite where the data cannot bound it.
    """

    median: float
    low: float
    high: float


def gains(attacked: Attacked) -> np.ndarray:
    """The step of each image's first success, float64 [N], in the attack's own units.

    Infinite for an image that never fell: beyond every gain tried. NaN for one that was not attacked, for a success
    without a known step, and for all images of an attack that had successes and told a step of none.
    """
    step, won = attacked.step.double().numpy(), attacked.success.numpy()
    if won.any() and not (step >= 0).any():
        return np.full(len(step), np.nan)
    found = np.where(won, np.where(step >= 0, step, np.nan), np.inf)
    return np.where(attacked.skipped.numpy(), np.nan, found)


def median(values: np.ndarray) -> Median | None:
    """The median of gains, infinite ones included and NaN left out; None of nothing.

    The interval is the exact one from order statistics (Conover 1999, section 3.2): it takes the gains as they are,
    assumes no distribution, copes with infinite ones and needs no random draws.
    """
    known = np.sort(values[~np.isnan(values)])
    count = len(known)
    if not count:
        return None
    place = int(binom.ppf(0.025, count, 0.5))  # from 1, counted from either end
    low, high = (known[place - 1], known[count - place]) if place else (np.nan, np.nan)
    return Median(median=float(known[(count - 1) // 2]), low=float(low), high=float(high))
