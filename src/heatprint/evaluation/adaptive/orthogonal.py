"""Steps on classifier or detector that leave the other where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.evaluation.adaptive.guarded import Guarded
from heatprint.evaluation.adaptive.joint import asking
from heatprint.evaluation.adaptive.soft import soft_columns
from heatprint.evaluation.adaptive.walk import Evaded, Walk, unit

Projected = Literal["both", "classifier", "detector", "neither"]


@dataclass(frozen=True, kw_only=True)
class Orthogonal:
    """While the classifier is right a step on it, else a step on the detector, each orthogonal to the other's gradient.

    Bryniarski, Hingun, Pachuca, Wang and Carlini 2021, "Evading adversarial example detection defenses with orthogonal
    projected gradient descent", sections 4.1 (selective: nothing is projected) and 4.2 (orthogonal). Differs in that
    steps are the sign of the projected gradient with momentum, one 8-bit level each, and the detector's gradient that
    of a stand-in.

    Attributes:
        walk: Radius, steps, questions; the classifier counts as fooled at its ``margin``.
        projected: Whose gradient is made orthogonal to the other's: ``"both"``, ``"classifier"``, ``"detector"``, or
            ``"neither"``, which is the selective attack.
    """

    walk: Walk = Walk()  # noqa: RUF009 frozen
    projected: Projected = "both"

    def __post_init__(self) -> None:
        if self.projected not in get_args(Projected):
            raise InvalidInput(
                f"Orthogonal: projected = {self.projected!r} must be one of {', '.join(get_args(Projected))}."
            )

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
            columns, logits = soft_columns(guarded.classifier, images, guarded.stand_in.families)
            lead = untargeted(labels).margin(logits)
            of_classifier = -unit(torch.autograd.grad(lead.sum(), images, retain_graph=True)[0])
            of_detector = unit(torch.autograd.grad(guarded.stand_in(columns).sum(), images)[0])
            first = orthogonal(of_classifier, of_detector) if self._projects("classifier") else of_classifier
            second = orthogonal(of_detector, of_classifier) if self._projects("detector") else of_detector
            return torch.where((lead < self.walk.margin).view(-1, 1, 1, 1), first, second)

        return self.walk.run(guarded, batch, direction, asking(guarded), enough=guarded.enough, progress=progress)

    def _projects(self, whose: Projected) -> bool:
        return self.projected in ("both", whose)


def orthogonal(gradient: Tensor, other: Tensor) -> Tensor:
    """What of a gradient [N, 3, H, W] is orthogonal to another, image by image."""
    flat, against = gradient.flatten(1), other.flatten(1)
    share = (flat * against).sum(1) / against.square().sum(1).clamp_min(1e-30)
    return gradient - share.view(-1, 1, 1, 1) * other
