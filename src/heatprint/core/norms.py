"""Distances between images, and projections onto balls around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import LEVELS

Norm = Literal["l0", "l1", "l2", "linf"]


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How far adversarial images lie from their originals; every tensor is [N].

    Attributes:
        l0: Changed pixels (a pixel counts once, whatever number of its channels moved), int64.
        l1: Sum of absolute changes, pixel values in [0, 1].
        l2: Euclidean length of the change, pixel values in [0, 1].
        linf: Largest change of one channel, in levels of 1/255, int64.
    """

    l0: Tensor
    l1: Tensor
    l2: Tensor
    linf: Tensor


def distances(original: Tensor, changed: Tensor) -> Distances:
    """Distances between two batches of 8-bit images, uint8 [N, 3, H, W] each."""
    delta = changed.to(torch.int32) - original.to(torch.int32)
    size = delta.abs()
    return Distances(
        l0=(size.amax(1) > 0).flatten(1).sum(1),
        l1=size.flatten(1).sum(1).double() / LEVELS,
        l2=size.double().square().flatten(1).sum(1).sqrt() / LEVELS,
        linf=size.flatten(1).amax(1).long(),
    )


def project(delta: Tensor, norm: Norm, eps: float) -> Tensor:
    """The nearest point (in L2) of the eps-ball of a norm, image by image.

    Args:
        delta: Changes, [N, ...].
        norm: ``"linf"`` or ``"l2"``.
        eps: Radius, >= 0, in the units of `delta`.

    Returns:
        A new tensor of the same shape; projecting twice changes nothing more.
    """
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * (eps / length).clamp_max(1).view(-1, *[1] * (delta.ndim - 1))
    raise InvalidInput(f"project: no projection onto the {norm} ball; write 'linf' or 'l2'.")
