"""What a guard says of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["attacked", "passed", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What was probably done to a flagged image.

    Attributes:
        family: The most probable family of attacks.
        family_probability: Of it, 0 to 1.
        name: The most probable algorithm.
        probability: Of it, 0 to 1.
        unknown: It is unlike every attack learned from; the names say only what it is most like.
    """

    family: str
    family_probability: float
    name: str
    probability: float
    unknown: bool


@dataclass(frozen=True, kw_only=True)
class Restored:
    """The answer after the most suspicious pixel was repaired, where that changes it.

    Attributes:
        prediction: Class name.
        row: Of the pixel, from the top.
        column: Of the pixel, from the left.
    """

    prediction: str
    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Which defence of the run to ask about a flagged image.

    Attributes:
        name: Of the remedy, as `heatprint defend` names it.
        probability: Of its being right about this image, 0 to 1.
    """

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a guard says of one image.

    Attributes:
        prediction: Class name, as the unguarded classifier answers.
        label: Its place among the classes.
        probability: Softmax of it, 0 to 1.
        verdict: ``"attacked"``; ``"passed"``, no sign of an attack; ``"unchecked"``, the detector was not asked.
        score: The detector's, higher for attacked; None if unchecked.
        threshold: Score above which an image is flagged; None if unchecked.
        attack: What was done, of flagged images and where the run has an identifier.
        restored: Of flagged images that look as if few pixels had been changed.
        remedy: Of flagged images, where `heatprint defend` has learned what remedies are worth.
    """

    prediction: str
    label: int
    probability: float
    verdict: Verdict = "unchecked"
    score: float | None = None
    threshold: float | None = None
    attack: Attack | None = None
    restored: Restored | None = None
    remedy: Remedy | None = None
