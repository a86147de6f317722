"""MART: adversarial training that looks harder at what the network gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.defences.adversarial.base import IteratedTraining, check_weight, cross_entropy
from heatprint.defences.adversarial.inner import divergence
from heatprint.models.lesson import Lesson


@dataclass(frozen=True, kw_only=True)
class MART(IteratedTraining):
    """Boosted cross-entropy on attacked images, and a divergence weighted by how wrong the clean image is.

    The loss is BCE(p(x'), y) + beta * KL(p(x) || p(x')) * (1 - p_y(x)) with BCE = -log p_y(x') -
    log(1 - max_{k != y} p_k(x')) and x' from PGD on cross-entropy (Wang et al. 2020, section 3). Written from
    the paper, in logarithms throughout, so that no probability is rounded to 1. Training accuracy is that on the
    attacked images. Label smoothing of the recipe acts on the first term of BCE. With two classes both terms of BCE
    are the same.

    Attributes:
        beta: Weight of the divergence (lambda in the paper, 5 there); 0 leaves BCE.
        eps: Radius in `norm`.
        norm: ``"linf"`` or ``"l2"``.
        steps: Iterations of the attack.
        step: Length of one; None for 2.5 * eps / steps.
        awp: Gamma of adversarial weight perturbation; 0 for none.
        training: The recipe.
        watch: How it is watched.
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("MART: beta", self.beta)

    def loss_on(self, lesson: Lesson, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """See `IteratedTraining`."""
        attacked, own = lesson.logits(adversarial), lesson.labels[:, None]
        loss = cross_entropy(lesson, attacked) - log_not_rival(attacked, own).mean()
        if self.beta:
            clean = lesson.logits(lesson.images)
            wrong = 1 - clean.softmax(1).gather(1, own).squeeze(1)
            loss = loss + self.beta * (divergence(clean, attacked) * wrong).mean()
        return loss, attacked


def log_not_rival(logits: Tensor, own: Tensor) -> Tensor:
    """log(1 - max p_k), [N], over the classes k other than `own` int64 [N, 1], from logits [N, K]."""
    rival = logits.detach().scatter(1, own, -torch.inf).argmax(1, keepdim=True)
    return logits.scatter(1, rival, -torch.inf).logsumexp(1) - logits.logsumexp(1)
