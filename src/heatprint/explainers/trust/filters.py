"""Gaussian windows on stacks of images: for blurred baselines and for structural similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(sigma: float, radius: int, *, like: Tensor) -> Tensor:
    """A normalised Gaussian window, float [2 * radius + 1], in the type and on the device of `like`."""
    places = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    window = torch.exp(-0.5 * (places / sigma) ** 2)
    return window / window.sum()


def blurred(images: Tensor, window: Tensor, *, padded: bool = True) -> Tensor:
    """Images [N, C, H, W] smoothed in both directions by a window, borders mirrored.

    Without padding only places are returned where the whole window lies inside: [N, C, H - w + 1, W - w + 1].
    """
    radius = len(window) // 2
    n, channels = images.shape[:2]
    flat = images.flatten(0, 1)[:, None]
    if padded:
        flat = F.pad(flat, (radius, radius, radius, radius), mode="reflect")
    flat = F.conv2d(F.conv2d(flat, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return flat.view(n, channels, *flat.shape[2:])
