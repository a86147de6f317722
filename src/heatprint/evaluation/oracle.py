"""The oracle: what could be told of an attack if the clean image were known. An upper bound, never a detector."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.detectors.features.picture import concentration, cosine, evenness, likeness, place, positive, texture
from heatprint.detectors.features.table import CHUNK
from heatprint.detectors.filters import bends, box3, spread3
from heatprint.detectors.look import Look

LEVELS = (1, 2, 3, 4, 8)  # sizes of change whose share is told
FEW = 8  # largest changes that are told one by one
BLOCK = 8  # side of a block of JPEG
AMOUNT = (
    "changed pixels", "changed values", "largest", "mean", "root mean square", "flatness", "at the largest",
    *(f"at {level}" for level in LEVELS), "levels", "levels entropy",
    *(f"change {rank}" for rank in range(1, FEW + 1)), "one pixel", "three pixels", "top 1 %", "gini", "entropy",
    "kurtosis",
)  # fmt: skip
COLOUR = ("channels equal", "sizes equal", "signs equal", "one channel", "at the limit", "pure colour", "brighter",
          "red like green", "green like blue")  # fmt: skip
AIM = ("signs", "cosine", "sizes", "grey signs", "smooth signs")
SHAPE = ("row", "column", "spread", "elongation", "frame", "roughness", "next pixel", "coarse", "largest block",
         "flat neighbours", "columns", "rows", "block edges", "like the mean")  # fmt: skip
IMAGE = ("like the image", "like its bends", "like its details", "like its step across", "like its step down",
         "on its edges", "unlike its edges")  # fmt: skip
DIFFERENCES: tuple[str, ...] = (
    *AMOUNT, *COLOUR, *(f"{name}, {where} slope" for where in ("clean", "given") for name in AIM), *SHAPE, *IMAGE,
)  # fmt: skip
"""Columns of `true_difference`."""


def true_difference(
    classifier: Classifier, clean: Tensor, pixels: Tensor, *, progress: Progress = silent
) -> np.ndarray:
    """What was done to each image, measured on the difference from its clean source, float32 [N, columns].

    Columns (`DIFFERENCES`): how much was changed and how evenly (single pixels, one size everywhere, sizes that fall
    off), how the channels go together, whether the change follows the slope of the margin at the clean image and at the
    given one (positive where it lowers the margin of the clean image's class, or raises the given one's), its shape
    (rough, smooth, stripes, squares, blocks of JPEG), and whether it is a function of the clean image, as blur, shifts
    and rotations are. An image that was not changed has zeros, or the values of an even map.

    Args:
        classifier: The victim; two forward and two backward passes per image.
        clean: Sources, uint8 [N, 3, H, W], 16 pixels or more on a side.
        pixels: The images in question, uint8 of the same shape, in the same order.
        progress: Told how far it is.

    Raises:
        InvalidInput: The two are not 8-bit images of one shape.
    """
    if clean.shape != pixels.shape or clean.dtype != torch.uint8 or pixels.dtype != torch.uint8 or clean.ndim != 4:
        raise InvalidInput(
            f"true_difference: clean is {clean.dtype} {list(clean.shape)} and pixels {pixels.dtype} "
            f"{list(pixels.shape)}; give 8-bit images uint8 [N, 3, H, W], each beside its own source."
        )
    parts = [np.empty((0, len(DIFFERENCES)), np.float32)]
    for sources, some in zip(torch.split(clean, CHUNK), torch.split(pixels, CHUNK), strict=True):
        if len(some):
            parts.append(_columns(Look(classifier, sources), Look(classifier, some)).float().cpu().numpy())
            progress(sum(map(len, parts)), len(pixels))
    return np.concatenate(parts)


def _columns(clean: Look, given: Look) -> Tensor:
    change = given.pixels.float() - clean.pixels.float()  # in levels
    return torch.cat([
        _amount(change), _colour(change, given.pixels), _aim(change, -clean.slopes[:, 0]),
        _aim(change, given.slopes[:, 0]), _shape(change), _image(change, to_images(clean.pixels)),
    ], 1)  # fmt: skip


def _amount(change: Tensor) -> Tensor:
    size = change.abs()
    by_pixel = size.amax(1).flatten(1)
    pixels, values = (by_pixel > 0).sum(1), (size > 0).sum((1, 2, 3))
    some = values.clamp_min(1)
    largest = by_pixel.amax(1)
    square = size.square().sum((1, 2, 3))
    steps = size.flatten(1).long()
    counts = torch.zeros(len(size), 256, device=size.device).scatter_add_(1, steps, torch.ones_like(steps).float())
    told = counts[:, 1:] / some[:, None]
    energy = size.square().sum(1).flatten(1).sort(1, descending=True).values / square.clamp_min(1)[:, None]
    return torch.cat([
        torch.stack([
            pixels.float().log1p(), values.float().log1p(), largest, size.mean((1, 2, 3)),
            size.square().mean((1, 2, 3)).sqrt(), (square / some).sqrt() / largest.clamp_min(1),
            (size == largest.clamp_min(1).view(-1, 1, 1, 1)).sum((1, 2, 3)) / some,
            *(told[:, level - 1] for level in LEVELS), (told > 0).sum(1).float().log1p(), evenness(told.double()),
        ], 1),
        by_pixel.topk(FEW, dim=1).values, energy[:, :1], energy[:, :3].sum(1, keepdim=True),
        concentration(change, (0.01,)),
    ], 1)  # fmt: skip


def _colour(change: Tensor, pixels: Tensor) -> Tensor:
    size = change.abs()
    moved = (size > 0).any(1)
    count = moved.sum((1, 2)).clamp_min(1)
    limit = (pixels == 0) | (pixels == 255)
    values = (size > 0).sum((1, 2, 3)).clamp_min(1)

    def part(which: Tensor) -> Tensor:
        return (which & moved).sum((1, 2)) / count

    return torch.stack([
        part((change == change[:, :1]).all(1)), part((size == size[:, :1]).all(1)),
        part((change.sign() == change[:, :1].sign()).all(1)), part((size > 0).sum(1) == 1),
        (limit & (size > 0)).sum((1, 2, 3)) / values, part(limit.all(1)), positive(change),
        likeness(change[:, 0], change[:, 1]), likeness(change[:, 1], change[:, 2]),
    ], 1)  # fmt: skip


def _aim(change: Tensor, wanted: Tensor) -> Tensor:
    """Whether the change goes where the slope points, [N, 5]."""
    moved = (change != 0).sum((1, 2, 3)).clamp_min(1)
    grey = wanted.mean(1, keepdim=True)

    def agreement(pattern: Tensor) -> Tensor:
        return (change.sign() * pattern.sign()).sum((1, 2, 3)) / moved

    return torch.stack([
        agreement(wanted), cosine(change, wanted), likeness(change.abs(), wanted.abs()), agreement(grey),
        agreement(box3(grey)),
    ], 1)  # fmt: skip


def _shape(change: Tensor) -> Tensor:
    height, width = change.shape[2:]
    light = change.sum(1)
    across, down = change[..., 1:] - change[..., :-1], change[..., 1:, :] - change[..., :-1, :]
    size = change.abs().mean((1, 2, 3)).clamp_min(1e-6)
    moved = change[..., 1:] != 0
    flat = ((across == 0) & moved).sum((1, 2, 3)) / moved.sum((1, 2, 3)).clamp_min(1)
    jumps = torch.cat([across.abs().mean((1, 2)), down.abs().mean((1, 3))], 1)
    borders = [torch.arange(side - 1, device=change.device) % BLOCK == BLOCK - 1 for side in (width, height)]
    at = jumps[:, torch.cat(borders)].mean(1) / jumps.mean(1).clamp_min(1e-6)
    return torch.cat([place(change.abs().amax(1)), texture(light), torch.stack([
        flat, change.mean(2).abs().mean((1, 2)) / size, change.mean(3).abs().mean((1, 2)) / size, at,
        likeness(change, box3(change)),
    ], 1)], 1)  # fmt: skip


def _image(change: Tensor, clean: Tensor) -> Tensor:
    """Whether the change is a function of the clean image, [N, 7]."""
    inside, edges = change[..., 1:-1, 1:-1], spread3(clean)
    size = change.abs()
    flat = 1 / (edges + 1 / 255)
    return torch.stack([
        likeness(change, clean), likeness(inside, bends(clean).sum(1)), likeness(change, clean - box3(clean)),
        likeness(inside, clean[..., 1:-1, 2:] - clean[..., 1:-1, :-2]),
        likeness(inside, clean[..., 2:, 1:-1] - clean[..., :-2, 1:-1]), likeness(size, edges), likeness(size, flat),
    ], 1)  # fmt: skip
