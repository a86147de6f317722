"""The positive and the negative part of weights, kept between explanations.

Splitting the weights and touching fresh memory costs 5 to 8 % of a heat map of ResNet18 at batches of 8 images on a
CPU, so parts of frozen weights are kept as long as the weights live. They are made anew when PyTorch's version
counter, or a sample of the values, says that the weights were written to: fused optimizers and ``weight.data`` escape
the counter. Single values changed behind PyTorch's back escape both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_KEPT = WeakTensorKeyDictionary()


def signed(weight: Tensor, sign: int) -> Tensor:
    """The part of one sign: positive values for 1, negative ones for -1, zero elsewhere."""
    frozen = type(weight) is nn.Parameter and not weight.requires_grad and not torch.is_inference_mode_enabled()
    if not frozen:
        return split(weight, sign)
    if weight not in _KEPT or not _KEPT[weight][0].same(weight):
        _KEPT[weight] = (State(weight), {})
    parts: dict[int, Tensor] = _KEPT[weight][1]
    if sign not in parts:
        parts[sign] = split(weight.detach(), sign)
    return parts[sign]


class State:
    """By which weights are known again."""

    def __init__(self, weight: Tensor) -> None:
        self._mark, self._sample = _mark(weight), weight.detach()[:, 0].clone()

    def same(self, weight: Tensor) -> bool:
        """Whether the weights are what they were."""
        return self._mark == _mark(weight) and torch.equal(self._sample, weight.detach()[:, 0])


def _mark(weight: Tensor) -> tuple[object, ...]:
    return weight._version, weight.data_ptr(), weight.dtype, weight.device


def split(values: Tensor, sign: int) -> Tensor:
    """The part of one sign, made anew."""
    return values.clamp_min(0) if sign > 0 else values.clamp_max(0)
