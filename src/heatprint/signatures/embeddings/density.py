"""Where on a map the images are: a density with contours that hold a known share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heatprint.core.errors import InvalidInput

LEAST = 1e-12  # bandwidth relative to the largest coordinate: below it the edges of cells are rounded into each other
REACH = 4  # bandwidths around the outermost points: beyond lie 6 of 100,000 of a normal distribution


@dataclass(frozen=True, kw_only=True, eq=False)
class Density:
    """A density on a grid; values times the area of a cell sum to 1.

    Attributes:
        x: float64 [G], the middles of the columns.
        y: float64 [G], the middles of the rows.
        value: float64 [G, G], images per unit of area, as a share of all; rows are y.
        bandwidth: Of the kernel, in units of the plane.
    """

    x: np.ndarray
    y: np.ndarray
    value: np.ndarray
    bandwidth: float


def density(points: np.ndarray, *, grid: int = 64, bandwidth: float | None = None) -> Density:
    """Gaussian kernel density of places on a grid around them.

    The kernel is integrated over each cell, exactly, as a product of normal distribution functions: a cell's value is
    its mean density, and a bandwidth below a cell's size gives a histogram instead of missing points. Equal places
    count as often as they occur.

    Args:
        points: Places [N, 2].
        grid: Cells per side G, >= 2.
        bandwidth: Standard deviation of the kernel, above 0 and 1e-12 of the largest coordinate; None for Scott's rule
            (1992) in the plane, ``N ** (-1/6)`` times the root of the mean variance of the two axes, which smooths
            clusters rather too much.

    Raises:
        InvalidInput: No points, values that are not finite, all at one place and no bandwidth to go by, or one too
            small for places so far from 0.
    """
    from scipy.special import ndtr

    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all() or grid < 2:
        raise InvalidInput(
            f"density: finite places [N, 2] and a grid of 2 or more are needed, got {list(points.shape)} and {grid}."
        )
    points = points[np.lexsort(points.T)].astype(np.float64)  # sums must not depend on the order of the rows
    width = len(points) ** (-1 / 6) * np.sqrt(points.var(0).mean()) if bandwidth is None else bandwidth
    least = LEAST * float(np.abs(points).max())
    if not (width > least and np.isfinite(width)):
        raise InvalidInput(
            f"density: the bandwidth is {width}, but must be above {least:.3g}, where these places still differ in "
            "float64. Write e.g. bandwidth=1."
        )
    low, high = points.min(0) - REACH * width, points.max(0) + REACH * width
    edges = np.linspace(low, high, grid + 1)  # [G + 1, 2]
    inside = np.diff(ndtr((edges[:, None] - points) / width), axis=0)  # share of each kernel by column and row
    mass = inside[:, :, 1] @ inside[:, :, 0].T
    middles, area = (edges[1:] + edges[:-1]) / 2, np.diff(edges, axis=0)[0].prod()
    return Density(x=middles[:, 0], y=middles[:, 1], value=mass / (mass.sum() * area), bandwidth=float(width))


def levels(density: Density, shares: Sequence[float] = (0.5, 0.9)) -> tuple[float, ...]:
    """For each share, the largest value such that the cells at or above it hold at least that share of the images.

    Args:
        density: See `density`.
        shares: Each above 0, at most 1.

    Raises:
        InvalidInput: A share is not.
    """
    if not all(0 < share <= 1 for share in shares):
        raise InvalidInput(f"levels: shares = {tuple(shares)} must be above 0 and at most 1, e.g. (0.5, 0.9).")
    falling = np.sort(density.value, axis=None)[::-1]
    held = falling.cumsum() / falling.sum()
    places = np.searchsorted(held, shares).clip(max=len(held) - 1)  # rounding may leave the last sum below 1
    return tuple(falling[places].tolist())
