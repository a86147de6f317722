"""The heat map as a key: the image's residual times the slope of the margin, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.detectors.filters import bends, box3, halved, spread3
from heatprint.detectors.look import Look

FLAT = 2 / 255  # spread over 3 x 3 below which a place is flat
EVEN = 0.05  # logits added to the margin, so that an image on the border does not divide by zero


@dataclass(frozen=True, kw_only=True)
class Key:
    """How well the residual fits the slope: in single pixels, in flat regions and all over the image.

    With r the image minus its 3 x 3 median and g the slope of the margin, q = sum over channels of r g is what a
    pixel's deviation from its neighbours adds to the margin, to first order. An attack on few pixels puts its whole
    success into the peak of q; one on many pixels gives r the sign of g wherever the photograph itself is flat. The
    whitened fit is the sum of r g / s^2 over its own root mean square, s the local spread: a matched filter in noise
    that is known only locally.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        peaks = ("peak", "second peak", "fourth peak", "peak share", "peak prominence", "peak residual", "lead",
                 "three peaks")  # fmt: skip
        fits = ("agreement", "flat agreement", "whitened", "whitened light", "whitened colour", "whitened coarse",
                "whitened coarse light", "curved", "carried")  # fmt: skip
        return (*peaks, *fits)

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns]; of several rivals the largest value counts."""
        found = [
            torch.cat([_peaks(look, look.slopes[:, k], look.margins[:, k]),
                       _fits(look, look.slopes[:, k], look.margins[:, k])], 1)
            for k in range(look.rivals)
        ]  # fmt: skip
        return torch.stack(found).amax(0)


def _peaks(look: Look, slope: Tensor, margin: Tensor) -> Tensor:
    carried = (look.residual * slope).sum(1)
    size = look.residual.abs().amax(1)
    around = box3(box3(size[:, None]))[:, 0]
    prominence = size / (around + 2 / 255)
    peaked = (carried.clamp_min(0) * prominence).flatten(1)
    top, place = peaked.topk(5, dim=1)
    even = margin[:, None] + EVEN

    def at(values: Tensor) -> Tensor:
        return values.flatten(1).gather(1, place[:, :1])

    first_three = carried.flatten(1).gather(1, place[:, :3]).sum(1, keepdim=True)
    return torch.cat([
        (top[:, :1] / even).log1p(), (top[:, 1:2] / even).log1p(), (top[:, 3:4] / even).log1p(),
        top[:, :1] / peaked.sum(1, keepdim=True).clamp_min(1e-6), at(prominence), at(size), at(carried) / even,
        first_three / even,
    ], 1)  # fmt: skip


def _fits(look: Look, slope: Tensor, margin: Tensor) -> Tensor:
    residual, product = look.residual, look.residual * slope
    flat = (spread3(look.images) < FLAT).float()
    moved = (residual != 0).float()
    agree = product.sign()
    colour = residual - residual.mean(1, keepdim=True)
    return torch.stack([
        _ratio(agree, moved), _ratio(agree * flat, moved * flat),
        _whitened(residual, slope), _whitened(residual.mean(1, keepdim=True), slope.mean(1, keepdim=True)),
        _whitened(colour, slope - slope.mean(1, keepdim=True)),
        _whitened(*_coarse(look.images, slope)), _whitened(*_coarse(look.images.mean(1, keepdim=True),
                                                                   slope.mean(1, keepdim=True))),
        _fourth(bends(look.images), bends(slope)), product.sum((1, 2, 3)) / (margin + EVEN),
    ], 1)  # fmt: skip


def _coarse(images: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Means over 2 x 2 minus what lies around them, and the slope of the same."""
    half = halved(images)
    return half - box3(half), halved(slope)


def _whitened(residual: Tensor, slope: Tensor) -> Tensor:
    """The matched filter in standard deviations of itself, [N]: near a standard normal where nothing fits."""
    places = spread3(residual).square() + (1 / 255) ** 2
    fit = (residual * slope.sign() / places).flatten(1)
    return fit.sum(1) / fit.square().sum(1).sqrt().clamp_min(1e-9)


def _fourth(bent: Tensor, slope: Tensor) -> Tensor:
    """Excess kurtosis of bent image times bent slope, log, [N]: few places carry it, or many."""
    product = (bent * slope).flatten(1)
    product = product - product.mean(1, keepdim=True)
    square = product.square().mean(1)
    return (product.pow(4).mean(1) / square.square().clamp_min(1e-30)).log1p()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.sum((1, 2, 3)) / whole.sum((1, 2, 3)).clamp_min(1)
