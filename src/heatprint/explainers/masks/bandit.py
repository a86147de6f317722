"""Which of many arms pays best: bounds on a share by Kullback-Leibler divergence, and KL-LUCB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import rel_entr

FIRST = 10  # pulls of each arm before any is preferred
HALVINGS = 30  # of the interval in which a bound is sought: to 1e-9

Pull = Callable[[np.ndarray, int], np.ndarray]
"""From rows of arms and a number n: how many of n new pulls of each of these arms paid, int64 [rows]."""


@dataclass(kw_only=True)
class Arms:
    """Arms that pay 1 or 0, and what is known of them.

    Attributes:
        pull: Asks the world.
        count: Number of arms A.
        pulls: How often each was pulled, int64 [A].
        hits: How often each paid, int64 [A].
    """

    pull: Pull
    count: int
    pulls: np.ndarray = field(init=False)
    hits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.pulls, self.hits = np.zeros(self.count, dtype=np.int64), np.zeros(self.count, dtype=np.int64)

    @property
    def means(self) -> np.ndarray:
        """Share that paid, float64 [A]; 0 for an arm never pulled."""
        means: np.ndarray = self.hits / np.maximum(self.pulls, 1)
        return means

    def ask(self, rows: np.ndarray, times: int) -> None:
        """Pull the arms in these rows, all together."""
        self.hits[rows] += self.pull(rows, times)
        self.pulls[rows] += times

    def bounds(self, level: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of each arm's true share, float64 [A]: all q with pulls * kl(mean, q) <= level.

        After a fixed number of pulls each side fails with probability at most exp(-level) (Chernoff).
        """
        return kl_bounds(self.means, level / np.maximum(self.pulls, 1))


def kl_bounds(mean: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest q with kl(mean, q) <= radius for Bernoulli shares, by bisection from the safe side."""
    inside = np.stack([mean, mean])
    outside = np.stack([np.zeros_like(mean), np.ones_like(mean)])
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        near = rel_entr(mean, middle) + rel_entr(1 - mean, 1 - middle) <= radius
        inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
    return outside[0], outside[1]


def best_arms(arms: Arms, *, wanted: int, delta: float, epsilon: float, batch: int, budget: int) -> np.ndarray:
    """The rows of the `wanted` best arms, best first, by KL-LUCB (Kaufmann and Kalyanakrishnan 2013, algorithm 1).

    At each turn the weakest of the arms that lead and the strongest of those that do not are pulled; the search ends
    when the second is at most `epsilon` better than the first, by their bounds. The bounds use the paper's
    exploration rate log(405.5 A t^1.1 / delta), plus its logarithm.

    Args:
        arms: Arms, not yet pulled.
        wanted: How many.
        delta: Probability that one of them is more than epsilon worse than one left out.
        epsilon: The tolerance, in share.
        batch: Pulls of each of the two arms in a turn.
        budget: Pulls after the first ones at most; when they are spent the leaders by mean are returned.
    """
    arms.ask(np.arange(arms.count), FIRST)
    turn = 1
    while True:
        order = np.argsort(-arms.means, kind="stable")
        leaders, others = order[:wanted], order[wanted:]
        if not len(others) or 2 * batch * turn > budget:
            return leaders
        rate = np.log(405.5 * arms.count * turn**1.1 / delta)
        low, high = arms.bounds(rate + np.log(rate))
        weakest, strongest = leaders[low[leaders].argmin()], others[high[others].argmax()]
        if high[strongest] - low[weakest] <= epsilon:
            return leaders
        arms.ask(np.array([weakest, strongest]), batch)
        turn += 1


def surely_above(arms: Arms, threshold: float, *, delta: float, batch: int, budget: int) -> np.ndarray:
    """A lower bound of each arm's true share, float64 [A]; pulling ends once it, or the upper one, passes `threshold`.

    Look l at the data spends delta / (A l (l + 1)), so that all bounds of all arms hold together with probability
    1 - delta however often one looks.

    Args:
        arms: Arms, not yet pulled: pulls that helped to choose them would flatter them.
        threshold: The share in question.
        delta: Probability that some lower bound is wrong.
        batch: Pulls of each undecided arm between two looks.
        budget: Pulls of an arm at most; never less than one batch.
    """
    lower, undecided, look = np.zeros(arms.count), np.arange(arms.count), 0
    while len(undecided) and (look == 0 or batch * (look + 1) <= budget):
        look += 1
        arms.ask(undecided, batch)
        low, high = arms.bounds(float(np.log(arms.count * look * (look + 1) / delta)))
        lower[undecided] = low[undecided]
        undecided = undecided[(low[undecided] < threshold) & (high[undecided] >= threshold)]
    return lower
