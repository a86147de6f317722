"""Anchors: few superpixels that suffice for the answer, with a guarantee."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.explainers.masks.bandit import Arms, best_arms, surely_above
from heatprint.explainers.masks.engine import MaskedImage
from heatprint.explainers.masks.superpixels import Superpixels

Holds = Callable[[np.ndarray], np.ndarray]
"""From masks bool [M, S] to whether the answer is given, bool [M]."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A set of superpixels, and how often the answer holds where they are on and the others are on by chance.

    Attributes:
        segments: Which superpixels, bool [S].
        precision: Share of samples in which the answer held.
        low: Lower bound of the true precision.
        guaranteed: The lower bound reached the precision asked for.
    """

    segments: np.ndarray
    precision: float
    low: float
    guaranteed: bool


@dataclass(frozen=True, kw_only=True)
class Anchors(Superpixels):
    """The fewest superpixels that suffice for the answer (Ribeiro et al. 2018, algorithm 2: beam search with KL-LUCB).

    The answer is that the class explained is predicted; where logits are weighted, that the weighted sum is positive. A
    perturbed image keeps the anchor's superpixels, each other one is on with probability 1/2 or shows `fill`. The
    precision of an anchor is the probability of the answer then. Anchors grow by one superpixel at a time: the best
    `beam` of one size (equation 5) are the seeds of the next. The first size with an anchor whose precision is at
    least `precision` with confidence 1 - `delta` ends the search: a larger anchor covers less.

    The map is 1 / (pixels of the anchor) on the anchor and 0 elsewhere, shared equally by the channels: `heat` sums
    to 1. Where the empty anchor suffices (the answer stands whatever is masked) no superpixel is needed more than
    another, and the map is 1 / (pixels of the image) everywhere. `facts` has

    - ``"precision"``, ``"precision_low"``: estimate and lower bound;
    - ``"guaranteed"``: 1 where the bound reached `precision`; else 0, and the map shows the anchor with the highest
      bound that was found, for instance when another class than the predicted one is explained; where the answer was
      never seen to hold, the map is 0;
    - ``"size"``: superpixels in the anchor, 0 for the empty one;
    - ``"coverage"``: share of perturbed images it speaks of, 2^-size (exact, since superpixels are on independently).

    Deviations: an anchor is tested on samples of its own, not those by which it was chosen, and delta is divided among
    all tests, so that the guarantee covers the whole search; there is no tolerance in the test (the authors accept a
    lower bound of precision - epsilon); coverage is not estimated from samples, because it is known.

    Costs, per image, at most `largest` * (10 A + `budget` + `beam` * `budget`) + `budget` forward passes for A =
    `beam` * `segments` candidates per size: 21 000 with the defaults. An answer that few superpixels decide takes 1000
    to 2000, one that takes four of them some 10 000.

    Attributes:
        precision: How often the answer must hold, above 0 and below 1 (tau in the paper).
        delta: Probability that the guarantee is wrong, likewise.
        epsilon: Tolerance when the best candidates of a size are chosen, in precision.
        beam: Candidates kept of each size, 1 or more.
        largest: Most superpixels in an anchor, 1 or more.
        batch: Samples of a candidate between two looks at its bounds, 1 or more.
        budget: Samples at most for the choice within a size, and for the test of one anchor.
    """

    precision: float = 0.95
    delta: float = 0.05
    epsilon: float = 0.15
    beam: int = 2
    largest: int = 5
    batch: int = 32
    budget: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.precision < 1 and 0 < self.delta < 1 and 0 <= self.epsilon < 1):
            raise InvalidInput(
                f"Anchors: precision = {self.precision} and delta = {self.delta} must be above 0 and below 1, "
                f"epsilon = {self.epsilon} 0 or more and below 1."
            )
        if min(self.beam, self.largest, self.batch) < 1 or self.budget < self.batch:
            raise InvalidInput(
                f"Anchors: beam = {self.beam}, largest = {self.largest} and batch = {self.batch} must be 1 or more, "
                f"budget = {self.budget} no less than batch."
            )

    def weigh(self, masked: MaskedImage, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        """See `Superpixels.weigh`."""
        anchor = self.search(lambda masks: masked.holds(torch.from_numpy(masks)).cpu().numpy(), masked.size, rng)
        chosen = anchor.segments if anchor.segments.any() else ~anchor.segments
        pixels = torch.from_numpy(chosen).to(masked.areas) * masked.areas
        weights = pixels / pixels.sum() if anchor.precision > 0 else torch.zeros_like(pixels)
        size = int(anchor.segments.sum())
        return weights, {
            "precision": anchor.precision,
            "precision_low": anchor.low,
            "guaranteed": float(anchor.guaranteed),
            "size": float(size),
            "coverage": 0.5**size,
        }

    def search(self, holds: Holds, size: int, rng: np.random.Generator) -> Anchor:
        """The smallest anchor of a game.

        Args:
            holds: Whether the answer is given, for masks bool [M, S].
            size: Number of superpixels S.
            rng: Draws the samples.
        """
        beam = np.zeros((1, size), dtype=bool)
        best = self._tested(beam, holds, rng)
        for _ in range(min(self.largest, size)):
            if best.guaranteed:
                break
            larger = extensions(beam)
            arms = Arms(pull=sampler(larger, holds, rng), count=len(larger))
            rows = best_arms(
                arms,
                wanted=self.beam,
                delta=self.delta,
                epsilon=self.epsilon,
                batch=self.batch,
                budget=self.budget,
            )
            beam = larger[rows]
            best = max(best, self._tested(beam, holds, rng), key=lambda anchor: anchor.low)
        return best

    def _tested(self, anchors: np.ndarray, holds: Holds, rng: np.random.Generator) -> Anchor:
        """The anchor with the highest lower bound, by samples of its own."""
        arms = Arms(pull=sampler(anchors, holds, rng), count=len(anchors))
        delta = self.delta / (self.largest + 1)  # one test per size, the empty anchor's included
        low = surely_above(arms, self.precision, delta=delta, batch=self.batch, budget=self.budget)
        row = int(low.argmax())
        return Anchor(
            segments=anchors[row],
            precision=float(arms.means[row]),
            low=float(low[row]),
            guaranteed=bool(low[row] >= self.precision),
        )


def extensions(anchors: np.ndarray) -> np.ndarray:
    """All anchors with one superpixel more than one of these, bool [A, S], each once, in a fixed order."""
    one = np.eye(anchors.shape[1], dtype=bool)
    grown = (anchors[:, None] | one)[~anchors]
    return np.unique(grown, axis=0)


def sampler(anchors: np.ndarray, holds: Holds, rng: np.random.Generator) -> Callable[[np.ndarray, int], np.ndarray]:
    """Perturbed masks of anchors bool [A, S], and in how many of them the answer holds: see `bandit.Pull`."""

    def pull(rows: np.ndarray, times: int) -> np.ndarray:
        drawn = rng.random((len(rows), times, anchors.shape[1])) < 0.5
        held = holds((drawn | anchors[rows, None]).reshape(-1, anchors.shape[1]))
        hits: np.ndarray = held.reshape(len(rows), times).sum(1)
        return hits

    return pull
