"""What a training step is about: the images of a batch, and what is to be small on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """One batch.

    Attributes:
        network: The network that learns, in training mode.
        normalise: Images in [0, 1] to the network's input.
        images: float32 [N, 3, H, W] in [0, 1], augmented.
        labels: int64 [N].
        rows: int64 [N], which training images these are.
        epoch: Counted from 0.
        label_smoothing: Of the recipe.
        rng: Of this epoch; draw from it whatever is random.
        memory: Kept over the replays of one batch, and then forgotten.
    """

    network: nn.Module
    normalise: Callable[[Tensor], Tensor]
    images: Tensor
    labels: Tensor
    rows: Tensor
    epoch: int
    label_smoothing: float
    rng: np.random.Generator
    memory: dict[str, Any] = field(default_factory=dict)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images in [0, 1], differentiable in images and weights."""
        found: Tensor = self.network(self.normalise(images))
        return found.float()


@runtime_checkable
class Objective(Protocol):
    """What a training minimises."""

    @property
    def replays(self) -> int:
        """Steps of the optimiser on each batch."""
        ...

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the logits [N, K] that its accuracy is counted from."""
        ...


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy on the images as they are."""

    replays = 1

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        logits = lesson.logits(lesson.images)
        return F.cross_entropy(logits, lesson.labels, label_smoothing=lesson.label_smoothing), logits


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """How a training is watched, and when it ends early.

    Attributes:
        measure: Numbers of the classifier after an epoch, e.g. clean and attacked accuracy of held-out images.
        score: Which of them is to be large: the weights of the epoch with the largest are kept. Empty for the last's.
        patience: Epochs without a larger score after which the training ends; 0 for never.
        alarm: Says why the training must end now, from the numbers of all epochs; empty text to go on.
        key: What `measure` depends on, for resuming.
    """

    measure: Callable[[Classifier], Mapping[str, float]]
    score: str = ""
    patience: int = 0
    alarm: Callable[[list[Mapping[str, float]]], str] | None = None
    key: object = None
