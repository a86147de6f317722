"""The verbs a method of each room must have. A method is a frozen dataclass: its fields are its settings."""

from __future__ import annotations

from collections.abc import Mapping
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

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units, with a few words such as "37 successes"."""
        ...


class Access(Protocol):
    """What an attack may ask of the classifier; every question is counted per image.

    Attributes:
        batch: Images per question that suit the device.
        device: Where images should be when they are asked about.
    """

    batch: int
    device: torch.device

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, K] of images [M, 3, H, W]; `rows` [M] says which attacked image each belongs to."""
        ...

    def gradient(self, images: Tensor, rows: Tensor, loss: str) -> tuple[Tensor, Tensor]:
        """Gradient [M, 3, H, W] of the goal's loss ("margin" or "cross_entropy"), and the logits [M, K]."""
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
        """Relevance of normalised inputs [N, 3, H, W] for classes [N], and at the named layers' outputs."""
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


def silent(done: int, total: int, note: str = "") -> None:
    """A `Progress` that shows nothing."""
    del done, total, note
