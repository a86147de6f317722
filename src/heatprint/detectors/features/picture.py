"""Numbers that say how a map looks; none of them changes when the map is multiplied by a positive number."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from heatprint.detectors.filters import bends, halved

GRID = 7  # blocks on a side
FRAME = 8  # the frame is an eighth of the side wide


def shares(values: Tensor) -> Tensor:
    """Each value's part of the sum of sizes, [N, ...] to float64 [N, D]; of zeros all have the same part."""
    sizes = values.flatten(1).abs().double()
    whole = sizes.sum(1, keepdim=True)
    return torch.where(whole > 0, sizes / whole.where(whole > 0, 1), 1 / sizes.shape[1])


def concentration(values: Tensor, parts: tuple[float, ...]) -> Tensor:
    """How unevenly sizes are spread, [N, ...] to float64 [N, len(parts) + 3].

    Args:
        values: Of either sign.
        parts: Shares of all values, the largest first, whose part of the whole is asked for; at least one value is
            taken.

    Returns:
        The parts; the Gini index (Hurley and Rickard 2009), 0 for even values; the entropy over that of even values,
        0 to 1; the logarithm of 1 plus the kurtosis of the signed values, 0 where all are the same.
    """
    ordered = shares(values).sort(1, descending=True).values
    count = ordered.shape[1]
    sums = ordered.cumsum(1)
    tops = [sums[:, max(1, round(part * count)) - 1] for part in parts]
    rank = torch.arange(count, dtype=ordered.dtype, device=ordered.device) + 0.5
    gini = 1 - 2 * (ordered * rank).sum(1) / count
    return torch.stack([*tops, gini, evenness(ordered), kurtosis(values)], 1)


def evenness(parts: Tensor) -> Tensor:
    """Entropy of parts [N, D] that add up to 1, over the largest possible: 0 to 1, [N]; 1 for a single value."""
    count = parts.shape[1]
    if count == 1:
        return torch.ones_like(parts[:, 0])
    entropy: Tensor = torch.special.entr(parts).sum(1)
    return entropy / math.log(count)


def kurtosis(values: Tensor) -> Tensor:
    """Logarithm of 1 plus the fourth moment over the second's square, float64 [N]; 0 where all values are the same."""
    flat = values.flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    largest = centred.abs().amax(1, keepdim=True)
    # what rounding leaves of equal values is not looked at
    centred = torch.where(largest > 1e-9 * flat.abs().amax(1, keepdim=True), centred / largest.where(largest > 0, 1), 0)
    second = centred.square().mean(1)
    return (centred.pow(4).mean(1) / second.square().where(second > 0, 1)).log1p()


def positive(values: Tensor) -> Tensor:
    """Part of the sum of sizes that is positive, float64 [N]; a half of zeros."""
    flat = values.flatten(1).double()
    whole = flat.abs().sum(1)
    return torch.where(whole > 0, flat.clamp_min(0).sum(1) / whole.where(whole > 0, 1), 0.5)


def place(heat: Tensor) -> Tensor:
    """Where a map's sizes lie, [N, H, W] to float64 [N, 5].

    Returns:
        Row and column of their centre, -1 to 1; how far they spread around it; how elongated they are, 0 (a disc) to 1
        (a line); their part in the frame, an eighth of the side wide.
    """
    height, width = heat.shape[1:]
    part = shares(heat).view(heat.shape)
    down = torch.linspace(-1, 1, height, dtype=part.dtype, device=part.device)
    across = torch.linspace(-1, 1, width, dtype=part.dtype, device=part.device)
    rows, columns = part.sum(2), part.sum(1)
    row, column = rows @ down, columns @ across
    tall, wide = rows @ down.square() - row.square(), columns @ across.square() - column.square()
    slant = torch.einsum("nij,i,j->n", part, down, across) - row * column
    half, skew = (tall + wide) / 2, ((tall - wide).square() / 4 + slant.square()).sqrt()
    thick = (half - skew).clamp_min(0) / (half + skew).clamp_min(1e-12)
    margin = max(1, min(height, width) // FRAME)
    frame = 1 - part[:, margin:-margin, margin:-margin].sum((1, 2))
    return torch.stack([row, column, (2 * half).clamp_min(0).sqrt(), 1 - thick, frame], 1)


def texture(heat: Tensor) -> Tensor:
    """How rough a map is, [N, H, W] to float64 [N, 4].

    Returns:
        Mean size of its second differences over that of its values; its correlation with itself one pixel further,
        mean of both directions; what averaging over 4 x 4 leaves of its size, 0 to 1; the largest part of the sizes
        in one of 7 x 7 blocks.
    """
    part = shares(heat).view(heat.shape)
    signed = (part * heat.sign())[:, None]
    size = signed.abs().flatten(1).mean(1)
    size = size.where(size > 0, 1)
    rough = bends(signed).abs().flatten(1).mean(1) / size
    next_to = (likeness(heat[:, 1:], heat[:, :-1]) + likeness(heat[..., 1:], heat[..., :-1])) / 2
    coarse = halved(halved(signed)).abs().flatten(1).mean(1) / size
    blocks = functional.adaptive_avg_pool2d(part[:, None], GRID).flatten(1)
    return torch.stack([rough, next_to, coarse, blocks.amax(1) / blocks.sum(1)], 1)


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation image by image, [N, ...] to float64 [N]; 0 where one of the two is even."""
    first, second = (values.flatten(1).double() for values in (one, other))
    return cosine(*(values - values.mean(1, keepdim=True) for values in (first, second)))


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of the angle between vectors, [N, ...] to float64 [N]; 0 where one of the two is zero."""
    first, second = (values.flatten(1).double() for values in (one, other))
    length = first.norm(dim=1) * second.norm(dim=1)
    found: Tensor = (first * second).sum(1) / length.where(length > 0, 1)
    return found


def overlap(one: Tensor, other: Tensor, part: float) -> Tensor:
    """Of the values of largest size in one map the share that is also among those of the other, float64 [N].

    Ghorbani, Abid and Zou 2019's top-k intersection.
    """
    chosen = []
    for values in (one, other):
        sizes = values.flatten(1).abs()
        top = sizes.topk(max(1, round(part * sizes.shape[1])), dim=1).indices
        chosen.append(torch.zeros_like(sizes, dtype=torch.bool).scatter(1, top, True))
    return (chosen[0] & chosen[1]).sum(1).double() / chosen[0].sum(1)
