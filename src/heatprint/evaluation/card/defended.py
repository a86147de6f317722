"""Was the attack defended against, or only its traces?"""

from __future__ import annotations

from dataclasses import dataclass

from heatprint.evaluation.card.findings import Finding, Verdict, told
from heatprint.evaluation.card.runs import Runs
from heatprint.models.predict import predict


@dataclass(frozen=True, kw_only=True)
class SingleStep:
    """One step must not be survived where many are not: the sign of catastrophic overfitting (Wong et al. 2020).

    A gap by itself says little: on a network that was never defended one large step overshoots, too. So the check
    fails only where one step leaves most images standing that are classified correctly, and the white box few.

    Attributes:
        warn: Gap, as a share of the images classified correctly, above which it warns.
        most: Share that must stand after one step for a failure.
        few: Share that may stand after the white box for a failure.
    """

    warn: float = 0.2
    most: float = 0.75
    few: float = 0.25
    name = "one step against many"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        total, single, long = int(runs.right.sum()), int(runs.single.sum()), int(runs.long.sum())
        gap = (single - long) / total
        fails = single >= self.most * total and long <= self.few * total
        verdict: Verdict = "FAIL" if fails else "WARN" if gap > self.warn else "PASS"
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"Of the images classified correctly {told(single, total)} stand after one step of the full radius and "
            f"{told(long, total)} after APGD: a gap of {100 * gap:.1f} points.",
            do=""
            if verdict == "PASS"
            else "Report the iterated attack, never the single step"
            + ("; if the network was trained on single steps, it has overfitted to them: train on iterated ones."
               if fails else "."),
            numbers={"single": single, "white box": long, "total": total},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OldAdversarials:
    """What is gained on old adversarials must be gained on new ones (Carlini et al. 2019, sec. 3; Tramèr et al. 2020).

    The images that one step fools the original classifier with are shown to the defended one, as they are; then the
    same images are attacked anew. A network that has learnt the old ones by heart answers them well and falls again.

    Attributes:
        warn: Share of what is answered well that stands when attacked anew, below which it warns.
        fail: Share below which it fails.
        least: Old adversarials without which nothing can be said.
    """

    warn: float = 0.5
    fail: float = 0.25
    least: int = 8
    name = "old adversarials, attacked anew"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        old = runs.old
        if old is None:
            return Finding(check=self.name, verdict="not applicable", why="There is no original classifier to compare.")
        fooled = old.success
        guess = predict(runs.raw, old.adversarial.pixels).argmax(1)
        static = fooled & (guess == runs.batch.labels)
        anew, total = static & runs.square, int(fooled.sum())
        numbers = {"old": total, "answered": int(static.sum()), "standing": int(anew.sum())}
        if total < self.least or int(static.sum()) < self.least:
            return Finding(
                check=self.name,
                verdict="not applicable",
                why=f"One step fooled the original classifier with {total} images, of which this one answers "
                f"{int(static.sum())} correctly: fewer than {self.least} to compare.",
                numbers=numbers,
            )
        kept = float(anew.sum() / static.sum())
        verdict: Verdict = "FAIL" if kept < self.fail else "WARN" if kept < self.warn else "PASS"
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"Of {total} images that fooled the original classifier after one step, this one answers "
            f"{told(static.sum(), total)} correctly; attacked anew, {told(anew.sum(), int(static.sum()))} of those "
            "still stand.",
            do=""
            if verdict == "PASS"
            else "Do not report accuracy on adversarials made against other weights; attack "
            "these weights, and regenerate the adversarials in every epoch of training.",
            numbers=numbers,
        )
