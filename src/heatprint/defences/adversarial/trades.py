"""TRADES: clean accuracy, and the same answer in the whole neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from heatprint.defences.adversarial.base import IteratedTraining, check_weight, cross_entropy
from heatprint.defences.adversarial.inner import InnerLoss, Start, divergence
from heatprint.models.lesson import Lesson


@dataclass(frozen=True, kw_only=True)
class TRADES(IteratedTraining):
    """Cross-entropy on clean images plus beta times the largest KL(p(x) || p(x')) found near them.

    (Zhang et al. 2019, equation 5 and algorithm 1.) Gradients flow through both probabilities. The attack raises the
    divergence in double precision, since with two classes the probabilities saturate early. Training accuracy is that
    on clean images. Deviation: the random start, of deviation 0.001, is brought back into the ball.

    Attributes:
        beta: Weight of the divergence, 1 to 10 in the paper; 0 is plain training, bit for bit, and attacks nothing.
        eps: Radius in `norm`.
        norm: ``"linf"`` or ``"l2"``.
        steps: Iterations of the attack.
        step: Length of one; None for 2.5 * eps / steps.
        awp: Gamma of adversarial weight perturbation; 0 for none.
        training: The recipe.
        watch: How it is watched.
    """

    beta: float = 6.0

    inner_loss: ClassVar[InnerLoss] = "kl"
    start: ClassVar[Start] = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("TRADES: beta", self.beta)

    def adversarial(self, lesson: Lesson) -> Tensor:
        """The attacked images of a lesson, [N, 3, H, W]; the clean ones where beta is 0."""
        return super().adversarial(lesson) if self.beta else lesson.images

    def loss_on(self, lesson: Lesson, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """See `IteratedTraining`."""
        clean = lesson.logits(lesson.images)
        loss = cross_entropy(lesson, clean)
        if self.beta:
            loss = loss + self.beta * divergence(clean, lesson.logits(adversarial)).mean()
        return loss, clean
