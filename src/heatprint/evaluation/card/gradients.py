"""Is there a gradient, and does it say how the loss changes?"""

from __future__ import annotations

from dataclasses import dataclass

from heatprint.core.lattice import LEVELS
from heatprint.evaluation.card.findings import Finding, Verdict, graded, told, worst
from heatprint.evaluation.card.runs import NEAR, Runs

STRAIGHT = (
    "Attack through the part that gives no gradient: replace it in the backward pass by the identity or a smooth "
    "stand-in (backward pass differentiable approximation), and report that attack beside one without gradients."
)


@dataclass(frozen=True, kw_only=True)
class Available:
    """The gradient of the margin at the clean image must be finite and not zero (Carlini et al. 2019, sec. 5).

    The margin is a difference of logits, so confidence alone cannot make its gradient vanish, as it does that of the
    cross-entropy (see `scale invariance`).

    Attributes:
        fail: Share of images without a gradient above which the check fails; one is enough for a warning.
    """

    fail: float = 0.05
    name = "gradients"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        size = runs.gradient.abs().sum((1, 2, 3))
        total, zero, broken = len(size), int((size == 0).sum()), int((~size.isfinite()).sum())
        numbers = {"zero": zero, "not finite": broken, "total": total}
        verdict = worst(graded(zero, total, warn=0, fail=self.fail), graded(broken, total, warn=0, fail=0))
        if verdict == "PASS":
            why = f"The gradient of the margin is finite and not zero at all {total} images classified correctly."
            return Finding(check=self.name, verdict=verdict, why=why, numbers=numbers)
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"At the clean image the gradient of the margin is exactly zero for {told(zero, total)} images and not "
            f"finite for {told(broken, total)}. An attack that follows gradients does not move there, and what it "
            "leaves standing proves nothing.",
            do=STRAIGHT,
            numbers=numbers,
        )


@dataclass(frozen=True, kw_only=True)
class Faithful:
    """Small random steps must change the margin as the gradient says: else it is shattered, or belongs to no one.

    Along random signs, a quarter of a level to each side, the share of the change that the gradient explains is
    1 - sum (true - told)^2 / sum true^2: near 1 for networks of ReLUs, 0 where a part has no derivative, below where
    the function jumps (Athalye, Carlini and Wagner 2018, sec. 3.1). Not judged where the output is random.

    Attributes:
        warn: Share below which it warns.
        fail: Share below which it fails.
    """

    warn: float = 0.8
    fail: float = 0.5
    name = "gradient and finite differences"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        if runs.random:
            return Finding(
                check=self.name,
                verdict="not applicable",
                why="The output is random, so a difference of two passes is mostly noise.",
            )
        explained = self.explained(runs)
        numbers = {"explained": None if explained is None else round(explained, 6)}
        steps = f"Along {runs.effort.directions} random directions, {NEAR * LEVELS:g} of a level to each side,"
        if explained is None:
            return Finding(
                check=self.name,
                verdict="FAIL",
                why=f"{steps} the margin did not change at all: the network looks at something coarser.",
                do=STRAIGHT,
                numbers=numbers,
            )
        verdict: Verdict = "FAIL" if explained < self.fail else "WARN" if explained < self.warn else "PASS"
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"{steps} the gradient explains {100 * explained:.1f} % of the change of the margin.",
            do="" if verdict == "PASS" else STRAIGHT,
            numbers=numbers,
        )

    def explained(self, runs: Runs) -> float | None:
        """Share of the change that the gradient explains, at least -1; None where nothing changed."""
        true, told_ = runs.nearby
        whole = float(true.square().sum())
        return None if whole == 0 else max(-1.0, 1 - float((true - told_).square().sum()) / whole)
