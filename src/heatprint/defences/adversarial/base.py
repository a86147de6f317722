"""What the methods of adversarial training share: settings, the run, and a step on attacked images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from heatprint.attacks.parts.balls import check_radius
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import Level
from heatprint.core.protocols import Progress
from heatprint.core.values import Attacked, Batch
from heatprint.defences.adversarial.inner import InnerAttack, InnerLoss, InnerNorm, Start, usual_step
from heatprint.defences.adversarial.watch import Balls, Watch, watched
from heatprint.defences.adversarial.weights import perturbed_weights
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models.lesson import Lesson
from heatprint.models.train import Training

ADVERSARIAL = replace(FINE_TUNE, stages=((4, 0),))
"""From trained weights on: few epochs, as in `FINE_TUNE`."""


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(ABC):
    """A defence that is its own objective: it trains on from the weights it is given, watched.

    Attributes:
        training: The recipe. Its stages must end at the classifier's image size, which 0 stands for.
        watch: How it is watched, which epoch is kept, what ends it early.
    """

    training: Training = field(default_factory=lambda: ADVERSARIAL)
    watch: Watch = field(default_factory=Watch)

    @property
    def replays(self) -> int:
        """Steps of the optimiser on each batch."""
        return 1

    @property
    @abstractmethod
    def balls(self) -> Balls:
        """Norms and radii of the attacks that watch."""

    @abstractmethod
    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""

    def recipe(self) -> Training:
        """The recipe as it is run."""
        return self.training

    def protect(
        self,
        classifier: Classifier,
        train_batch: Batch,
        attacked: Mapping[str, Attacked],
        *,
        seed: int,
        checkpoint: Path | None,
        progress: Progress,
    ) -> Classifier:
        """See `heatprint.core.protocols.Defence`."""
        del attacked
        learnt, held = self.watch.parts(train_batch)
        return watched(
            classifier, learnt, held, self.recipe(), self, self.watch, self.balls, seed=seed, checkpoint=checkpoint,
            progress=progress,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IteratedTraining(AdversarialTraining, ABC):
    """Adversarial training on images attacked by several steps in one ball, with perturbed weights if asked for.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; ``"2/255"`` is accepted.
        norm: ``"linf"`` or ``"l2"``.
        steps: Iterations of the attack on each batch.
        step: Length of one of them; None for 2.5 * eps / steps.
        awp: Gamma of adversarial weight perturbation (Wu, Xia and Wang 2020), in [0, 1); 0 for none. It costs one
            more pass per step.
    """

    eps: Level = 2 / 255
    norm: InnerNorm = "linf"
    steps: int = 10
    step: Level | None = None
    awp: float = 0.0

    inner_loss: ClassVar[InnerLoss] = "cross_entropy"
    start: ClassVar[Start] = "uniform"

    def __post_init__(self) -> None:
        who = type(self).__name__
        check_radius(f"{who}: eps", self.eps, self.norm)
        if self.steps < 1:
            raise InvalidInput(f"{who}: steps = {self.steps} must be 1 or more.")
        if self.step is not None:
            check_radius(f"{who}: step", self.step, self.norm)
        if not 0 <= self.awp < 1:
            raise InvalidInput(f"{who}: awp = {self.awp} must be 0 (off) or a share below 1, e.g. 0.005.")

    @property
    def balls(self) -> Balls:
        """The ball that is trained in."""
        return ((self.norm, self.eps),)

    @abstractmethod
    def loss_on(self, lesson: Lesson, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the logits that accuracy is counted from, given the attacked images [N, 3, H, W]."""

    def adversarial(self, lesson: Lesson) -> Tensor:
        """The attacked images of a lesson, [N, 3, H, W]."""
        step = usual_step(self.eps, self.steps) if self.step is None else self.step
        attack = InnerAttack(
            eps=self.eps, norm=self.norm, step=step, steps=self.steps, start=self.start, loss=self.inner_loss
        )
        return attack.images(lesson)

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        images = self.adversarial(lesson)
        if self.awp:
            lesson = perturbed_weights(lesson, lambda moved: self.loss_on(moved, images)[0], self.awp)
        return self.loss_on(lesson, images)


def cross_entropy(lesson: Lesson, logits: Tensor) -> Tensor:
    """Mean cross-entropy of logits [N, K] and the labels, smoothed as the recipe says."""
    return F.cross_entropy(logits, lesson.labels, label_smoothing=lesson.label_smoothing)


def check_weight(who: str, value: float) -> None:
    """Refuse a weight of a term of the loss that is negative or not finite.

    Raises:
        InvalidInput: With what to write.
    """
    if not 0 <= value < math.inf:
        raise InvalidInput(f"{who} = {value} must be a finite number, 0 or more, e.g. 6.")
