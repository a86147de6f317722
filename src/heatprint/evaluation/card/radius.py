"""What a larger radius, more iterations and more starts must do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from heatprint.core.lattice import LEVELS, whole_levels
from heatprint.evaluation.card.findings import Finding, graded, told, worst
from heatprint.evaluation.card.runs import Runs

STUCK = "The attack is stuck: look at its gradients, its step and its loss, and do not report what it left standing."


@dataclass(frozen=True, kw_only=True)
class Unbounded:
    """An attack that may turn an image into any other must fell every image (Carlini et al. 2019, sec. 5.2).

    Also with two classes: an accuracy of one half is what guessing gives, not what an attacker gets.

    Attributes:
        fail: Share of images still standing above which it fails, from 3 images on; one is enough for a warning.
    """

    fail: float = 0.02
    name = "unbounded attack reaches 0 %"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        standing, total = int(runs.unbounded.sum()), len(runs.batch)
        verdict = graded(standing, total, warn=0, fail=self.fail)
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"A descent of {runs.effort.far} steps without a radius left {told(standing, total)} images standing"
            + ("." if verdict == "PASS" else ", though some image of another class was always within reach."),
            do="" if verdict == "PASS" else STUCK,
            numbers={"standing": standing, "total": total},
        )


@dataclass(frozen=True, kw_only=True)
class Monotone:
    """A larger radius contains the smaller one, so no more images may stand (Carlini et al. 2019, sec. 5.2).

    Attributes:
        warn: Rise of the share that stands above which it warns.
        fail: Rise above which it fails, from 3 images on.
    """

    warn: float = 0.01
    fail: float = 0.05
    name = "accuracy falls with the radius"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        counts = {eps: int(standing.sum()) for eps, standing in runs.curve.items()}
        rise = max([after - before for before, after in pairwise(counts.values())], default=0)
        verdict = graded(rise, len(runs.batch), warn=self.warn, fail=self.fail)
        spelled = {f"{whole_levels(e)}/{LEVELS}" if runs.threat.norm == "linf" else f"{e:g}": n
                   for e, n in counts.items()}  # fmt: skip
        row = ", ".join(f"{n} at {eps}" for eps, n in spelled.items())
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"Of {len(runs.batch)} images stand {row}; the largest rise is {max(rise, 0)}.",
            do="" if verdict == "PASS" else STUCK,
            numbers={"standing": spelled, "rise": rise, "total": len(runs.batch)},
        )


@dataclass(frozen=True, kw_only=True)
class Iterations:
    """Many small steps must not be weaker than one large one, nor a short run than a long one by much.

    (Athalye, Carlini and Wagner 2018, sec. 3.1; Carlini et al. 2019, sec. 5.5.)

    Attributes:
        warn: Share of all images above which it warns: one point.
        fail: Share above which one step felling more than many fails.
        unfinished: Share above which a longer run felling more than a short one fails.
    """

    warn: float = 0.01
    fail: float = 0.05
    unfinished: float = 0.1
    name = "more iterations"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        total, traced = len(runs.batch), ~runs.traced.skipped & ~runs.traced.success
        single, many = int(runs.single.sum()), int(traced.sum())
        short, long = int(runs.short.sum()), int(runs.long.sum())
        verdict = worst(
            graded(many - single, total, warn=self.warn, fail=self.fail),
            graded(short - long, total, warn=self.warn, fail=self.unfinished),
        )
        effort = runs.effort
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"One step leaves {told(single, total)} images standing, {effort.way} small ones {told(many, total)}; "
            f"APGD of {effort.steps} steps {told(short, total)}, with {effort.more} more from {effort.restarts} starts "
            f"{told(long, total)}.",
            do=""
            if verdict == "PASS"
            else "Give the attack more iterations and starts until one more felling nothing "
            "shows that it is done; where one step is stronger than many, " + STUCK[0].lower() + STUCK[1:],
            numbers={"single": single, "iterated": many, "short": short, "long": long, "total": total},
        )
