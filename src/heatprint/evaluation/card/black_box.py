"""Does an attack that knows less find more?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from heatprint.evaluation.card.findings import Finding, graded, told
from heatprint.evaluation.card.runs import Runs

MASKED = (
    "Treat the gradients as masked: find the part that hides them (random, rounding, saturating), write an attack for "
    "it, and report the worst case over all attacks."
)


@dataclass(frozen=True, kw_only=True)
class BlackBox:
    """Square, which sees scores alone, must not fell what a white box left standing (AutoAttack's flag).

    Attributes:
        warn: Share of all images above which it warns.
        fail: Share above which it fails, from 3 images on: on few images a short white box may miss one.
    """

    warn: float = 0.002
    fail: float = 0.02
    name = "black box beats white box"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        left, then = runs.long, runs.square
        return _compared(self.name, left, then, f"Square ({runs.effort.queries} queries, no gradient)",
                         self.warn, self.fail)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Adversarials of the undefended classifier must not fell what a white box left standing (Carlini et al. 2019).

    Attributes:
        warn: Share of all images above which it warns.
        fail: Share above which it fails, from 3 images on.
    """

    warn: float = 0.002
    fail: float = 0.02
    name = "transfer beats white box"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        moved = runs.transferred
        if moved is None:
            return Finding(
                check=self.name, verdict="not applicable", why="There is no original classifier to transfer from."
            )
        return _compared(self.name, runs.long, moved, "APGD against the original classifier", self.warn, self.fail)


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Random noise of the same size must not fell what a white box left standing (Carlini et al. 2019, sec. 5.3).

    Attributes:
        warn: Share of all images above which it warns.
        fail: Share above which it fails, from 3 images on.
    """

    warn: float = 0.002
    fail: float = 0.02
    name = "white box beats noise"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        return _compared(self.name, runs.long, runs.noise, "random noise of the full radius", self.warn, self.fail)


def _compared(name: str, left: Tensor, then: Tensor, what: str, warn: float, fail: float) -> Finding:
    """What an attack that knows less felled of the images that a white box left standing."""
    total, more = len(left), int((left & ~then).sum())
    verdict = graded(more, total, warn=warn, fail=fail)
    return Finding(
        check=name,
        verdict=verdict,
        why=f"The white box (APGD on the margin, then longer) left {told(left.sum(), total)} images standing; {what} "
        f"felled {more} of them.",
        do="" if verdict == "PASS" else MASKED,
        numbers={"white box": int(left.sum()), "felled beyond it": more, "total": total},
    )
