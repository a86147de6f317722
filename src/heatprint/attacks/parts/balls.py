"""Moves within the balls of a norm: random points, steepest directions, and the check of a radius."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import LEVELS, check_level, whole_levels
from heatprint.core.norms import length

BallNorm = Literal["linf", "l2", "l1"]
SPARSITY = 0.01  # share of channels an L1 step moves (Tramèr and Boneh 2019, section 4.1)


def check_radius(who: str, eps: float, norm: BallNorm) -> None:
    """Refuse a radius that cannot be meant for pixels in [0, 1].

    Raises:
        InvalidInput: With what to write instead.
    """
    if norm == "linf":
        check_level(who, eps)
    elif not (0 <= eps < math.inf):
        raise InvalidInput(f"{who} = {eps}: a radius in {norm} is 0 or more, for pixels in [0, 1]. Write e.g. 0.5.")


def usable(eps: float, norm: BallNorm) -> float:
    """The radius an 8-bit image can use: whole levels in the maximum norm, `eps` itself in the others."""
    return whole_levels(eps) / LEVELS if norm == "linf" else eps


def random_point(rng: np.random.Generator, shape: tuple[int, ...], norm: BallNorm, eps: float) -> Tensor:
    """A point drawn uniformly from the ball, float32 of `shape`."""
    size = math.prod(shape)
    if norm == "linf":
        point = rng.uniform(-eps, eps, size)
    elif norm == "l2":
        point = rng.standard_normal(size)
        point *= eps * rng.random() ** (1 / size) / max(float(np.linalg.norm(point)), 1e-30)
    else:  # exponentials divided by the sum of one more of them are uniform on the simplex (Barthe et al. 2005)
        spacing = rng.standard_exponential(size + 1)
        point = rng.choice([-1.0, 1.0], size) * spacing[:-1] / spacing.sum() * eps
    return torch.from_numpy(point.astype(np.float32).reshape(shape))


def steepest(gradient: Tensor, norm: BallNorm) -> Tensor:
    """The direction of length 1 in `norm` along which a loss rises fastest, image by image.

    In L1 that is a single channel; as is usual the top share of channels moves instead, by equal amounts.
    """
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        size = length(gradient, "l2").clamp_min(torch.finfo(gradient.dtype).tiny)
        return gradient / size.view(-1, 1, 1, 1)
    flat = gradient.abs().flatten(1)
    count = max(1, int(SPARSITY * flat.shape[1]))
    least = flat.topk(count, dim=1).values[:, -1:].clamp_min(torch.finfo(gradient.dtype).tiny)
    chosen = ((flat >= least) * gradient.flatten(1).sign()).view_as(gradient)
    return chosen / length(chosen, "l1").clamp_min(1).view(-1, 1, 1, 1)
