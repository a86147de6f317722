"""The verbs a method of each room must have. A method is a frozen dataclass: its fields are its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.goals import Goal
from heatprint.core.streams import Streams
from heatprint.core.values import Attacked, Batch, Explained, Perturbed, Taxonomy


class Progress(Protocol):
    """Receives how far a long step is; every door takes one and works without."""

    def __call__(self, done: int, total: int, note: object = "") -> None:
        """`done` of `total` units; the note reads as a few words, and may be a dataclass that carries more."""
        ...


Loss = Callable[[Tensor, Goal], Tensor]
"""What to raise: from logits [M, K] and the goal of those rows, one value per image [M]."""


class Access(Protocol):
    """What an attack may ask of the classifier; every question is counted per image.

    In every question `rows` int64 [M] says to which attacked image each asked one belongs. What an attack has not
    declared in its taxonomy is refused. Once an image's budget is spent, questions about it are answered as for the
    clean image, with zero gradients: nothing more can be learned.

    Attributes:
        batch: Images per question that suit the device.
        device: Where images should be when they are asked about.
        classes: Number of classes K.
    """

    batch: int
    device: torch.device
    classes: int

    def reached(self, images: Tensor, rows: Tensor) -> Tensor:
        """Whether images [M, 3, H, W] reach the goal, bool [M]: all that a label-only attack may know."""
        ...

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, K] of images [M, 3, H, W]."""
        ...

    def recoloured(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """Logits [M, K] of the attacked images themselves with a few pixels recoloured.

        Far faster than `logits` where the network allows it, because only what the change reaches is computed.

        Args:
            rows: int64 [M].
            places: int64 [M, d, 2], row and column of each pixel. Of two edits of one pixel the last counts.
            colours: float32 [M, d, 3] in [0, 1].
        """
        ...

    def gradient(self, images: Tensor, rows: Tensor, loss: str | Loss) -> tuple[Tensor, Tensor]:
        """Gradient [M, 3, H, W] of what is to be raised, and the logits [M, K] of the same pass.

        The loss is ``"margin"`` or ``"cross_entropy"`` of the goal, or a function of its own.
        """
        ...

    def jacobian(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients [M, K, 3, H, W] of every logit, and the logits [M, K]; counts one forward, K backward passes."""
        ...

    def differentiable(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, K] with the graph that leads back to `images`, for code that differentiates them itself.

        Counts one forward pass now, and a backward pass each time a gradient comes back.
        """
        ...

    def spent(self, rows: Tensor) -> Tensor:
        """Whether the budget allows no further question about these rows, bool [M]; costs nothing."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Perturbs; never judges itself."""

    @property
    def taxonomy(self) -> Taxonomy:
        """Where the attack stands."""
        ...

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """Changed copies of images [N, 3, H, W] in [0, 1]; `images` itself is left alone."""
        ...


@runtime_checkable
class Explainer(Protocol):
    """Attributes a logit to the network's input."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """Relevance of normalised inputs [N, 3, H, W], and at the named layers' outputs.

        `target` is what is explained: classes, int64 [N], or a weighting of the logits, float [N, K]
        (`heatprint.explainers.target.score` takes both). A method that is slow per image may carry a class
        attribute ``at_once``: how many images it is handed at a time, so that progress is seen.
        """
        ...


@runtime_checkable
class Signer(Protocol):
    """Turns images into signatures: vectors of what the network relied on."""

    def sign(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Signatures [N, D] of images [N, 3, H, W] in [0, 1]."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Places vectors in the plane."""

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Points [N, 2] of vectors [N, D]; equal settings and vectors give equal points."""
        ...


@runtime_checkable
class Defence(Protocol):
    """Classifier to classifier: a defence never changes the one it was given."""

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
        """A new classifier, from training images and attacks on them."""
        ...


def silent(done: int, total: int, note: object = "") -> None:
    """A `Progress` that shows nothing."""
    del done, total, note
