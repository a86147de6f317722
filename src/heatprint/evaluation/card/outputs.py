"""Are the outputs logits, and the same twice?"""

from __future__ import annotations

from dataclasses import dataclass

from heatprint.evaluation.card.findings import Finding, graded, told
from heatprint.evaluation.card.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Randomised:
    """Five forward passes of equal images must agree (AutoAttack's flag; Athalye, Carlini and Wagner 2018, sec. 4.2).

    Attributes:
        change: Relative change of an image's logits in L2 above which they differ.
    """

    change: float = 1e-4
    name = "randomised output"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        repeats, total = runs.repeats, len(runs.batch)
        size = repeats.norm(dim=2).amax(0).clamp_min(1e-12)
        moved = int(((repeats - repeats[0]).norm(dim=2).amax(0) / size > self.change).sum())
        right = (repeats.argmax(2) == runs.batch.labels).sum(1).tolist()
        numbers = {"moved": moved, "total": total, "right": right}
        if not moved:
            return Finding(check=self.name, verdict="PASS", why="Five passes gave equal logits.", numbers=numbers)
        return Finding(
            check=self.name,
            verdict="WARN" if runs.adaptive else "FAIL",
            why=f"The logits of {told(moved, total)} images changed between five passes of the same images, by more "
            f"than {self.change:g} of their length; {min(right)} to {max(right)} images were classified correctly. An "
            "attack that asks once sees one draw, and what it finds may not hold for the next.",
            do="Attack the mean over many draws (expectation over transformation), average predictions over draws, "
            "and count an image as standing only if it stands on average."
            + ("" if runs.adaptive else " Then make the card with adaptive=True (--adaptive)."),
            numbers=numbers,
        )


@dataclass(frozen=True, kw_only=True)
class Logits:
    """Outputs must not be probabilities: a softmax before the loss flattens every gradient (AutoAttack's flag).

    Log-probabilities are fine: the softmax leaves them as they are.

    Attributes:
        tolerance: How far rows may be from adding up to 1 and still be taken for probabilities.
    """

    tolerance: float = 1e-5
    name = "logits, not probabilities"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        logits = runs.logits
        inside = ((logits >= 0) & (logits <= 1)).all(1)
        rows = int((inside & ((logits.sum(1) - 1).abs() <= self.tolerance)).sum())
        low, high = float(logits.min()), float(logits.max())
        numbers = {"probabilities": rows, "total": len(logits), "low": low, "high": high}
        verdict = graded(rows, len(logits), warn=0.5, fail=0.5)
        if verdict == "PASS":
            why = f"Outputs range from {low:.3g} to {high:.3g} and do not add up to 1."
            return Finding(check=self.name, verdict=verdict, why=why, numbers=numbers)
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"The outputs of {told(rows, len(logits))} images lie in [0, 1] and add up to 1: a softmax stands "
            "behind the logits. Losses take a softmax themselves; of probabilities its gradient is nearly flat.",
            do="Take the last softmax off the network and give the logits before it.",
            numbers=numbers,
        )
