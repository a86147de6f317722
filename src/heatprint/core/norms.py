"""Distances between images, and projections onto balls around them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import LEVELS

CHUNK = 256  # images held as integers at one time

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
    """Distances between two batches of 8-bit images, uint8 [N, 3, H, W] each, however many."""
    parts = [_distances(*some) for some in zip(*(torch.split(p, CHUNK) for p in (original, changed)), strict=True)]
    return Distances(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Distances)})


def _distances(original: Tensor, changed: Tensor) -> Distances:
    delta = changed.to(torch.int32) - original.to(torch.int32)
    size = delta.abs()
    return Distances(
        l0=(size.amax(1) > 0).flatten(1).sum(1),
        l1=size.flatten(1).sum(1).double() / LEVELS,
        l2=size.double().square().flatten(1).sum(1).sqrt() / LEVELS,
        linf=size.flatten(1).amax(1).long(),
    )


def project(delta: Tensor, norm: Norm, eps: float | Tensor) -> Tensor:
    """The nearest point (in L2) of the eps-ball of a norm, image by image.

    Args:
        delta: Changes, [N, ...].
        norm: ``"linf"``, ``"l2"`` or ``"l1"`` (Duchi et al. 2008, figure 1).
        eps: Radius, >= 0, in the units of `delta`; or a radius of each image, [N].

    Returns:
        A new tensor of the same shape; projecting twice changes nothing more.
    """
    if isinstance(eps, Tensor):
        eps = eps.to(delta).view(-1, *[1] * (delta.ndim - 1))
    if norm == "linf":
        return torch.where(delta.abs() > eps, delta.sign() * eps, delta)
    if norm == "l2":
        size = length(delta, "l2").clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * (eps / size.view(-1, *[1] * (delta.ndim - 1))).clamp_max(1)
    if norm == "l1":
        return _project_l1(delta, eps.flatten(1) if isinstance(eps, Tensor) else eps)
    raise InvalidInput(f"project: no projection onto the {norm} ball; write 'linf', 'l2' or 'l1'.")


def _project_l1(delta: Tensor, eps: float | Tensor) -> Tensor:
    """Soft thresholding by the one threshold that leaves a sum of absolute values of `eps`."""
    flat = delta.flatten(1)
    size = flat.abs()
    ordered = size.sort(1, descending=True).values
    excess = (ordered.cumsum(1) - eps) / torch.arange(1, flat.shape[1] + 1, device=flat.device)
    kept = (ordered > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = excess.gather(1, kept - 1).clamp_min(0)
    inside = size.sum(1, keepdim=True) <= eps
    shrunk = torch.where(inside, flat, flat.sign() * (size - threshold).clamp_min(0))
    return shrunk.view_as(delta)


def length(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each change, [N]; of images [N, 3, H, W] in L0 a pixel counts once."""
    if norm == "l0":
        return (delta.abs().amax(1) > 0).flatten(1).sum(1).to(delta.dtype)
    order = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}[norm]
    out: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return out
