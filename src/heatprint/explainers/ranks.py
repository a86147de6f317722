"""How alike two maps of an image are in the order of their pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of maps [N, H, W], float64 [N] in [-1, 1].

    Equal values share their mean rank. A map that is the same everywhere is in no order, so nothing can be said of a
    pair that holds one: NaN.
    """
    first, second = (_ranks(x.flatten(1).double()) for x in (a, b))
    correlation: Tensor = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    return correlation.clamp(-1, 1)


def _ranks(values: Tensor) -> Tensor:
    """Ranks of each row's values around their mean, exactly 0 in a constant row; ties share their mean rank."""
    values = values.contiguous()
    ordered = values.sort(1).values
    below, up_to = torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)
    return (below + up_to).double() / 2 - values.shape[1] / 2
