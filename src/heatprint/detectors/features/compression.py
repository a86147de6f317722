"""What JPEG left in an image: which quality it was saved at, on which grid, and whether anything came after."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from heatprint.detectors.look import Look
from heatprint.models.parts.jpeg import BLOCK, COLOURS, LUMA, cosines
from heatprint.models.parts.jpeg import steps as steps_of

QUALITIES = (95, 90, 85, 75, 60, 40)
STILL = 0.75  # in grey levels: a coefficient below it was rounded to zero and moved only by rounding the pixels


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The luminance in blocks of 8 x 8 after a cosine transform, against the steps of JPEG at several qualities.

    A JPEG file holds multiples of its steps; whatever is done later moves them. Columns: how well the coefficients
    that are not zero lie on the steps of each quality (mean cosine, 1 on them, near 0 elsewhere), the share that is
    still zero in low, middle and high frequencies, and the same on all 64 grids an image may have been shifted to.

    It tells whether a file was compressed before or after something happened to it, so an identifier that must tell a
    harmless re-save from none gains by it. A detector of attacks must not have it: it would learn that attacked images
    come in lossless files, which is no property of attacks.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        on = tuple(f"on steps of {quality}" for quality in QUALITIES)
        return (*on, "still low", "still middle", "still high", "best grid", "usual grid", "on first grid")

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns]."""
        weights = look.images.new_tensor(COLOURS[0]).view(1, 3, 1, 1)
        luma = (look.images * 255 * weights).sum(1, keepdim=True) - 128
        basis = cosines().to(luma)
        found = functional.conv2d(luma, basis, stride=BLOCK)
        return torch.cat([_on_steps(found), _still(found), _grids(luma, basis)], 1)


def _on_steps(found: Tensor) -> Tensor:
    columns = []
    for quality in QUALITIES:
        steps = steps_of(LUMA, quality).to(found).view(1, -1, 1, 1)
        counted = (found.abs() > steps / 2) & (steps > 2)  # a finer step than the rounding of pixels shows nothing
        counted[:, 0] = False
        fit = torch.cos(2 * math.pi * found / steps) * counted
        columns.append(fit.sum((1, 2, 3)) / counted.sum((1, 2, 3)).clamp_min(1))
    return torch.stack(columns, 1)


def _still(found: Tensor) -> Tensor:
    place = torch.arange(BLOCK, device=found.device)
    order = (place[:, None] + place[None]).flatten()
    bands = (order >= 1) & (order <= 3), (order >= 4) & (order <= 7), order >= 8
    still = (found.abs() < STILL).float().mean((2, 3))
    return torch.stack([still[:, band].mean(1) for band in bands], 1)


def _grids(luma: Tensor, basis: Tensor) -> Tensor:
    """Share of still high frequencies on the best of all 64 grids, on a usual one, and on the first, [N, 3]."""
    high = [a * BLOCK + b for a, b in ((7, 7), (7, 6), (6, 7), (7, 4), (4, 7), (5, 6))]
    still = (functional.conv2d(luma, basis[high]).abs() < STILL).float().mean(1)
    height, width = ((side - 1) // BLOCK * BLOCK for side in still.shape[1:])
    if not height or not width:
        return luma.new_zeros(len(luma), 3)
    cut = still[:, :height, :width].reshape(len(still), height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    grids = cut.mean((1, 3)).flatten(1)
    return torch.stack([grids.amax(1), grids.median(1).values, grids[:, 0]], 1)
