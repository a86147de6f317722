"""One loss of classifier and detector."""

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
from heatprint.evaluation.adaptive.stand_in import unbounded
from heatprint.evaluation.adaptive.walk import Evaded, Judge, Walk, shortfall


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Steps down the stand-in's score plus what the wrong answer still lacks of its lead.

    Carlini and Wagner 2017, "Adversarial examples are not easily detected", section 2.3, in the form of projected
    steps: the loss is score + weight * max(margin - lead, 0). The score is that of a stand-in on the detector's own
    columns, which goes on learning from the detector's answers; the paper's detectors were networks and needed none.

    Attributes:
        walk: Radius, steps, questions.
        weight: Of the lead that is lacking, above 0, in log odds per logit.
        second_order: Whether the detector's patterns move with the image (see `soft_columns`).
    """

    walk: Walk = Walk()  # noqa: RUF009 frozen
    weight: float = 8.0
    second_order: bool = False

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InvalidInput(f"Joint: weight = {self.weight} must be above 0, such as 8.")

    @property
    def eps(self) -> float:
        """Radius in the maximum norm."""
        return self.walk.eps

    def perturb(self, guarded: Guarded, batch: Batch, *, seed: int, progress: Progress) -> Evaded:
        """See `heatprint.evaluation.adaptive.walk.Adaptive`."""
        del seed  # nothing is random but the stand-in, which has its own

        def direction(images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
            del rows
            images.requires_grad_()
            columns, logits = soft_columns(
                guarded.classifier, images, guarded.stand_in.families, second_order=self.second_order
            )
            loss = guarded.stand_in(columns)[:, 0] + self.weight * shortfall(logits, labels, self.walk.margin)
            return torch.autograd.grad(loss.sum(), images)[0]

        return self.walk.run(guarded, batch, direction, asking(guarded), enough=guarded.enough, progress=progress)


def asking(guarded: Guarded) -> Judge:
    """The real detector's scores; the stand-in learns from each."""

    def judge(pixels: Tensor) -> np.ndarray:
        table, scores = guarded.ask(pixels)
        guarded.stand_in.learn(table, unbounded(scores))
        return scores

    return judge
