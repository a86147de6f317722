"""Is the loss of the attack right for this network?"""

from __future__ import annotations

from dataclasses import dataclass

from heatprint.core.goals import untargeted
from heatprint.evaluation.card.findings import Finding, graded, told
from heatprint.evaluation.card.runs import SCALES, Runs

ROUNDS_TO_ONE = 16.6  # margin from which 1 - p is 0 in float32: 24 bits times log 2
NEEDS = {"cross_entropy": 2, "margin": 2, "dlr": 3, "dlr-targeted": 4}


@dataclass(frozen=True, kw_only=True)
class ScaleInvariance:
    """Logits times a number are the same classifier, so no attack may care (Carlini and Wagner 2017, sec. 5).

    The cross-entropy as textbooks write it is raised on the logits times 0.01, 1 and 100. Where the network's own scale
    leaves more images standing than the best of them, its scale hides them: that is all that defensive distillation
    does.

    Attributes:
        warn: Share of all images that the scale hides above which it warns.
        fail: Share above which it fails, from 3 images on.
    """

    warn: float = 0.01
    fail: float = 0.05
    name = "scale invariance"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        counts = {scale: int(standing.sum()) for scale, standing in runs.textbook.items()}
        hidden, total = counts[1.0] - min(counts.values()), len(runs.batch)
        verdict = graded(hidden, total, warn=self.warn, fail=self.fail)
        row = ", ".join(f"{counts[scale]} with logits times {scale:g}" for scale in SCALES)
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"The textbook cross-entropy leaves standing, of {total} images, {row}: the network's own scale hides "
            f"{hidden} from it.",
            do=""
            if verdict == "PASS"
            else "Attack the margin of the logits, or logits divided by a temperature; a network that is safe only "
            "from the cross-entropy at its own scale is not defended.",
            numbers={"standing": {f"{s:g}": n for s, n in counts.items()}, "hidden": hidden, "total": total},
        )


@dataclass(frozen=True, kw_only=True)
class EnoughClasses:
    """Every loss of the evaluation must be defined for the number of classes, and have a gradient in float32.

    The difference of logits ratio divides by the first minus the third logit; its targeted form needs a fourth (Croce
    and Hein 2020, eqs. 6 and 7). With two classes the gradient of the textbook cross-entropy is that of the margin
    times 1 - p, which rounds to 0 in float32 from a margin of 16.6 on.

    Attributes:
        losses: Of the evaluation: ``"cross_entropy"``, ``"margin"``, ``"dlr"``, ``"dlr-targeted"``; the card's own
            are the first two.
        warn: Share of images whose 1 - p rounds to 0 above which it warns.
    """

    losses: tuple[str, ...] = ("margin", "cross_entropy")
    warn: float = 0.5
    name = "losses and classes"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        classes = len(runs.raw.classes)
        short = [loss for loss in self.losses if NEEDS.get(loss, 2) > classes]
        lead = -untargeted(runs.batch.labels).margin(runs.logits)[runs.right]
        sure = int((lead > ROUNDS_TO_ONE).sum())
        numbers = {"classes": classes, "undefined": short, "saturated": sure, "total": len(lead)}
        why = f"{classes} classes; losses used: {', '.join(self.losses)}."
        if short:
            return Finding(
                check=self.name,
                verdict="FAIL",
                why=f"{why} {', '.join(short)} is not defined for so few.",
                do="Use the margin of the logits, which is right for two classes and more.",
                numbers=numbers,
            )
        why += f" In float32, 1 - p is exactly 0 for {told(sure, len(lead))} images classified correctly."
        verdict = graded(sure, len(lead), warn=self.warn, fail=1)
        return Finding(
            check=self.name,
            verdict=verdict,
            why=why,
            do=""
            if verdict == "PASS"
            else "Attack the margin of the logits; the textbook cross-entropy has lost most of its gradient here.",
            numbers=numbers,
        )
