"""The six indicators of attack failure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.evaluation.card.findings import Finding, Verdict, graded, told, worst
from heatprint.evaluation.card.runs import Runs

LAST = 10  # iterations whose progress tells that a descent was not done


@dataclass(frozen=True, kw_only=True)
class Indicators:
    """Six signs that an attack failed for a reason of its own (Pintor et al. 2022, arXiv:2106.09947, sec. 3).

    Written from the paper. Read from one descent on the margin that notes its way:

    1. unavailable gradients: no iterate reached the goal, and at half of them or more the gradient is zero or not
       finite;
    2. unstable predictions: at random points within eps the margin differs from that of the image, relatively and at
       most by 1, on average by more than `unstable`;
    3. silent success: an iterate reached the goal, and what is returned does not;
    4. incomplete optimisation: no iterate reached the goal, and the last ten iterations, at most half of
       them, still brought more than `unfinished` of the range that the best margin has covered;
    5. transfer failure: what fools the original classifier, a surrogate here, leaves this one standing, and so says
       nothing; judged by `transfer beats white box`, told here;
    6. unconstrained failure: an attack without a radius leaves images standing.

    Of the second the paper asks for 100 directions within 8/255; here they are those of the effort and eps of the
    threat model, since a larger neighbourhood than the attack's says nothing of it.

    Attributes:
        unstable: Mean relative change of the margin above which an image counts for the second.
        unfinished: Share of the range above which an image counts for the fourth.
        warn: Share of the images concerned above which an indicator warns.
        fail: Share above which it fails, from 3 images on.
    """

    unstable: float = 0.5
    unfinished: float = 0.05
    warn: float = 0.1
    fail: float = 0.5
    name = "indicators of attack failure"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        counts = self.counts(runs)
        verdicts: dict[str, Verdict] = {
            sign: graded(count, total, warn=self.warn, fail=self.fail) for sign, (count, total) in counts.items()
        }
        verdict = worst(*verdicts.values())
        fired = [sign for sign in counts if verdicts[sign] in ("WARN", "FAIL")]
        moved = runs.transferred
        row = "; ".join(f"{sign} {told(*pair)}" for sign, pair in counts.items())
        transfer = "not judged, no surrogate" if moved is None else told((runs.right & moved).sum(), len(moved))
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"{row}; transfer failure {transfer}.",
            do="" if verdict == "PASS" else "Mend the attack before believing it: " + "; ".join(MEND[s] for s in fired),
            numbers={sign: {"count": count, "total": total} for sign, (count, total) in counts.items()},
        )

    def counts(self, runs: Runs) -> dict[str, tuple[int, int]]:
        """Of each indicator the images that show it, and those concerned."""
        traced = runs.traced
        tried = ~traced.skipped
        way, slope = traced.trace["way"][tried], traced.trace["slope"][tried]
        seen, again, won = (x[tried] for x in (traced.trace["seen"], traced.trace["again"], traced.success))
        still, total = ~seen, int(tried.sum())
        absent = still & (((slope == 0) | ~slope.isfinite()).float().mean(1) >= 0.5)
        silent = seen & ~(again & won)
        shaken = runs.shaken.mean(0) > self.unstable
        late = unfinished(way) > self.unfinished
        return {
            "unavailable gradients": (int(absent.sum()), total),
            "unstable predictions": (int(shaken.sum()), len(shaken)),
            "silent success": (int(silent.sum()), total),
            "incomplete optimisation": (int((late & still).sum()), total),
            "unconstrained failure": (int(runs.unbounded.sum()), int(runs.right.sum())),
        }


MEND = {
    "unavailable gradients": "replace the part without a gradient in the backward pass",
    "unstable predictions": "average gradients over random points around the image",
    "silent success": "return the iterate that succeeded, and judge it over several draws",
    "incomplete optimisation": "give it more iterations or larger steps",
    "unconstrained failure": "check gradient, step and loss until an unbounded attack fells every image",
}


def unfinished(way: Tensor) -> Tensor:
    """Share of the range of the best margin so far that the last iterations brought, [N], of margins [N, steps]."""
    best = torch.cummax(way, dim=1).values
    last = min(LAST, way.shape[1] // 2)
    span = best[:, -1] - best[:, 0]
    return torch.where(span > 0, (best[:, -1] - best[:, -1 - last]) / span.clamp_min(1e-12), 0)
