"""Convolutions and dense layers as linear maps: forward with any weight, and transposed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.explainers.lrp.packed import convolve


@dataclass(frozen=True, eq=False)
class Dense:
    """y = x W^T + b over the last dimension."""

    weight: Tensor
    bias: Tensor | None
    kind = "dense"

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The map with another weight and bias."""
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The transposed map, from the shape of the output to that of `x`, in the dtype of `s`."""
        return (s.to(x.dtype) @ weight.to(x.dtype)).to(s.dtype)

    def fan_in(self, x: Tensor) -> Tensor:
        """How many inputs each output has: broadcasts over the output."""
        return x.new_tensor(float(self.weight.shape[1]))

    def flat_transpose(self, s: Tensor, x: Tensor) -> Tensor:
        """The transposed map with all weights 1."""
        return s.sum(-1, keepdim=True).expand_as(x)


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution with zero padding over any number of dimensions, or a transposed one.

    Attributes:
        weight: [out, in / groups, *kernel]; of a transposed one [in, out / groups, *kernel].
        bias: [out] or None.
        stride: Per dimension, like padding, dilation and output_padding.
        padding: Zeros added on both sides.
        dilation: Distance of the taps.
        groups: Channels are split into this many maps.
        transposed: Whether this is the transpose of a convolution.
        output_padding: Of a transposed one.
    """

    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    kind = "conv"

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The map with another weight and bias."""
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        if not self.transposed:
            found = convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
            if found is not None:
                return found
        return self._map(x, weight, bias, self.groups)

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The transposed map, from the shape of the output to that of `x`, in the dtype of `s`."""
        return self._transpose(s.to(x.dtype), weight.to(x.dtype), x, self.groups).to(s.dtype)

    def fan_in(self, x: Tensor) -> Tensor:
        """How many inputs that are not padding each output has, [1, 1, *spatial]."""
        return self._map(x.new_ones(1, 1, *x.shape[2:]), self._one.to(x.dtype), None, 1) * self._channels

    def flat_transpose(self, s: Tensor, x: Tensor) -> Tensor:
        """The transposed map with all weights 1: one box filter per group, equal in all its input channels."""
        count, groups = s.shape[0], self.groups
        sums = s.sum(1, keepdim=True) if groups == 1 else s.reshape(count * groups, -1, *s.shape[2:]).sum(1, True)
        like = sums.new_empty(count * groups, 1, *x.shape[2:])
        box = self._transpose(sums, self._one.to(sums.dtype), like, 1).view(count, groups, 1, *x.shape[2:])
        return box.expand(-1, -1, self._channels, *box.shape[3:]).flatten(1, 2)

    @property
    def _channels(self) -> int:
        """Input channels per group."""
        return self.weight.shape[0] // self.groups if self.transposed else self.weight.shape[1]

    @cached_property
    def _one(self) -> Tensor:
        return torch.ones_like(self.weight[:1, :1])

    def _map(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        out: Tensor = torch.ops.aten.convolution(
            *(x, weight, bias, self.stride, self.padding, self.dilation), *(self.transposed, self._extra, groups)
        )
        return out

    def _transpose(self, s: Tensor, weight: Tensor, x: Tensor, groups: int) -> Tensor:
        gradient: Tensor = torch.ops.aten.convolution_backward(
            *(s, x, weight, None, self.stride, self.padding, self.dilation, self.transposed, self._extra, groups),
            (True, False, False),
        )[0]
        return gradient

    @property
    def _extra(self) -> list[int]:
        return list(self.output_padding) if self.transposed else [0] * len(self.stride)


Kernel = Dense | Conv


def dense(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Kernel, Tensor]:
    """The kernel and the input of a `torch.nn.functional.linear` call."""
    return Dense(weight, bias), input


def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Kernel, Tensor]:
    """The kernel and the input of a `torch.nn.functional.conv1d`, `conv2d` or `conv3d` call.

    Padding ``"same"`` that is not symmetric is made of explicit padding and a convolution without.
    """
    size = weight.shape[2:]
    dilations = _spread(dilation, len(size))
    if padding == "valid":
        padding = 0
    elif padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilations, size, strict=True)]
        if any(r % 2 for r in reach):
            input = F.pad(input, [side for r in reversed(reach) for side in (r // 2, r - r // 2)])
            padding = 0
        else:
            padding = [r // 2 for r in reach]
    return Conv(weight, bias, _spread(stride, len(size)), _spread(padding, len(size)), dilations, groups), input


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> tuple[Kernel, Tensor]:
    """The kernel and the input of a `torch.nn.functional.conv_transpose1d`, 2d or 3d call."""
    count = weight.ndim - 2
    stride, padding, dilation = (_spread(value, count) for value in (stride, padding, dilation))
    extra = tuple(_spread(output_padding, count))
    return Conv(weight, bias, stride, padding, dilation, groups, True, extra), input


def _spread(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values
