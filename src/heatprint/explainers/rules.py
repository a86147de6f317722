"""LRP rules: how a linear map shares the relevance of its outputs among its inputs.

Each rule is ``share(kernel, x, z, r)``: from the map, its input x, its output z (bias included) and the outputs'
relevance r to the inputs' relevance. Written from the formulas of the papers named, with iNNvestigate's conventions
where they matter: sign(0) = +1, and a denominator that is exactly 0 becomes 1e-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from heatprint.explainers.kernels import Kernel

BiasMode = Literal["innvestigate", "positive", "none"]
"""Which part of a convolution's bias stands in the denominator of alpha-beta and z+: all of it (iNNvestigate, and so
the paper), its positive part (zennit; Lapuschkin's formulation), or none."""

SAFE = 1e-7


def safe_divide(top: Tensor, bottom: Tensor) -> Tensor:
    """Quotient of `top` and `bottom`, where a bottom of exactly 0 counts as 1e-7."""
    return top / (bottom + SAFE * (bottom == 0))


class Rule(Protocol):
    """One way to share relevance."""

    def share(self, kernel: Kernel, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """Relevance of x, in its shape."""
        ...


@dataclass(frozen=True, kw_only=True)
class Z:
    """LRP-0 (Bach et al. 2015, eq. 56): R_j = x_j sum_k w_jk R_k / z_k. The bias keeps its share."""

    def share(self, kernel: Kernel, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """See `Rule`."""
        return x * kernel.transpose(safe_divide(r, z), kernel.weight, x)


@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """LRP-epsilon (Bach et al. 2015, eq. 58): R_j = x_j sum_k w_jk R_k / (z_k + epsilon sign z_k).

    Attributes:
        epsilon: Keeps the denominator away from 0, in the units of the layer's output.
    """

    epsilon: float

    def share(self, kernel: Kernel, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """See `Rule`."""
        sign = torch.where(z >= 0, 1.0, -1.0).to(z)  # epsilon itself must not pass through float32
        bottom = z + self.epsilon * sign
        return x * kernel.transpose(r / bottom, kernel.weight, x)


@dataclass(frozen=True, kw_only=True)
class AlphaBeta:
    """LRP-alpha-beta (Bach et al. 2015, eq. 60): excitation weighted alpha, inhibition beta = alpha - 1.

    Inputs of both signs are split, so that x- w- counts as excitation.

    Attributes:
        alpha: 1 or more; 1 leaves the inhibition out.
        bias: See `BiasMode`.
    """

    alpha: float = 1.0
    bias: BiasMode = "innvestigate"

    def share(self, kernel: Kernel, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """See `Rule`."""
        del z
        up, down = kernel.weight.clamp_min(0), kernel.weight.clamp_max(0)
        excitation = self._half(kernel, x, r, up, down, self._bias(kernel, 1))
        if self.alpha == 1:
            return excitation
        inhibition = self._half(kernel, x, r, down, up, self._bias(kernel, -1))
        return self.alpha * excitation - (self.alpha - 1) * inhibition

    @staticmethod
    def _half(kernel: Kernel, x: Tensor, r: Tensor, with_up: Tensor, with_down: Tensor, bias: Tensor | None) -> Tensor:
        """Share by the contributions of positive inputs through one weight and negative ones through the other."""
        above, below = x.clamp_min(0), x.clamp_max(0)
        signed = bool((x.detach() < 0).any())
        bottom = kernel.forward(above, with_up)
        if signed:
            bottom = bottom + kernel.forward(below, with_down)
        if bias is not None:
            bottom = bottom + kernel.spread_bias(bias)
        s = safe_divide(r, bottom)
        shared = above * kernel.transpose(s, with_up, x)
        return shared + below * kernel.transpose(s, with_down, x) if signed else shared

    def _bias(self, kernel: Kernel, sign: int) -> Tensor | None:
        if kernel.bias is None or self.bias == "none":
            return None
        if self.bias == "innvestigate":
            return kernel.bias
        return kernel.bias.clamp_min(0) if sign > 0 else kernel.bias.clamp_max(0)


@dataclass(frozen=True, kw_only=True)
class Flat:
    """Every input of a receptive field gets the same share, whatever its value and weight (Lapuschkin et al. 2019)."""

    def share(self, kernel: Kernel, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """See `Rule`."""
        del z
        return kernel.flat_transpose(r / kernel.fan_in(x), x)


@dataclass(frozen=True, kw_only=True)
class WSquare:
    """Shares by squared weights (Montavon et al. 2017, eq. 12), whatever the input."""

    def share(self, kernel: Kernel, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """See `Rule`."""
        del z
        squared = kernel.weight.square()
        return kernel.transpose(safe_divide(r, kernel.forward(torch.ones_like(x), squared)), squared, x)
