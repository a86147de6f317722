"""Which remedy against what was found: a ranking by what this run measured, not by what a book says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heatprint.core.errors import InvalidInput

CLEAN = "clean"
SAME = 0.005  # expected shares closer than this are the same, and the cheaper remedy comes first


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What remedies were worth on images of known history.

    Attributes:
        remedies: R names.
        kinds: K names of what was done to the images, ``"clean"`` among them, else as an identifier calls them.
        right: float64 [R, K], share of the images of a kind that a remedy answers rightly; NaN where none was tried.
        images: int64 [K], how many images of each kind.
        seconds: float64 [R], per image, in a batch.
        plain: The remedy that is none: the classifier as it was.
    """

    remedies: tuple[str, ...]
    kinds: tuple[str, ...]
    right: np.ndarray
    images: np.ndarray
    seconds: np.ndarray
    plain: str

    def __post_init__(self) -> None:
        shape = (len(self.remedies), len(self.kinds))
        if self.right.shape != shape or self.images.shape != shape[1:] or self.seconds.shape != shape[:1]:
            raise InvalidInput(
                f"Evidence: right is {list(self.right.shape)} for {shape[0]} remedies, {shape[1]} kinds."
            )
        if CLEAN not in self.kinds or self.plain not in self.remedies:
            raise InvalidInput(f"Evidence: it needs images of the kind {CLEAN!r} and the remedy {self.plain!r}.")

    def expected(self, shares: Mapping[str, float]) -> np.ndarray:
        """Share of a mixture that each remedy would answer rightly, float64 [R].

        Args:
            shares: Kind to its weight in the mixture, 0 or more; the weights are brought to a sum of 1.

        Raises:
            InvalidInput: A kind of which there is no evidence, or no weight at all.
        """
        weights = np.array([shares.get(kind, 0.0) for kind in self.kinds])
        strangers = sorted(kind for kind, weight in shares.items() if weight and kind not in self.kinds)
        if strangers or weights.sum() <= 0 or (weights < 0).any():
            raise InvalidInput(
                f"Evidence: shares {dict(shares)} must be 0 or more, not all 0, and of the kinds that were measured: "
                f"{', '.join(self.kinds)}."
            )
        used = weights > 0
        return np.asarray(self.right[:, used] @ weights[used] / weights.sum())


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A remedy, and why it stands where it stands.

    Attributes:
        remedy: Its name.
        expected: Share of the mixture of attacked and clean images that it is expected to answer rightly.
        attacked: Share of the attacked images.
        gain: The same less that of the classifier as it was.
        clean: Share of clean images.
        cost: How much less of them than the classifier as it was; below 0 where it is more.
        slower: Time of one answer over that of the classifier as it was.
    """

    remedy: str
    expected: float
    attacked: float
    gain: float
    clean: float
    cost: float
    slower: float


def advise(evidence: Evidence, shares: Mapping[str, float], *, prior: float = 0.5) -> tuple[Advice, ...]:
    """All remedies, the best first, against attacks that are known by name.

    Args:
        evidence: What was measured. On images attacked before the defence was there it ranks remedies against someone
            who does not know of them; on images attacked anew against each remedy, against someone who does.
        shares: Kind of attack to its share among the attacked images, for one image or a whole folder
            (`shares_of`). Clean images among them are left to `prior`.
        prior: Share of the images that are attacked, 0 to 1.

    Raises:
        InvalidInput: No attack among the shares, a kind that was not measured, or a prior out of range.
    """
    attacks = {kind: share for kind, share in shares.items() if kind != CLEAN and share}
    if not attacks:
        raise InvalidInput(f"advise: the shares {dict(shares)} name no attack.")
    return ranked(evidence, evidence.expected(attacks), prior=prior)


def ranked(evidence: Evidence, attacked: np.ndarray, *, prior: float = 0.5) -> tuple[Advice, ...]:
    """All remedies, the best first, given what each is worth on the attacked images.

    The order is that of the share of right answers to expect when `prior` of the images are attacked and the others
    are clean; of remedies within half a point of the best that is left the fastest comes first. A remedy that was not
    measured is left out.

    Args:
        evidence: What was measured; of it only the clean images and the time count here.
        attacked: float64 [R], share of the attacked images that each remedy is expected to answer rightly: by the
            names of attacks (`advise`), or by the traces in the very images (`defences.worth`), which is better.
        prior: Share of the images that are attacked, 0 to 1.

    Raises:
        InvalidInput: The prior is out of range.
    """
    if not 0 <= prior <= 1:
        raise InvalidInput(f"advise: prior = {prior} must be 0 to 1.")
    clean = evidence.expected({CLEAN: 1.0})
    expected = prior * attacked + (1 - prior) * clean
    plain = evidence.remedies.index(evidence.plain)
    left = [row for row in range(len(evidence.remedies)) if np.isfinite(expected[row])]
    order = []
    while left:
        best = max(expected[row] for row in left)
        order.append(min((row for row in left if expected[row] >= best - SAME), key=lambda row: evidence.seconds[row]))
        left.remove(order[-1])
    return tuple(
        Advice(
            remedy=evidence.remedies[row], expected=float(expected[row]), attacked=float(attacked[row]),
            gain=float(attacked[row] - attacked[plain]), clean=float(clean[row]),
            cost=float(clean[plain] - clean[row]),
            slower=float(evidence.seconds[row] / evidence.seconds[plain]),
        )
        for row in order
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
