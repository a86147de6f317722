"""Activations, sums and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.explainers.lrp.rules import safe_divide
from heatprint.explainers.lrp.tape import Tape

T: Any = torch.Tensor


def _activation(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Functions of one activation: the identity rule (Bach et al. 2015; AttnLRP, Achtibat et al. 2024, eq. 11)."""
    given = args[:1] if func in _AS_OTHER else (*args, *kwargs.values())
    carrying: list[Tensor] = [a for a in given if tape.carries(a)]
    if len(carrying) != 1:
        raise Unsupported(f"lrp: there is no rule for {func.__name__!r} of two activations.")
    x = carrying[0]
    if func in _DROPOUTS and _drops(func, args, kwargs):
        raise InvalidInput("lrp: a dropout is in train mode, where a map would be one of many; call network.eval().")
    out: Tensor = func(*args, **kwargs)
    if out is x:
        return out
    tape.record(func.__name__.strip("_"), "identity", [x], [out], lambda r: (r,), keeps=True)
    stays = func in _KEEPS_SIGN and tape.is_nonnegative(x)
    tape.mark(
        [out], nonnegative=func in _NONNEGATIVE or stays, gate=func in _GATES, raw=func in _COPIES and tape.is_raw(x)
    )
    return out


def _drops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a dropout would drop; `torch.dropout` names its flag differently from `F.dropout`."""
    given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    default = func not in (F.alpha_dropout, F.feature_alpha_dropout)
    return bool(given.get("training", given.get("train", default)) and given.get("p", 0.5))


def _sum(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Sums and differences: in proportion to the summands (the z rule); a constant keeps its share."""
    a, b = _two(args, kwargs)
    alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
    one, two = (1, -alpha) if func in _DIFFERENCES else (-alpha, 1) if func in _REVERSED else (1, alpha)
    out: Tensor = func(*args, **kwargs)
    parts = [(t, k) for t, k in ((a, one), (b, two)) if tape.carries(t)]

    def share(r: Tensor) -> list[Tensor]:
        s = safe_divide(r, func(*args, **kwargs).to(r.dtype))
        return [(t * (s if k == 1 else k * s)).sum_to_size(t.shape) for t, k in parts]

    tape.record("add" if min(one, two) > 0 else "sub", "z", [t for t, _ in parts], [out], share)
    both = len(parts) == 2 and min(one, two) > 0
    tape.mark([out], nonnegative=both and all(tape.is_nonnegative(t) for t, _ in parts), raw=_still_raw(tape, parts))
    return out


def _product(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Products: a constant factor passes relevance on; a gate (a sigmoid) is treated as one.

    "Signal takes all" (Arras et al. 2017); two activations otherwise get half each, the uniform rule (AttnLRP,
    eq. 13).
    """
    a, b = _two(args, kwargs)
    out: Tensor = func(*args, **kwargs)
    carrying = [t for t in (a, b) if tape.carries(t)]
    gated = [t for t in carrying if tape.is_gate(t)]
    takers = [t for t in carrying if len(carrying) == 1 or len(gated) != 1 or t is not gated[0]]
    rule = "identity" if len(carrying) == 1 else "signal takes all" if len(takers) == 1 else "uniform"

    def share(r: Tensor) -> list[Tensor]:
        return [(r / len(takers)).sum_to_size(t.shape) for t in takers]

    tape.record("mul", rule, takers, [out], share, keeps=True)
    known = len(carrying) == 2 and all(tape.is_nonnegative(t) for t in carrying)
    tape.mark([out], nonnegative=known, raw=len(carrying) == 1 and tape.is_raw(carrying[0]))
    return out


def _quotient(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Quotients: the divisor, also one computed from the image, is held constant like a norm's variance."""
    top, bottom = _two(args, kwargs)
    if func in (T.__rdiv__, T.__rtruediv__) or not tape.carries(top):
        raise Unsupported("lrp: there is no rule for a constant divided by an activation.")
    out: Tensor = func(*args, **kwargs)
    held = "divisor held constant" if tape.carries(bottom) else "identity"
    tape.record("div", held, [top], [out], lambda r: (r.sum_to_size(top.shape),), keeps=True)
    tape.mark([out], raw=tape.is_raw(top) and not tape.carries(bottom))
    return out


def _two(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    a = args[0] if args else kwargs["input"]
    return a, args[1] if len(args) > 1 else kwargs["other"]


def _negative(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """-x: linear without a bias, so relevance passes."""
    return _product(tape, watch, torch.mul, (args[0] if args else kwargs["input"], -1), {})


def _still_raw(tape: Tape, parts: Sequence[tuple[Tensor, float]]) -> bool:
    """The input shifted by a constant, as a normalisation inside the network does, is still the input."""
    return len(parts) == 1 and tape.is_raw(parts[0][0])


_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
             torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout}  # fmt: skip
_COPIES = {*_DROPOUTS, T.to, T.float, T.double, T.half,
           T.bfloat16, T.type, T.clone, torch.clone, T.contiguous, T.type_as}  # fmt: skip
_AS_OTHER = {T.to, T.type_as}  # the second tensor only says which dtype
_KEEPS_SIGN = {*_COPIES, F.elu, F.selu, F.celu, F.leaky_relu, F.silu, F.gelu, F.mish, F.hardswish, torch.tanh, T.tanh,
               F.tanh, torch.selu, torch.celu}  # fmt: skip
_NONNEGATIVE = {F.relu, torch.relu, T.relu, F.relu6, torch.sigmoid, T.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus,
                torch.sqrt, T.sqrt}  # fmt: skip
_GATES = {torch.sigmoid, T.sigmoid, F.sigmoid, F.hardsigmoid}
_ACTIVATIONS = {*_COPIES, *_KEEPS_SIGN, *_NONNEGATIVE, F.hardtanh, F.prelu, torch.prelu, torch.clamp, T.clamp,
                torch.clip, T.clip, torch.clamp_min, T.clamp_min, torch.clamp_max, T.clamp_max, F.threshold, F.softsign,
                F.rrelu, torch.pow, T.pow, T.__pow__, torch.square, T.square, torch.rsqrt, T.rsqrt}  # fmt: skip
_DIFFERENCES = {torch.sub, T.sub, T.__sub__, torch.subtract, T.subtract}
_REVERSED = {torch.rsub, T.__rsub__}
_SUMS = {torch.add, T.add, T.__add__, T.__radd__, *_DIFFERENCES, *_REVERSED}
_PRODUCTS = {torch.mul, T.mul, T.__mul__, T.__rmul__, torch.multiply, T.multiply}
_QUOTIENTS = {torch.div, T.div, T.__truediv__, torch.divide, T.divide, torch.true_divide, T.true_divide,
              T.__rdiv__, T.__rtruediv__}  # fmt: skip
_NEGATIVES = {torch.neg, T.neg, T.__neg__, torch.negative, T.negative}

TABLE: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(_SUMS, _sum),
    **dict.fromkeys(_PRODUCTS, _product),
    **dict.fromkeys(_QUOTIENTS, _quotient),
    **dict.fromkeys(_NEGATIVES, _negative),
}

IN_PLACE: dict[Any, Any] = {
    T.relu_: torch.relu, torch.relu_: torch.relu, F.relu_: torch.relu,
    T.add_: torch.add, T.__iadd__: torch.add, T.sub_: torch.sub, T.__isub__: torch.sub,
    T.mul_: torch.mul, T.__imul__: torch.mul, T.div_: torch.div, T.__itruediv__: torch.div,
    T.sigmoid_: torch.sigmoid, torch.sigmoid_: torch.sigmoid, T.tanh_: torch.tanh, torch.tanh_: torch.tanh,
    T.clamp_: torch.clamp, torch.clamp_: torch.clamp, F.hardtanh_: F.hardtanh, F.elu_: F.elu,
    F.leaky_relu_: F.leaky_relu, F.selu_: F.selu, F.celu_: F.celu,
    T.masked_fill_: torch.masked_fill,
}  # fmt: skip
"""Operations in place, and the ordinary ones that stand in for them."""
