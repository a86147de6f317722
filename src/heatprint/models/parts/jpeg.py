"""A JPEG file in between, computed on the tensor's own device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput

BLOCK = 8
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8),) * 4,
)  # fmt: skip
"""Steps at quality 50 (ITU-T T.81, annex K.1)."""
COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class Jpeg(nn.Module):
    """What is left of images after a JPEG file: colours halved in size, cosines rounded to the steps of a quality.

    The file's own rounding of pixels is left out. Rounding has no gradient, so neither has this.

    Args:
        quality: 1 to 100, as in libjpeg.
    """

    forward_colours: Tensor
    cosines: Tensor
    steps: Tensor

    def __init__(self, quality: float = 75) -> None:
        super().__init__()
        if not 1 <= quality <= 100 or quality != int(quality):
            raise InvalidInput(f"jpeg: quality = {quality} must be a whole number, 1 to 100.")
        self.register_buffer("forward_colours", torch.tensor(COLOURS), persistent=False)
        self.register_buffer("cosines", cosines(), persistent=False)
        self.register_buffer("steps", torch.stack([steps(LUMA, int(quality)), steps(CHROMA, int(quality))]),
                             persistent=False)  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the same."""
        planes = torch.einsum("kc,nchw->nkhw", self.forward_colours, images * 255)
        height, width = images.shape[2:]
        light = self._rounded(planes[:, :1] - 128, self.steps[0]) + 128
        small = F.avg_pool2d(F.pad(planes[:, 1:], (0, width % 2, 0, height % 2), mode="replicate"), 2)
        colour = F.interpolate(self._rounded(small, self.steps[1]), scale_factor=2, mode="bilinear")[
            ..., :height, :width
        ]
        back = torch.einsum("kc,nchw->nkhw", torch.linalg.inv(self.forward_colours), torch.cat([light, colour], 1))
        return (back / 255).clamp(0, 1)

    def _rounded(self, planes: Tensor, steps: Tensor) -> Tensor:
        """Planes [N, C, H, W] with their cosines in blocks of 8 x 8 rounded to multiples of the steps."""
        count, channels, height, width = planes.shape
        wide = F.pad(planes, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate").flatten(0, 1)[:, None]
        found = F.conv2d(wide, self.cosines, stride=BLOCK)
        kept = (found / steps.view(1, -1, 1, 1)).round() * steps.view(1, -1, 1, 1)
        out = F.conv_transpose2d(kept, self.cosines, stride=BLOCK)[:, 0, :height, :width]
        return out.reshape(count, channels, height, width)


def cosines() -> Tensor:
    """The 64 patterns of the orthonormal cosine transform, float32 [64, 1, 8, 8]."""
    place = torch.arange(BLOCK)
    one = torch.cos((2 * place[None] + 1) * place[:, None] * math.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    one[0] /= math.sqrt(2)
    return torch.einsum("ai,bj->abij", one, one).reshape(BLOCK**2, 1, BLOCK, BLOCK)


def steps(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Steps of a quality as libjpeg scales them, float32 [64]."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table, dtype=torch.float32) * scale + 50) / 100).floor().clamp(1, 255).flatten()
