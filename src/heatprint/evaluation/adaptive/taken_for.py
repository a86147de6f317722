"""Against the identifier: to be taken for another attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.evaluation.adaptive.guarded import Guarded
from heatprint.evaluation.adaptive.soft import soft_columns
from heatprint.evaluation.adaptive.stand_in import LEAST
from heatprint.evaluation.adaptive.walk import Evaded, Walk, shortfall


@dataclass(frozen=True, kw_only=True)
class TakenFor:
    """Steps that keep the classifier wrong and raise the probability of a family that the attack does not belong to.

    In the maximum norm some families are out of reach: a few hot pixels need more than eps.

    Whoever routes images by the answer of an identifier (Maini et al. 2021, PROTECTOR) is fooled by an attack that is
    named wrongly. The image kept is the one for which the real identifier is surest of the wrong family; the gradient
    is that of a stand-in with one output for each family.

    Attributes:
        family: The family to be taken for, one the identifier knows.
        walk: Radius, steps, questions.
        weight: Of the lead that is lacking, above 0, in log-probability per logit.
        sure: Probability of that family at which an image is left, above 0, at most 1.
    """

    family: str = "benign change"
    walk: Walk = Walk()  # noqa: RUF009 frozen
    weight: float = 8.0
    sure: float = 0.9

    def __post_init__(self) -> None:
        if not (self.weight > 0 and 0 < self.sure <= 1):
            raise InvalidInput(f"TakenFor: weight = {self.weight} must be above 0, sure = {self.sure} in (0, 1].")

    @property
    def eps(self) -> float:
        """Radius in the maximum norm."""
        return self.walk.eps

    def perturb(self, guarded: Guarded, batch: Batch, *, seed: int, progress: Progress) -> Evaded:
        """See `heatprint.evaluation.adaptive.walk.Adaptive`.

        Raises:
            InvalidInput: There is no identifier, or it does not know the family.
        """
        del seed  # nothing is random but the stand-in, which has its own
        namer = guarded.namer
        if namer is None or self.family not in guarded.named:
            raise InvalidInput(
                f"TakenFor: family = {self.family!r} must be one the identifier knows: "
                f"{', '.join(guarded.named) or 'there is no identifier'}."
            )
        place = guarded.named.index(self.family)

        def direction(images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
            del rows
            images.requires_grad_()
            columns, logits = soft_columns(guarded.classifier, images, namer.families)
            doubt = -namer(columns).log_softmax(1)[:, place]
            loss = doubt + self.weight * shortfall(logits, labels, self.walk.margin)
            return torch.autograd.grad(loss.sum(), images)[0]

        def judge(pixels: Tensor) -> np.ndarray:
            table, shares = guarded.name(pixels)
            namer.learn(table, np.log(shares.clip(LEAST)))
            return np.asarray(1 - shares[:, place])

        return self.walk.run(guarded, batch, direction, judge, enough=1 - self.sure, progress=progress)
