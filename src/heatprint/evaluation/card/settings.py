"""Within what a classifier is attacked, and how hard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import Level, whole_levels


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Who attacks, with what, to what end: without it a share of images that stand means nothing.

    Attributes:
        norm: In which a change is measured: ``"linf"`` or ``"l2"``.
        eps: Largest change in it, pixel values in [0, 1].
        words: What the attacker knows and wants, for people: "white box, untargeted". Empty: not stated.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: Level = 2 / 255
    words: str = ""

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise InvalidInput(f"ThreatModel: norm = {self.norm!r} must be 'linf' or 'l2'.")
        whole = 1.0 if self.norm == "linf" else math.inf
        if isinstance(self.eps, str) or not 0 < self.eps <= whole or self.eps == math.inf:
            raise InvalidInput(f"ThreatModel: eps = {self.eps!r} must be above 0, for pixels in [0, 1]: 2 / 255.")
        if self.norm == "linf" and whole_levels(self.eps) < 1:
            raise InvalidInput(
                f"ThreatModel: eps = {self.eps:g} is less than one of 255 levels; write 1 / 255 or more."
            )

    @property
    def spelled(self) -> str:
        """Norm and radius, e.g. "linf 2/255"."""
        return f"linf {whole_levels(self.eps)}/255" if self.norm == "linf" else f"l2 {self.eps:g}"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard the card tries; the defaults take minutes on two cores for a small network at 112 pixels.

    Attributes:
        steps: Iterations of APGD, the white box of the card.
        more: Iterations of the longer run on what stands after it.
        restarts: Starts of the longer run.
        queries: Of Square, on what stands after both.
        way: Iterations of the descents that are written down.
        directions: Random directions in which the surroundings of an image are asked about.
        far: Steps of 8/255 of the attack without a radius.
    """

    steps: int = 20
    more: int = 50
    restarts: int = 2
    queries: int = 300
    way: int = 20
    directions: int = 10
    far: int = 64

    def __post_init__(self) -> None:
        least = {"steps": 2, "more": 2, "restarts": 1, "queries": 1, "way": 4, "directions": 2, "far": 1}
        wrong = [f"{name} = {getattr(self, name)} (least {low})" for name, low in least.items()
                 if getattr(self, name) < low]  # fmt: skip
        if wrong:
            raise InvalidInput(f"Effort: too little to say anything: {', '.join(wrong)}.")
