"""The part of the image that a strategy looks at and the rest of its class does not."""

from __future__ import annotations

import numpy as np

from heatprint.core.errors import InvalidInput
from heatprint.signatures.spray.spray import normalised

TRIALS = 16  # random shifts tried, of which the one that overlaps least is taken


def suspect_region(own: np.ndarray, rest: np.ndarray, *, size: tuple[int, int], share: float = 0.8) -> np.ndarray:
    """The smallest set of cells that holds a share of what the strategy's relevance has in excess of the rest's.

    Maps are divided by the sum of their absolute values; the excess of a cell is the mean positive relevance of the
    strategy less that of the rest, or 0 where the rest has more.

    Args:
        own: Maps [n, h, w] of the strategy.
        rest: Maps [m, h, w] of the rest of its class; with none, all positive relevance is in excess.
        size: Height and width of the images.
        share: Of the excess, in (0, 1]. With half of it enough of a planted caption stays for the network to read.

    Returns:
        bool [H, W]; nothing where there is no excess, as between equal maps.

    Raises:
        InvalidInput: No maps of the strategy, or a share outside (0, 1].
    """
    if not len(own) or not 0 < share <= 1:
        raise InvalidInput(
            f"suspect_region: {len(own)} maps and share = {share}; give at least one, and 0 < share <= 1."
        )
    cells = own.shape[1:]
    excess = np.clip(_positive(own) - (_positive(rest) if len(rest) else 0.0), 0.0, None)
    chosen = np.zeros(excess.size, dtype=bool)
    if excess.sum() > 0:
        order = np.argsort(-excess, kind="stable")
        held = np.cumsum(excess[order])
        chosen[order[: int(np.searchsorted(held, share * held[-1] * (1 - 1e-9))) + 1]] = True
    down, across = ((np.arange(pixels) * count) // pixels for pixels, count in zip(size, cells, strict=True))
    return np.asarray(chosen.reshape(cells)[np.ix_(down, across)])


def moved_elsewhere(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same shape somewhere else, bool [H, W]: what leaves the image at one side enters it at the other.

    Of a few random shifts the one that overlaps the shape least is taken: a control that covers half of what it
    controls for would say little.
    """
    shifts = np.stack([rng.integers(0, side, TRIALS) for side in mask.shape], axis=1)
    tried = [np.roll(mask, tuple(shift), (0, 1)) for shift in shifts.tolist()]
    return min(tried, key=lambda shifted: int((shifted & mask).sum()))


def _positive(maps: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(normalised(maps), 0, None).mean(0, dtype=np.float64))
