"""The values that flow between the rooms: frozen, keyword-only, checked once when made.

Shapes: N images, H = W the image size, K classes. `pixels` are uint8, `images` float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.core.display import Displayed
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.norms import Distances, Norm
from heatprint.core.scratch import room

PRINT = 16  # bytes of an image's digest
PIECE = 1024  # images that are copied at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch(Displayed):
    """Labelled 8-bit images with stable names.

    Attributes:
        ids: Unique names (relative path or data set key); attacked copies keep the id of their source, so
            they can never be split away from it.
        pixels: uint8 [N, 3, H, W].
        labels: int64 [N], the true class.
    """

    ids: tuple[str, ...]
    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        shape, n = tuple(self.pixels.shape), len(self.ids)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise InvalidInput(
                f"Batch: pixels must be uint8 [N, 3, H, W], got {self.pixels.dtype} {list(shape)}. "
                "For floats in [0, 1] write Batch.from_images(ids=..., images=..., labels=...)."
            )
        if shape[0] != n or tuple(self.labels.shape) != (n,):
            raise InvalidInput(
                f"Batch: {n} ids, {shape[0]} images and labels of shape {list(self.labels.shape)} "
                "do not belong together; give one id and one label per image."
            )
        if len(set(self.ids)) != n:
            raise InvalidInput("Batch: ids must be unique, since results are joined by them.")

    @classmethod
    def from_images(cls, *, ids: Sequence[str], images: Tensor, labels: Tensor) -> Batch:
        """A batch from floats in [0, 1], rounded to the nearest of 256 levels.

        Raises:
            InvalidInput: Values lie outside [0, 1]: normalisation belongs inside the classifier.
        """
        low, high = images.min().item(), images.max().item()
        if low < -1e-6 or high > 1 + 1e-6:
            raise InvalidInput(
                f"Batch: images must be in [0, 1], got [{low:.3g}, {high:.3g}]. Divide 0..255 pixels by 255; "
                "leave mean and std to models.wrap(..., mean=..., std=...)."
            )
        return cls(ids=tuple(ids), pixels=to_pixels(images), labels=labels)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def images(self) -> Tensor:
        """float32 [N, 3, H, W] in [0, 1], exactly on the k/255 lattice; a new tensor at each call."""
        return to_images(self.pixels)

    def take(self, rows: Sequence[int] | Tensor) -> Batch:
        """The images in these rows, in this order; the batch itself where that is all of it."""
        index = torch.as_tensor(rows, dtype=torch.long)
        if len(index) == len(self) and torch.equal(index, torch.arange(len(self))):
            return self
        taken = Batch(
            ids=tuple(self.ids[i] for i in index.tolist()),
            pixels=_gathered(self.pixels, index),
            labels=self.labels[index],
        )
        return taken.printed(self.prints[index.numpy()]) if "prints" in self.__dict__ else taken

    @cached_property
    def prints(self) -> np.ndarray:
        """What each image is: a digest of its pixels, uint8 [N, 16]."""
        found = np.empty((len(self), PRINT), np.uint8)
        for row, image in enumerate(self.pixels.numpy()):
            content = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=PRINT).digest()
            found[row] = np.frombuffer(content, np.uint8)
        return found

    def printed(self, prints: np.ndarray) -> Batch:
        """The same images, whose `prints` are known already: a million of them need not be read for their names."""
        known = Batch(ids=self.ids, pixels=self.pixels, labels=self.labels)
        known.__dict__["prints"] = prints
        return known

    @property
    def identity(self) -> tuple[object, ...]:
        """Everything that a result computed from these images depends on, for a `heatprint.core.digest.digest`."""
        return self.ids, tuple(self.pixels.shape[1:]), self.prints, self.labels

    def identity_of(self, rows: Tensor) -> tuple[object, ...]:
        """The `identity` of ``take(rows)``, without reading a pixel where the prints are known."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        return ids, tuple(self.pixels.shape[1:]), self.prints[rows.numpy()], self.labels[rows]

    def with_pixels(self, pixels: Tensor) -> Batch:
        """The same ids and labels with other pixels."""
        return Batch(ids=self.ids, pixels=pixels, labels=self.labels)


def join(batches: Sequence[Batch]) -> Batch:
    """Several batches of one image size as one."""
    return Batch(
        ids=tuple(i for b in batches for i in b.ids),
        pixels=stacked([b.pixels for b in batches]),
        labels=torch.cat([b.labels for b in batches]),
    )


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Pixels of several batches below each other, on disk where they are many; see `heatprint.core.scratch.room`."""
    whole = torch.from_numpy(room((sum(map(len, parts)), *parts[0].shape[1:]), np.uint8))
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _gathered(pixels: Tensor, index: Tensor) -> Tensor:
    """The pixels of these rows, a piece at a time."""
    whole = torch.from_numpy(room((len(index), *pixels.shape[1:]), np.uint8))
    for start in range(0, len(index), PIECE):
        rows = index[start : start + PIECE]
        whole[start : start + len(rows)] = pixels[rows]
    return whole


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Where an attack stands (Yuan et al. 2019, sections III A to C; Klawikowska et al. 2020, section 2.1).

    Attributes:
        knowledge: What the attacker sees: gradients, scores, or only the label.
        specificity: Whether a target class can be asked for.
        frequency: One trial, or many.
        norm: The norm its budget is counted in.
        paper: Where it was published.
        scope: What a perturbation is made for: one image, or a whole batch that shares it.
    """

    knowledge: Literal["white box", "score", "label", "none"]
    specificity: Literal["untargeted", "targeted or untargeted"]
    frequency: Literal["one-time", "iterative"]
    norm: Norm
    paper: str
    scope: Literal["image", "batch"] = "image"


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbed:
    """What an attack hands to its door: images, and what only the attack knows.

    Attributes:
        images: float32 [N, 3, H, W]; the door rounds them to 8 bits and judges.
        step: int64 [N], the step (gain index, generation) of the first success the attack saw, -1 for none.
        trace: Per-image extras by name, each [N, ...]; stored, never interpreted by the door.
    """

    images: Tensor
    step: Tensor
    trace: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked(Displayed):
    """An attack's result, judged by the door after rounding to 8 bits and a PNG round trip.

    Attributes:
        clean: The originals.
        adversarial: The attacked copies, same ids and labels; failed attempts are kept.
        success: bool [N], the goal is reached by the stored 8-bit image.
        skipped: bool [N], already misclassified before the attack: returned unchanged, counted apart.
        step: int64 [N], step of the first success, -1 for none.
        distance: L0, L1, L2, Linf of the stored image.
        forwards: int64 [N], forward queries spent on each image by the attack.
        backwards: int64 [N], gradient queries likewise.
        first_hit: int64 [N], the number of the forward query that first reached the goal, -1 for none: the curve of
            success against queries. Before rounding, so a failure may have one; and a success may have none whose
            final image the attack never asked about.
        clean_logits: float32 [N, K].
        logits: float32 [N, K], of the attacked copies.
        trace: Extras of the attack.
    """

    clean: Batch
    adversarial: Batch
    success: Tensor
    skipped: Tensor
    step: Tensor
    distance: Distances
    forwards: Tensor
    backwards: Tensor
    first_hit: Tensor
    clean_logits: Tensor
    logits: Tensor
    trace: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def attempted(self) -> int:
        """Images the attack worked on: those classified correctly before it."""
        return int((~self.skipped).sum())


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """How one operation of the network shares its relevance; a list of these is the rule plan."""

    layer: str
    operator: str
    rule: str
    epsilon: float | None = None
    bias: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained(Displayed):
    """Relevance of the network's own (normalised) input.

    Attributes:
        ids: Image ids.
        relevance: float [N, 3, H, W].
        target: int64 [N], the class explained.
        against: int64 [N], the class whose logit was subtracted, where a contrast was asked for; else None.
        score: float [N], the logit explained, or the difference of two: what the relevance starts from.
        plan: The rule of every operation, in the order of the forward pass.
        totals: Layer name to the sum of relevance at its output, float [N]; ``"start"`` is the score and
            ``"input"`` the sum at the input.
        passed: Layer name to the sum of relevance it handed on to its inputs, float [N]; beside `totals` this says
            which layer kept or made relevance.
        facts: What a method can say of its own answer, float [N] each: ``"completeness"`` of integrated gradients,
            ``"r2"`` of LIME, ``"precision"`` and ``"coverage"`` of Anchors.
    """

    ids: tuple[str, ...]
    relevance: Tensor
    target: Tensor
    score: Tensor
    against: Tensor | None = None
    plan: tuple[PlanLine, ...] = ()
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    passed: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def heat(self) -> Tensor:
        """One value per pixel, [N, H, W]: the sum over channels, so that relevance is kept."""
        return self.relevance.sum(1)
