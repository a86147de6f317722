"""Random crops, flips and light for training, on a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is varied.

    Attributes:
        crop_scale: Smallest and largest share of the area that is kept.
        crop_ratio: Smallest and largest width over height of the crop.
        flip: Mirror half of the images.
        jitter: Brightness and contrast change by up to this share.
    """

    crop_scale: tuple[float, float] = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: bool = True
    jitter: float = 0.2

    def __post_init__(self) -> None:
        (small, large), (narrow, wide) = self.crop_scale, self.crop_ratio
        if not (0 < small <= large <= 1 and 0 < narrow <= wide < 100 and 0 <= self.jitter < 1):
            raise InvalidInput(
                f"Augmentation: crop_scale = {self.crop_scale} must be two shares in (0, 1], crop_ratio = "
                f"{self.crop_ratio} two positive ratios, smaller first, jitter = {self.jitter} in [0, 1)."
            )


def augmented(
    images: Tensor,
    size: int,
    how: Augmentation,
    rng: np.random.Generator,
    *,
    count: int | None = None,
    share: slice = slice(None),
) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] as [N, 3, size, size], each with its own crop, flip and light.

    Where `images` are only a `share` of a batch of `count`, numbers are drawn for the whole batch: each image is
    changed as it would be with the others beside it.
    """
    n = len(images) if count is None else count
    area = rng.uniform(*how.crop_scale, n)
    ratio = np.exp(rng.uniform(np.log(how.crop_ratio[0]), np.log(how.crop_ratio[1]), n))
    wide, high = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0) if how.flip else np.ones(n)
    theta = np.zeros((n, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 0, 2] = wide * mirror, rng.uniform(-1, 1, n) * (1 - wide)
    theta[:, 1, 1], theta[:, 1, 2] = high, rng.uniform(-1, 1, n) * (1 - high)
    if images.shape[-1] != size or not np.array_equal(theta[:, :, :2], np.broadcast_to(np.eye(2), (n, 2, 2))):
        grid = F.affine_grid(torch.from_numpy(theta).to(images.device), [n, 3, size, size], align_corners=False)
        images = F.grid_sample(images, grid[share], padding_mode="reflection", align_corners=False)
    if how.jitter:
        light = torch.from_numpy(rng.uniform(1 - how.jitter, 1 + how.jitter, (2, n, 1, 1, 1)).astype(np.float32))
        brightness, contrast = light[:, share].to(images.device)
        mean = images.mean((1, 2, 3), keepdim=True)
        images = ((images - mean) * contrast + mean * brightness).clamp(0, 1)
    return images
