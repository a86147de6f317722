"""Free adversarial training: one backward pass moves the weights and the perturbation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from heatprint.attacks.parts.balls import check_radius, steepest
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import Level
from heatprint.core.norms import project
from heatprint.defences.adversarial.base import AdversarialTraining, cross_entropy
from heatprint.defences.adversarial.inner import InnerNorm
from heatprint.defences.adversarial.watch import Balls
from heatprint.models.lesson import Lesson
from heatprint.models.train import Training


@dataclass(frozen=True, kw_only=True)
class FreeTraining(AdversarialTraining):
    """Each batch is learnt several times in a row, attacked by one step more each time (Shafahi et al. 2019, alg. 1).

    The backward pass of a step also gives the gradient of the images, which moves the perturbation of the next; so
    the epochs of the recipe are divided by the replays and the whole costs what plain training does. Training
    accuracy is that on the last replay of each batch.

    Deviations: the perturbation starts at zero with each batch and not at the last batch's, whose images it does not
    belong to, so the first replay sees clean images; and it is kept within [0, 1]. As published, its gradient is that
    of the training pass, with batch statistics and dropout.

    Attributes:
        eps: Radius in `norm`, and length of a step; ``"2/255"`` is accepted.
        norm: ``"linf"`` (published) or ``"l2"``.
        replays: Steps of the optimiser on each batch, m in the paper, 2 or more: one would be plain training.
        training: The recipe of plain training; its epochs are divided by `replays`, rounded up.
        watch: How it is watched.
    """

    eps: Level = 2 / 255
    norm: InnerNorm = "linf"
    replays: int = 4

    def __post_init__(self) -> None:
        check_radius("FreeTraining: eps", self.eps, self.norm)
        if self.replays < 2:
            raise InvalidInput(
                f"FreeTraining: replays = {self.replays} must be 2 or more: the first of them sees clean images."
            )

    @property
    def balls(self) -> Balls:
        """The ball that is trained in."""
        return ((self.norm, self.eps),)

    def recipe(self) -> Training:
        """The recipe with its epochs divided by the replays."""
        stages = tuple((math.ceil(epochs / self.replays), size) for epochs, size in self.training.stages)
        return replace(self.training, stages=stages)

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`; the batch as it was attacked last is in `lesson.memory`."""
        clean, last = lesson.images, lesson.memory.get("attacked")
        if last is None:
            images = clean.clone()
        else:
            moved = last.detach() - clean + self.eps * steepest(last.grad, self.norm)
            images = (clean + project(moved, self.norm, self.eps)).clamp(0, 1)
        lesson.memory["attacked"] = images.requires_grad_(True)
        logits = lesson.logits(images)
        return cross_entropy(lesson, logits), logits
