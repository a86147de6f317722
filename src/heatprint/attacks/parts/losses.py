"""Losses to be raised beside the margin and the cross-entropy of a goal: the difference of logits ratio, and pairs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.access import LOSSES
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.protocols import Loss

LossName = Literal["cross_entropy", "margin", "dlr"]
TINY = 1e-12  # equal logits give a ratio of 0, not of NaN


def dlr(logits: Tensor, goal: Goal) -> Tensor:
    """Difference of logits ratio, [N] (Croce and Hein 2020, eqs. 6 and 7): the margin in units of the logits' spread.

    Untargeted it divides by z1 - z3, targeted by z1 - (z3 + z4) / 2, with z1 the largest logit. Equation 7 measures
    the target against the true class, which a targeted goal does not name: here it is the best other class.
    """
    return goal.margin(logits) / (_spread(logits, goal.targeted) + TINY)


def named(loss: LossName, classes: int, *, targeted: bool, who: str) -> Loss:
    """The loss of that name.

    Raises:
        InvalidInput: The ratio needs more classes than there are.
    """
    if loss != "dlr":
        return LOSSES[loss]
    need = 4 if targeted else 3
    if classes < need:
        kind = "a target" if targeted else "no target"
        raise InvalidInput(
            f"{who}: loss 'dlr' with {kind} needs {need} classes or more, and there are {classes}. "
            "Write loss='margin', the same difference of logits without the ratio."
        )
    return dlr


def towards(loss: LossName, aims: Tensor, classes: int) -> Loss:
    """The loss that pulls each image of an untargeted goal from its label to the class `aims` [N].

    ``"cross_entropy"``: that of the class aimed at. ``"margin"``: its logit minus the label's. ``"dlr"``: that
    difference in units of z1 - (z3 + z4) / 2 (equation 7); below four classes, which have no z4, without the unit.
    """
    if loss == "cross_entropy":
        return lambda logits, goal: Goal(labels=aims.to(logits.device), targeted=True).cross_entropy(logits)

    def pair(logits: Tensor, goal: Goal) -> Tensor:
        both = torch.stack([aims.to(logits.device), goal.labels], 1)
        aimed, own = logits.gather(1, both).unbind(1)
        return aimed - own

    if loss == "margin" or classes < 4:
        return pair
    return lambda logits, goal: pair(logits, goal) / (_spread(logits, targeted=True) + TINY)


def _spread(logits: Tensor, targeted: bool) -> Tensor:
    ordered = logits.topk(4 if targeted else 3, dim=1).values
    return ordered[:, 0] - ((ordered[:, 2] + ordered[:, 3]) / 2 if targeted else ordered[:, 2])
