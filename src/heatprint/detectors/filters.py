"""Small image filters the features are made of, for many images at once."""

from __future__ import annotations

import torch
from torch import Tensor

# Exchanges that leave the median of nine values in place 4 (Paeth 1990, "Median finding on a 3x3 grid"; the network is
# the well-known one of 19 exchanges)
EXCHANGES = (
    (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3),
    (5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2),
)  # fmt: skip


def median3(pixels: Tensor) -> Tensor:
    """Median over 3 x 3, channel by channel, edges repeated: uint8 [N, C, H, W] to the same."""
    height, width = pixels.shape[2:]
    padded = repeated(pixels)
    seen = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    for a, b in EXCHANGES:
        seen[a], seen[b] = torch.minimum(seen[a], seen[b]), torch.maximum(seen[a], seen[b])
    return seen[4]


def bends(images: Tensor) -> Tensor:
    """Second differences along rows and along columns, [N, C, H, W] to [N, 2, C, H - 2, W - 2]."""
    twice = 2 * images[..., 1:-1, 1:-1]
    along = images[..., 1:-1, 2:] + images[..., 1:-1, :-2]
    down = images[..., 2:, 1:-1] + images[..., :-2, 1:-1]
    return torch.stack([along.sub_(twice), down.sub_(twice)], 1)


def colours(images: Tensor) -> Tensor:
    """Differences of the colour channels, R - G and G - B, [N, 2, H, W]: in photographs far smoother than light."""
    return images[:, :2] - images[:, 1:]


def box3(images: Tensor) -> Tensor:
    """Mean over 3 x 3, edges repeated, [N, C, H, W]; sums of shifted images, much faster than pooling on a CPU."""
    wide = repeated(images)
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]).div_(9)


def halved(images: Tensor) -> Tensor:
    """Means of blocks of 2 x 2, [N, C, H // 2, W // 2]; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in images.shape[2:])
    rows = images[..., 0:height:2, :width] + images[..., 1:height:2, :width]
    return (rows[..., ::2] + rows[..., 1::2]).div_(4)


def spread3(images: Tensor) -> Tensor:
    """Standard deviation over 3 x 3, edges repeated, [N, C, H, W]."""
    return (box3(images.square()) - box3(images).square()).clamp_min_(0).sqrt_()


def repeated(images: Tensor) -> Tensor:
    """Images padded by one pixel, edges repeated; of any type."""
    wide = torch.cat([images[..., :1], images, images[..., -1:]], dim=-1)
    return torch.cat([wide[..., :1, :], wide, wide[..., -1:, :]], dim=-2)
