"""Convolutions and dense layers as linear maps: forward with any weight, and transposed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import Unsupported


@dataclass(frozen=True, eq=False)
class Dense:
    """y = x W^T + b over the last dimension."""

    weight: Tensor
    bias: Tensor | None
    kind = "dense"

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The map with another weight and no bias."""
        return F.linear(x, weight)

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The transposed map, from the shape of the output to that of `x`."""
        del x
        return s @ weight

    def spread_bias(self, bias: Tensor) -> Tensor:
        """A bias in the shape it is added in."""
        return bias

    def fan_in(self, x: Tensor) -> Tensor:
        """How many inputs each output has: broadcasts over the output."""
        return x.new_tensor(float(self.weight.shape[1]))

    def flat_transpose(self, s: Tensor, x: Tensor) -> Tensor:
        """The transposed map with all weights 1."""
        return s.sum(-1, keepdim=True).expand_as(x)


@dataclass(frozen=True, eq=False)
class Conv2d:
    """A two-dimensional convolution with zero padding."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    kind = "conv"

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The map with another weight and no bias."""
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The transposed map, from the shape of the output to that of `x`."""
        return self._transpose(s, weight, x, self.groups)

    def spread_bias(self, bias: Tensor) -> Tensor:
        """A bias in the shape it is added in."""
        return bias.view(1, -1, 1, 1)

    def fan_in(self, x: Tensor) -> Tensor:
        """How many inputs that are not padding each output has, [1, 1, H', W']."""
        taps = F.conv2d(x.new_ones(1, 1, *x.shape[2:]), self._one, None, self.stride, self.padding, self.dilation)
        return taps * self.weight.shape[1]

    def flat_transpose(self, s: Tensor, x: Tensor) -> Tensor:
        """The transposed map with all weights 1: one box filter per group, equal in all its input channels."""
        n, _, high, wide = s.shape
        sums = s.view(n * self.groups, -1, high, wide).sum(1, keepdim=True)
        like = x.new_empty(n * self.groups, 1, *x.shape[2:])
        box = self._transpose(sums, self._one, like, 1)
        return box.view(n, self.groups, 1, *x.shape[2:]).expand(-1, -1, self.weight.shape[1], -1, -1).reshape(x.shape)

    @cached_property
    def _one(self) -> Tensor:
        return torch.ones_like(self.weight[:1, :1])

    def _transpose(self, s: Tensor, weight: Tensor, x: Tensor, groups: int) -> Tensor:
        gradient: Tensor = torch.ops.aten.convolution_backward(
            *(s, x, weight, None, self.stride, self.padding, self.dilation, False, (0, 0), groups),
            (True, False, False),
        )[0]
        return gradient


Kernel = Dense | Conv2d


def conv2d_kernel(weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> Conv2d:
    """The kernel of a `torch.nn.functional.conv2d` call.

    Raises:
        Unsupported: Padding "same" that is not symmetric.
    """
    dilation = _pair(dilation)
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(r % 2 for r in reach):
            raise Unsupported("lrp: padding='same' with an even kernel is not symmetric; pad explicitly with F.pad.")
        padding = tuple(r // 2 for r in reach)
    return Conv2d(weight, bias, _pair(stride), _pair(padding), dilation, groups)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (tuple(value) * 2)[:2]
