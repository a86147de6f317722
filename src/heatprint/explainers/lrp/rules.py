"""LRP rules: how a linear map shares the relevance of its outputs among its inputs.

Each rule is ``share(kernel, x, z, r)``: from the map, its input x, its output z (bias included) and the outputs'
relevance r to the inputs' relevance. Written from the formulas of the papers named, with iNNvestigate's conventions
where they matter: sign(0) = +1, and a denominator that is exactly 0 becomes 1e-7. Ratios are taken in the dtype of
the relevance, float32 or better, also where the network computes in bfloat16. Everything is made of differentiable
operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.explainers.lrp.kernels import Kernel
from heatprint.explainers.lrp.signed import signed, split

BiasMode = Literal["innvestigate", "positive", "none"]
"""Which part of a convolution's bias stands in the denominator of alpha-beta and z+: all of it (iNNvestigate, and so
the paper), its positive part (zennit; Lapuschkin's formulation), or none."""

SAFE = 1e-7


def safe_divide(top: Tensor, bottom: Tensor) -> Tensor:
    """Quotient of `top` and `bottom`, where a bottom of exactly 0 counts as 1e-7."""
    return top / (bottom + SAFE * _zeros(bottom))


def _shares(top: Tensor, bottom: Tensor) -> Tensor:
    """`safe_divide`, for a bottom that nobody else reads: written over, because fresh memory is slow."""
    bottom = bottom.to(top.dtype)
    return top / bottom.add_(_zeros(bottom), alpha=SAFE)


def _zeros(values: Tensor) -> Tensor:
    """1 where a value is 0; as numbers, because masks of truth values are 5 to 20 times slower on a CPU."""
    values = values.detach()
    return torch.eq(values, 0, out=torch.empty_like(values))


def _away_from_zero(z: Tensor, epsilon: float) -> Tensor:
    """`z` + epsilon sign z, with sign 0 = +1."""
    return z + torch.full_like(z, epsilon).copysign(z + 0.0)  # -0.0 + 0.0 is 0.0


def _times(back: Tensor, x: Tensor) -> Tensor:
    """X * back, for a `back` that nobody else reads."""
    return x * back if torch.is_grad_enabled() else back.mul_(x)


class Rule(Protocol):
    """One way to share relevance."""

    uses_output: ClassVar[bool]
    """Whether `share` reads z; where it does not, z need not be kept."""

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """Relevance of x, in its shape. `nonnegative` says that x is known to be (it follows a ReLU)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """LRP-epsilon (Bach et al. 2015, eq. 58): R_j = x_j sum_k w_jk R_k / (z_k + epsilon sign z_k).

    The bias keeps its share.

    Attributes:
        epsilon: Keeps the denominator away from 0, in the units of the layer's output. 0 is LRP-0 (eq. 56).
    """

    epsilon: float
    uses_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < float("inf"):
            raise InvalidInput(f"Epsilon: epsilon must be 0 or more, got {self.epsilon}.")

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """See `Rule`."""
        assert z is not None
        z = z.to(r.dtype)
        s = r / _away_from_zero(z, self.epsilon) if self.epsilon else safe_divide(r, z)
        return _times(kernel.transpose(s, kernel.weight, x), x)


@dataclass(frozen=True, kw_only=True)
class AlphaBeta:
    """LRP-alpha-beta (Bach et al. 2015, eq. 60): excitation weighted alpha, inhibition beta = alpha - 1.

    Inputs of both signs are split, so that x- w- counts as excitation. Alpha 1 without bias is z+ (Montavon et al.
    2017, eq. 13).

    Attributes:
        alpha: 1 or more; 1 leaves the inhibition out.
        bias: See `BiasMode`.
    """

    alpha: float = 1.0
    bias: BiasMode = "innvestigate"
    uses_output: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.alpha < float("inf"):
            raise InvalidInput(f"AlphaBeta: alpha must be 1 or more, got {self.alpha}.")

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """See `Rule`."""
        excitation = _half(kernel, x, r, 1, self.bias, nonnegative)
        if self.alpha == 1:
            return excitation
        inhibition = _half(kernel, x, r, -1, self.bias, nonnegative)
        return self.alpha * excitation - (self.alpha - 1) * inhibition


def _half(kernel: Kernel, x: Tensor, r: Tensor, sign: int, mode: BiasMode, nonnegative: bool) -> Tensor:
    """Share by the contributions of one sign: positive inputs through its weights, negative ones through the others."""
    weight, bias = signed(kernel.weight, sign), _bias(kernel, mode, sign)
    if nonnegative:
        s = _shares(r, kernel.forward(x, weight, bias))
        return _times(kernel.transpose(s, weight, x), x)
    above, below, other = x.clamp_min(0), x.clamp_max(0), signed(kernel.weight, -sign)
    s = _shares(r, kernel.forward(above, weight, bias) + kernel.forward(below, other))
    return _times(kernel.transpose(s, weight, x), above) + _times(kernel.transpose(s, other, x), below)


def _bias(kernel: Kernel, mode: BiasMode, sign: int) -> Tensor | None:
    if kernel.bias is None or mode == "none":
        return None
    if mode == "innvestigate":
        return kernel.bias
    return split(kernel.bias, sign)


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """LRP-gamma (Montavon et al. 2019, section 10.2.3): contributions of the output's own sign weigh 1 + gamma.

    For inputs of both signs in the form of Andeol et al. 2023: where z_k > 0 the positive contributions (and the
    positive bias) are raised, where z_k < 0 the negative ones. 0 is LRP-0, infinity is z+ on ReLU networks.

    Attributes:
        gamma: 0 or more; 0.25 is usual.
        epsilon: Added to the denominator with its sign.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6
    uses_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (0 <= self.gamma < float("inf") and 0 < self.epsilon < float("inf")):
            raise InvalidInput(f"Gamma: gamma must be 0 or more and epsilon positive, got {self}.")

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """See `Rule`."""
        assert z is not None
        z, (up, down) = z.to(r.dtype), (signed(kernel.weight, 1), signed(kernel.weight, -1))
        above, below = x.clamp_min(0), x.clamp_max(0)
        raised = kernel.forward(above, up, _bias(kernel, "positive", 1)) + kernel.forward(below, down)
        lowered = kernel.forward(above, down, _bias(kernel, "positive", -1)) + kernel.forward(below, up)
        positive = (z >= 0).to(r.dtype)
        bottom = z + self.gamma * (positive * raised + (1 - positive) * lowered)
        s = r / (bottom + self.epsilon * (2 * positive - 1))
        on, off = s * positive, s * (1 - positive)
        plain = x * kernel.transpose(s, kernel.weight, x)
        by_above = kernel.transpose(on, up, x) + kernel.transpose(off, down, x)
        by_below = kernel.transpose(on, down, x) + kernel.transpose(off, up, x)
        return plain + self.gamma * (above * by_above + below * by_below)


@dataclass(frozen=True, kw_only=True)
class Flat:
    """Every input of a receptive field gets the same share, whatever its value and weight (Lapuschkin et al. 2019)."""

    uses_output: ClassVar[bool] = False

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """See `Rule`."""
        return kernel.flat_transpose(safe_divide(r, kernel.fan_in(x).to(r.dtype)), x)


@dataclass(frozen=True, kw_only=True)
class WSquare:
    """Shares by squared weights (Montavon et al. 2017, eq. 12), whatever the input."""

    uses_output: ClassVar[bool] = False

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """See `Rule`."""
        squared = kernel.weight.square()
        return kernel.transpose(safe_divide(r, kernel.forward(torch.ones_like(x), squared).to(r.dtype)), squared, x)


@dataclass(frozen=True, kw_only=True)
class ZBox:
    """z-box, for inputs that lie in a box (Montavon et al. 2017, eq. 14): z_jk = x_j w_jk - l_j w+_jk - h_j w-_jk.

    Attributes:
        low: Smallest value each input channel can take, as the network is fed; one number stands for all.
        high: Largest.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    uses_output: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise InvalidInput(f"ZBox: every low must lie below its high, got {self.low} and {self.high}.")

    def share(self, kernel: Kernel, x: Tensor, z: Tensor | None, r: Tensor, nonnegative: bool = False) -> Tensor:
        """See `Rule`."""
        parts = (
            (x, kernel.weight),
            (-self._side(self.low, x, kernel), signed(kernel.weight, 1)),
            (-self._side(self.high, x, kernel), signed(kernel.weight, -1)),
        )
        bottom = sum((kernel.forward(v, w) for v, w in parts[1:]), kernel.forward(*parts[0]))
        s = safe_divide(r, bottom.to(r.dtype))
        return sum((v * kernel.transpose(s, w, x) for v, w in parts[1:]), x * kernel.transpose(s, kernel.weight, x))

    @staticmethod
    def _side(values: tuple[float, ...], x: Tensor, kernel: Kernel) -> Tensor:
        """One side of the box in the shape of x; channels lie on dimension 1, or on the last of a dense layer."""
        side = x.new_tensor(values)
        if len(values) > 1 and kernel.kind == "conv":
            side = side.view(-1, *[1] * (x.ndim - 2))
        elif len(values) > 1:  # an image flattened channel by channel
            side = side.repeat_interleave(x.shape[-1] // len(values))
        return side.expand_as(x)
