"""Conservation: whether a layer hands on the relevance it is given, and a warning with its name when it does not.

A layer with a bias, or an epsilon in its denominator, keeps a share; iNNvestigate's whole bias can also make
relevance. Both are the rules at work. A layer that keeps more than half of what it is given, or doubles it, has
decided what the map shows, and its user must know.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from heatprint.core.values import Explained

KEEPS = 0.5
DOUBLES = 2.0
MATTERS = 0.1


class ConservationWarning(UserWarning):
    """A layer keeps or makes so much relevance that the map cannot be read as shares of the score."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What one layer does to the relevance it is given, in the median image.

    Attributes:
        layer: Its name in the rule plan.
        received: Sum of relevance at its output, as a fraction of the score.
        passed: Sum handed on to its inputs, as a fraction of the score.
    """

    layer: str
    received: float
    passed: float

    @property
    def ratio(self) -> float:
        """Passed over received; 1 where relevance is conserved."""
        return self.passed / self.received if self.received else float("inf")


def conservation(explained: Explained) -> list[Leak]:
    """Received and passed relevance of every layer, in the order of the forward pass.

    Args:
        explained: By an ``lrp.`` method; other methods do not propagate, and give an empty list.
    """
    start = explained.score.double()
    start = start.where(start != 0, 1e-30)
    return [
        Leak(
            layer=name,
            received=float((explained.totals[name].double() / start).median()),
            passed=float((passed.double() / start).median()),
        )
        for name, passed in explained.passed.items()
    ]


def leaking(explained: Explained) -> str:
    """What is to be said where the median image loses more than half in a layer, or doubles; else empty.

    Layers that carry less than a tenth of the score are left alone.
    """
    bad = [
        leak
        for leak in conservation(explained)
        if max(abs(leak.received), abs(leak.passed)) > MATTERS and not KEEPS < leak.ratio < DOUBLES
    ]
    if not bad:
        return ""
    worst = sorted(bad, key=lambda leak: abs(leak.passed - leak.received), reverse=True)[:3]
    told = "; ".join(f"{leak.layer}: {leak.received:.3g} in, {leak.passed:.3g} out" for leak in worst)
    return (
        f"{len(bad)} of {len(explained.passed)} layers keep more than half of their relevance or "
        f"double it (fractions of the score, median image): {told}. Read the map for where, not for how much; "
        "bias='positive' or a smaller epsilon changes it."
    )


def warn_of_leaks(explained: Explained) -> None:
    """Warn with the words of `leaking`, if there are any."""
    words = leaking(explained)
    if words:
        warnings.warn(f"explain: {words}", ConservationWarning, stacklevel=3)
