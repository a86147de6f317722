"""Fast adversarial training: one step from a random start."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from heatprint.attacks.parts.balls import check_radius
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import Level
from heatprint.defences.adversarial.base import AdversarialTraining, cross_entropy
from heatprint.defences.adversarial.inner import InnerAttack, InnerNorm
from heatprint.defences.adversarial.watch import Balls
from heatprint.models.lesson import Lesson


@dataclass(frozen=True, kw_only=True)
class FastTraining(AdversarialTraining):
    """Cross-entropy on images attacked by one step from a uniform start (Wong, Rice and Kolter 2020, algorithm 3).

    It costs two passes per step, and can collapse: within an epoch the network withstands single steps and nothing
    else. The watch's alarm is therefore always on. Training accuracy is that on the attacked images. Deviation: the
    network is attacked in evaluation mode.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; ``"2/255"`` is accepted.
        norm: ``"linf"`` (published) or ``"l2"``.
        alpha: Length of the step relative to eps, in (0, 2]; above 1.25 it collapses sooner.
        training: The recipe.
        watch: How it is watched.
    """

    eps: Level = 2 / 255
    norm: InnerNorm = "linf"
    alpha: float = 1.25

    def __post_init__(self) -> None:
        check_radius("FastTraining: eps", self.eps, self.norm)
        if not 0 < self.alpha <= 2:
            raise InvalidInput(f"FastTraining: alpha = {self.alpha} must be in (0, 2], relative to eps; 1.25 is usual.")
        if not self.watch.alarm:
            raise InvalidInput("FastTraining: the collapse alarm cannot be switched off. Leave watch.alarm = True.")

    @property
    def balls(self) -> Balls:
        """The ball that is trained in."""
        return ((self.norm, self.eps),)

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        attack = InnerAttack(eps=self.eps, norm=self.norm, step=self.alpha * self.eps, steps=1)
        logits = lesson.logits(attack.images(lesson))
        return cross_entropy(lesson, logits), logits
