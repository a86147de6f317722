"""What an evaluation must say and hold to beside its attacks."""

from __future__ import annotations

from dataclasses import dataclass

from heatprint.evaluation.card.findings import Finding, graded, told
from heatprint.evaluation.card.gradients import Available, Faithful
from heatprint.evaluation.card.runs import Runs
from heatprint.evaluation.shares import share


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """What was found must survive 8 bits and a PNG file: what does not was never an image.

    The iterate of the largest margin is asked about as it is, in floats, and again after it was saved and read.

    Attributes:
        warn: Share of all images whose success is lost above which it warns.
        fail: Share above which it fails, from 3 images on.
    """

    warn: float = 0.01
    fail: float = 0.05
    name = "8-bit round trip"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        traced, total = runs.traced, len(runs.batch)
        found = traced.trace["again"] & ~traced.skipped
        lost = int((found & ~traced.success).sum())
        verdict = graded(lost, total, warn=self.warn, fail=self.fail)
        return Finding(
            check=self.name,
            verdict=verdict,
            why=f"A descent in floats reached its goal on {told(found.sum(), total)} images; saved as 8-bit PNG, "
            f"{lost} of those no longer do. Every count of this card is of saved images.",
            do=""
            if verdict == "PASS"
            else "Find out what the network sees between the levels of a byte, and count only saved adversarials; an "
            "attack that rounds as it goes finds those that last.",
            numbers={"found": int(found.sum()), "lost": lost, "total": total},
        )


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """Few images leave much to chance: the interval is printed, and below 1000 images it warns.

    Attributes:
        enough: Images from which on it passes.
    """

    enough: int = 1000
    name = "sample size"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        total, standing = len(runs.batch), int(runs.worst.sum())
        interval = share(standing, total)
        assert interval is not None  # a card of no images is refused
        return Finding(
            check=self.name,
            verdict="PASS" if total >= self.enough else "WARN",
            why=f"{told(standing, total)} images stand after every attack of this card, 95 % interval "
            f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f} %.",
            do=""
            if total >= self.enough
            else f"Attack {self.enough} images or more before quoting a number, and quote it with its interval.",
            numbers={"standing": interval, "enough": self.enough},
        )


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A number without a threat model is no claim (Carlini et al. 2019, sec. 2.2)."""

    name = "threat model"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        threat = runs.threat
        numbers = {"norm": threat.norm, "eps": threat.eps, "words": threat.words}
        if threat.words.strip():
            why = f"Stated: {threat.words.strip()}; {threat.spelled}."
            return Finding(check=self.name, verdict="PASS", why=why, numbers=numbers)
        return Finding(
            check=self.name,
            verdict="WARN",
            why=f"Only a radius is given ({threat.spelled}): not what the attacker knows, wants and may ask.",
            do='State it: ThreatModel(words="white box, untargeted"), or --threat "white box, untargeted".',
            numbers=numbers,
        )


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """A random or non-differentiable part asks for an attack written for it (Tramèr et al. 2020).

    Such a part is found by `randomised output`, `gradients` and `gradient and finite differences`. Whether the attack
    is a good one no check can tell.
    """

    name = "adaptive attack"

    def judge(self, runs: Runs) -> Finding:
        """See `Check`."""
        parts = []
        if runs.random:
            parts.append("its output is random")
        if Available().judge(runs).verdict == "FAIL":
            parts.append("it has no usable gradient")
        elif Faithful().judge(runs).verdict == "FAIL":
            parts.append("its gradient does not say how its output changes")
        numbers = {"parts": parts, "adaptive": runs.adaptive}
        if not parts:
            why = "No random or non-differentiable part was found, so the attacks of this card see all there is."
            return Finding(check=self.name, verdict="PASS", why=why, numbers=numbers)
        found = f"The network has a part that ordinary attacks do not get through: {' and '.join(parts)}."
        if runs.adaptive:
            why = f"{found} An attack written for it is said to be part of the evaluation; its quality is not judged."
            return Finding(check=self.name, verdict="PASS", why=why, numbers=numbers)
        return Finding(
            check=self.name,
            verdict="FAIL",
            why=f"{found} No attack written for it is part of the evaluation.",
            do="Write one: average over draws, pass gradients straight through, or attack the part's inputs; then make "
            "the card with adaptive=True (--adaptive).",
            numbers=numbers,
        )
