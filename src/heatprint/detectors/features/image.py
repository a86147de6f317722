"""What the image alone tells: the baseline that asks no network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.detectors.filters import bends, box3, colours, halved, spread3
from heatprint.detectors.look import Look

QUANTILES = (0.02, 0.1, 0.5)  # of the local spread


@dataclass(frozen=True, kw_only=True)
class Image:
    """Single pixels that stick out, noise where the photograph is flat, stripes, blocks, blur; no network is asked."""

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        return (
            "peak", "second", "fourth", "gap", "third gap", "peak to local", "noise low", "noise tenth", "noise half",
            "still", "channel fit rg", "channel fit gb", "colour 0", "colour 1", "colour 2", "colour 3", "light 0",
            "light 1", "light 2", "stripes columns", "stripes rows", "stripe peak", "even blocks", "fine to coarse",
            "colour fine to coarse", "black edge", "pure colours", "jpeg grid",
        )  # fmt: skip

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns]."""
        images = look.images
        size = look.residual.abs().amax(1)
        return torch.cat([_singles(size), _noise(images), _histograms(images), _structure(images), _scales(images)], 1)


def _singles(size: Tensor) -> Tensor:
    top, place = size.flatten(1).topk(5, dim=1)
    around = box3(box3(size[:, None]))
    local = top[:, :1] / (around.flatten(1).gather(1, place[:, :1]) + 2 / 255)
    return torch.cat([top[:, :2], top[:, 3:4], top[:, :1] - top[:, 1:2], top[:, 2:3] - top[:, 3:4], local], 1)


def _noise(images: Tensor) -> Tensor:
    spread = spread3(images).flatten(1)
    some = spread[:, :: max(1, spread.shape[1] // 4096)]
    low = torch.stack([some.kthvalue(max(1, round(part * some.shape[1])), dim=1).values for part in QUANTILES], 1)
    still = (spread < 0.5 / 255).float().mean(1, keepdim=True)
    bent = bends(images).transpose(1, 2).flatten(2)
    bent = bent / bent.square().sum(2, keepdim=True).sqrt().clamp_min(1e-9)
    fit = torch.stack([(bent[:, 0] * bent[:, 1]).sum(1), (bent[:, 1] * bent[:, 2]).sum(1)], 1)
    return torch.cat([low, still, fit], 1)


def _histograms(images: Tensor) -> Tensor:
    colour, light = ((bends(planes) * 255).abs_().round_().flatten(1) for planes in (colours(images), images))
    return torch.stack(
        [(colour == level).sum(1) / colour.shape[1] for level in range(4)]
        + [(light == level).sum(1) / light.shape[1] for level in range(3)],
        1,
    )


def _structure(images: Tensor) -> Tensor:
    """Steps that run along whole columns or rows, as square attacks leave them, and blocks of one change."""
    across = (images[..., 1:] - images[..., :-1]).clamp(-24 / 255, 24 / 255)
    down = (images[..., 1:, :] - images[..., :-1, :]).clamp(-24 / 255, 24 / 255)
    columns, rows = across.mean(2).abs() * 255, down.mean(3).abs() * 255
    top = columns.flatten(1).topk(8, dim=1).values
    steps = (across.abs() * 255).round()
    even = ((steps >= 12) & (steps <= 17)).float().mean((1, 2, 3))
    return torch.stack([columns.mean((1, 2)), rows.mean((1, 2)), top.mean(1), even], 1)


def _scales(images: Tensor) -> Tensor:
    """Fine detail against coarse (blur, rotation), borders left black by a rotation, pure colours, a JPEG grid."""

    def energies(planes: Tensor) -> Tensor:
        fine = bends(planes).abs().flatten(1).mean(1)
        return (fine + 1e-4).log() - (bends(halved(planes)).abs().flatten(1).mean(1) + 1e-4).log()

    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    black = (edge.amax(1) == 0).float().mean(1)
    pure = ((images == 0) | (images == 1)).all(1).float().flatten(1)
    light = images.mean(1)
    jumps = (light[..., 1:] - light[..., :-1]).abs().mean(1)
    at = jumps[:, 7::8].mean(1) / jumps.mean(1).clamp_min(1e-4)
    return torch.stack([energies(images), energies(colours(images)), black, pure.sum(1).log1p(), at], 1)
