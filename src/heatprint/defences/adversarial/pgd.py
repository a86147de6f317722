"""Adversarial training with projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.defences.adversarial.base import IteratedTraining, cross_entropy
from heatprint.models.lesson import Lesson


@dataclass(frozen=True, kw_only=True)
class PGDTraining(IteratedTraining):
    """Cross-entropy on images attacked by PGD at every step (Madry et al. 2018, equation 2.1).

    Training accuracy is that on the attacked images. Deviation: the network is attacked in evaluation mode, as it
    will be later (Pang et al. 2021).

    Attributes:
        clean_share: Weight of the clean images in the loss, in [0, 1); 0 as published (Goodfellow et al. 2015 take
            0.5).
        eps: Radius in `norm`.
        norm: ``"linf"`` or ``"l2"``.
        steps: Iterations of the attack.
        step: Length of one; None for 2.5 * eps / steps.
        awp: Gamma of adversarial weight perturbation; 0 for none.
        training: The recipe.
        watch: How it is watched.
    """

    clean_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.clean_share < 1:
            raise InvalidInput(
                f"PGDTraining: clean_share = {self.clean_share} must be 0 or more and below 1; "
                "for clean images alone write the defence 'retrain' without attacks."
            )

    def loss_on(self, lesson: Lesson, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """See `IteratedTraining`."""
        logits = lesson.logits(adversarial)
        loss = cross_entropy(lesson, logits)
        if self.clean_share:
            clean = cross_entropy(lesson, lesson.logits(lesson.images))
            loss = self.clean_share * clean + (1 - self.clean_share) * loss
        return loss, logits
