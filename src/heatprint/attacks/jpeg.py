"""JPEG compression: the control that shows what an everyday loss of quality does."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class JPEG:
    """The image saved as JPEG and read again, with Pillow's default (4:2:0) colour subsampling; not an attack.

    No radius bounds it: the norm of its taxonomy only fills the column. The step of the result is always -1: nothing
    was asked.

    Attributes:
        quality: Pillow's quality, 1 (worst) to 100.
    """

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise InvalidInput(f"JPEG: quality = {self.quality} must be from 1 (worst) to 100. Write e.g. 75.")

    @property
    def taxonomy(self) -> Taxonomy:
        """Knows nothing and asks nothing."""
        return Taxonomy(knowledge="none", specificity="untargeted", frequency="one-time", norm="linf", paper="control")

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del access, goal, streams
        with ThreadPoolExecutor() as pool:  # Pillow works without the interpreter lock
            pixels = torch.stack(list(pool.map(self._saved, to_pixels(images))))
        progress(len(images), len(images))
        return Perturbed(images=to_images(pixels), step=torch.full((len(images),), -1))

    def _saved(self, pixels: Tensor) -> Tensor:
        """One image, uint8 [3, H, W], after the file."""
        sink = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(
            sink, format="JPEG", quality=self.quality
        )
        with Image.open(sink, formats=["JPEG"]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
