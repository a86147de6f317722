"""What detectors learn from and are judged by: images of known history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput, UnknownName
from heatprint.detectors.families import FAMILIES

CLEAN = "clean"  # the name of images nothing was done to
MISTAKEN = "clean, misclassified"  # their kind where the classifier errs all by itself
KNOWN_MISTAKEN = "clean, misclassified in training"  # and it had learned from them


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """8-bit images whose history is known.

    Attributes:
        sources: Id of the clean image each was made from; copies of one image share it and are never split apart.
        pixels: uint8 [N, 3, H, W].
        labels: int64 [N], true class.
        kinds: What was done to each, as finely as it is known, e.g. ``"clean"``, ``"jpeg 75"``, ``"pgd @95"``; each
            counts the same in learning.
        names: The algorithm of each, which an identifier is to say, e.g. ``"pgd"``; one of `FAMILIES`.
        attacked: bool [N], whether that was an attack (that succeeded), not chance.
    """

    sources: tuple[str, ...]
    pixels: Tensor
    labels: Tensor
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    attacked: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.sources)
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4 or self.pixels.shape[1] != 3:
            raise InvalidInput(
                f"Examples: pixels must be uint8 [N, 3, H, W], got {self.pixels.dtype} {list(self.pixels.shape)}. "
                "Detectors see images as they are saved; round floats with core.lattice.to_pixels."
            )
        lengths = [len(self.pixels), len(self.labels), len(self.kinds), len(self.names), len(self.attacked)]
        if lengths != [count] * 5:
            raise InvalidInput(
                f"Examples: {count} sources and {lengths} images, labels, kinds, names and marks do not belong "
                "together; give one of each per image."
            )
        for name in sorted(set(self.names) - set(FAMILIES)):
            raise UnknownName("Examples: the algorithm", name, FAMILIES)

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """These rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return Examples(
            sources=tuple(self.sources[i] for i in index),
            pixels=self.pixels[torch.from_numpy(index)],
            labels=self.labels[torch.from_numpy(index)],
            kinds=tuple(self.kinds[i] for i in index),
            names=tuple(self.names[i] for i in index),
            attacked=np.asarray(self.attacked)[index],
        )
