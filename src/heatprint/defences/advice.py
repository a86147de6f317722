"""Which remedy against what came in: a ranking by what this run measured, not by what a book says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heatprint.core.errors import InvalidInput

SAME = 0.005  # expected shares closer than this are the same, and the cheaper remedy comes first


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a remedy costs where nobody attacks.

    Attributes:
        clean: Share of clean images that it answers rightly.
        seconds: Per image, in a batch.
    """

    clean: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A remedy, and why it stands where it stands.

    Attributes:
        remedy: Its name.
        expected: Share of the mixture of attacked and clean images that it is expected to answer rightly.
        attacked: Share of the attacked images.
        gain: The same less that of the classifier as it was.
        clean: Share of clean images.
        loss: How much less of them than the classifier as it was; below 0 where it is more.
        slower: Time of one answer over that of the classifier as it was.
    """

    remedy: str
    expected: float
    attacked: float
    gain: float
    clean: float
    loss: float
    slower: float


def advise(
    attacked: Mapping[str, float], costs: Mapping[str, Cost], *, plain: str, prior: float = 0.5
) -> tuple[Advice, ...]:
    """All remedies, the best first.

    The order is that of the share of right answers to expect when `prior` of the images are attacked and the others
    are clean; of remedies within half a point of the best that is left the fastest comes first.

    Args:
        attacked: Remedy to the share of the attacked images that it is expected to answer rightly: for images that
            came in the mean of `defences.worth.Worth`, for attacks made anew against each remedy what was counted.
        costs: Remedy to its cost, of the same names.
        plain: The remedy that is none: the classifier as it was.
        prior: Share of the images that are attacked, 0 to 1.

    Raises:
        InvalidInput: The prior is out of range, or the names differ.
    """
    if not 0 <= prior <= 1 or set(attacked) != set(costs) or plain not in costs:
        raise InvalidInput(
            f"advise: prior = {prior} must be 0 to 1, and worth and cost be known of the same remedies, {plain!r} one "
            f"of them; got {', '.join(attacked)} and {', '.join(costs)}."
        )
    expected = {name: prior * attacked[name] + (1 - prior) * cost.clean for name, cost in costs.items()}
    left, order = list(costs), []
    while left:
        best = max(expected[name] for name in left)
        order.append(min((n for n in left if expected[n] >= best - SAME), key=lambda name: costs[name].seconds))
        left.remove(order[-1])
    return tuple(
        Advice(
            remedy=name, expected=expected[name], attacked=attacked[name], gain=attacked[name] - attacked[plain],
            clean=costs[name].clean, loss=costs[plain].clean - costs[name].clean,
            slower=costs[name].seconds / costs[plain].seconds,
        )
        for name in order
    )  # fmt: skip


def shares_of(names: Sequence[str], probabilities: np.ndarray) -> dict[str, float]:
    """What a folder of images was attacked with: the mean probability of each name.

    Args:
        names: G names, as an identifier has them.
        probabilities: float64 [N, G], its calibrated answers on the images that a detector flagged.

    Returns:
        Name to share, adding up to 1; empty for no images.
    """
    if not len(probabilities):
        return {}
    return {name: float(share) for name, share in zip(names, probabilities.mean(0), strict=True)}
