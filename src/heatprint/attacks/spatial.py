"""Rotations and shifts: a worst case without a pixel changed on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

BLOCK = 16  # transformations tried on an image before it is looked whether one was enough; a constant, so that an
# image's count of queries does not depend on the others


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Tries every rotation with every shift of a grid (Engstrom et al. 2019, the grid search).

    Transformations are tried from the mildest to the strongest (by the sum of squares of angle and shifts, each as a
    share of its largest), 16 at a time; the first that reaches the goal is returned, rounded to 8 bits, which is how it
    was tried. An image that stands is returned at the transformation with the largest margin (the identity aside). The
    step is the place of the transformation in that order; 0 is the identity, the image itself.

    Images are sampled bilinearly. Deviation from the paper, which pads with black: what enters from outside is the
    image reflected at its border, so that no black frame gives the attack away or causes the error by itself.

    No radius bounds this attack: the norm of its taxonomy, ``"linf"``, only fills the column, and distances between the
    pixels of a rotated image and its original say little.

    Attributes:
        angles: Angles tried, odd so that 0 is one of them, >= 1.
        shifts: Shifts tried in each of the two directions, odd, >= 1.
        degrees: Largest rotation to either side, in (0, 180].
        share: Largest shift to either side, as a share of the image's side, in (0, 1).

    The trace has ``angle`` (degrees, counter-clockwise), ``down`` and ``right`` (pixels) of the returned image.
    """

    angles: int = 31
    shifts: int = 5
    degrees: float = 30.0
    share: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("angles", self.angles), ("shifts", self.shifts)):
            if value < 1 or value % 2 == 0:
                raise InvalidInput(
                    f"Spatial: {name} = {value} must be odd and 1 or more, so that the grid has the unchanged image. "
                    f"Write {max(value, 0) + 1}."
                )
        if not (0 < self.degrees <= 180 and 0 < self.share < 1):
            raise InvalidInput(
                f"Spatial: degrees = {self.degrees} must be above 0 and at most 180, share = {self.share} of the side "
                "between 0 and 1. For rotations alone write shifts=1, for shifts alone angles=1."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """Scores, many trials."""
        return Taxonomy(
            knowledge="score",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="linf",
            paper="Engstrom, Tran, Tsipras, Schmidt, Madry 2019, arXiv:1712.02779",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        grid = self.grid()
        out, step = images.clone(), torch.full((len(images),), -1)
        chosen = torch.zeros(len(images), dtype=torch.long)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            chosen[rows], step[rows] = _search(access, images[rows], rows, goal.take(rows), grid)
            out[rows] = moved(images[rows].to(access.device), grid[chosen[rows]]).cpu()
            progress(int(rows[-1]) + 1, len(images))
        height, width = images.shape[2:]
        angle, down, right = grid[chosen].unbind(1)
        return Perturbed(images=out, step=step, trace={"angle": angle, "down": down * height, "right": right * width})

    def grid(self) -> Tensor:
        """Transformations [T, 3] from mildest to strongest: degrees, shifts down and right in shares of the side."""
        turn = np.linspace(-1, 1, self.angles) if self.angles > 1 else np.zeros(1)
        slide = np.linspace(-1, 1, self.shifts) if self.shifts > 1 else np.zeros(1)
        unit = np.stack(np.meshgrid(turn, slide, slide, indexing="ij"), -1).reshape(-1, 3)
        unit = unit[np.argsort((unit**2).sum(1).round(9), kind="stable")]  # rounded: ties stay in grid order
        return torch.from_numpy((unit * [self.degrees, self.share, self.share]).astype(np.float32))


def moved(images: Tensor, transformations: Tensor) -> Tensor:
    """Images [M, 3, H, W] each turned counter-clockwise about the centre, then shifted, in 8 bits.

    Args:
        images: Square images in [0, 1].
        transformations: [M, 3]: degrees, and shifts down and right in shares of the side.
    """
    angle, down, right = transformations.to(images).unbind(1)
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    x, y = 2 * right, 2 * down  # the sampling grid runs from -1 to 1
    back = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], 1).view(-1, 2, 3)
    places = F.affine_grid(back, list(images.shape), align_corners=False)
    sampled = F.grid_sample(images, places, mode="bilinear", padding_mode="reflection", align_corners=False)
    still = (transformations == 0).all(1).to(images.device)
    return torch.where(still.view(-1, 1, 1, 1), images, to_images(to_pixels(sampled)))


def _search(access: Access, images: Tensor, rows: Tensor, goal: Goal, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The transformation of each image, int64 [M]: the first to reach the goal or the best; and its place or -1."""
    chosen, fell = torch.zeros(len(rows), dtype=torch.long), torch.full((len(rows),), -1)
    best = torch.full((len(rows),), -torch.inf)
    for first in range(0, len(grid), BLOCK):
        open_ = ((fell < 0) & ~access.spent(rows)).nonzero().squeeze(1)
        if not len(open_):
            break
        block = torch.arange(first, min(first + BLOCK, len(grid)))
        image, place = open_.repeat_interleave(len(block)), block.repeat(len(open_))
        parts = []
        for part in torch.split(torch.arange(len(image)), access.batch):
            tried = moved(images[image[part]].to(access.device), grid[place[part]])
            parts.append(access.logits(tried, rows[image[part]]).cpu())
        logits, aim = torch.cat(parts), goal.take(image)
        won = aim.reached(logits).view(-1, len(block))
        margin = aim.margin(logits).view(-1, len(block)).float()
        margin[:, block == 0] = -torch.inf  # the image itself is no attempt
        top, which = margin.max(1)
        better = top > best[open_]
        chosen[open_[better]], best[open_[better]] = block[which[better]], top[better]
        hit = won.any(1)
        fell[open_[hit]] = block[won[hit].int().argmax(1)]
        chosen[open_[hit]] = fell[open_[hit]]
    return chosen, fell
