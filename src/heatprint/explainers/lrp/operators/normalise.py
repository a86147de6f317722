"""Normalisation layers: linear maps once their statistics are held constant (AttnLRP, Achtibat et al. 2024, 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.explainers.lrp.rules import safe_divide
from heatprint.explainers.lrp.tape import Tape

Pull = Callable[[Tensor], Tensor]


def _batch_norm(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Batch norm in evaluation mode: a scale and a shift per channel; the shift keeps its share."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    if given.get("training"):
        raise InvalidInput("lrp: batch norm is in train mode, where images depend on each other; call network.eval().")
    x, weight = given["input"], given.get("weight")
    scale = (given["running_var"] + given.get("eps", 1e-5)).rsqrt()
    scale = (scale if weight is None else scale * weight).view(-1, *[1] * (x.ndim - 2))
    return _record(tape, func, args, kwargs, x, weight, lambda c: c * scale)


def _layer_norm(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Layer norm: centring and scaling over the last dimensions, the variance held constant."""
    given = dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args, strict=False)) | kwargs
    x, weight = given["input"], given.get("weight")
    over = tuple(range(-len(given["normalized_shape"]), 0))

    def pull(c: Tensor) -> Tensor:
        return _centred(x, c if weight is None else c * weight, over, given.get("eps", 1e-5))

    return _record(tape, func, args, kwargs, x, weight, pull)


def _group_norm(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Group norm: as layer norm, over the channels and places of each group."""
    given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), args, strict=False)) | kwargs
    return _grouped(tape, func, args, kwargs, given, given["num_groups"])


def _instance_norm(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Instance norm: group norm with one channel per group."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    if not given.get("use_input_stats", True):
        return _batch_norm(
            tape, watch, F.batch_norm, (), {k: v for k, v in given.items() if k not in ("use_input_stats", "momentum")}
        )
    return _grouped(tape, func, args, kwargs, given, given["input"].shape[1])


def _grouped(
    tape: Tape, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any], groups: int
) -> Tensor:
    x, weight = given["input"], given.get("weight")

    def pull(c: Tensor) -> Tensor:
        c = c if weight is None else c * weight.view(-1, *[1] * (x.ndim - 2))
        shape = (len(x), groups, -1)
        return _centred(x.reshape(shape), c.reshape(shape), (-1,), given.get("eps", 1e-5)).view_as(x)

    return _record(tape, func, args, kwargs, x, weight, pull)


def _rms_norm(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """RMS norm: a scale without a shift, so relevance passes."""
    out: Tensor = func(*args, **kwargs)
    weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
    tape.record("rms_norm", "identity", [args[0]], [out], lambda r: (r,), weight=weight, keeps=True)
    return out


def _unit_length(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Division by the length, held constant: relevance passes."""
    out: Tensor = func(*args, **kwargs)
    tape.record("normalize", "divisor held constant", [args[0]], [out], lambda r: (r,), keeps=True)
    return out


def _record(
    tape: Tape, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, weight: Tensor | None, pull: Pull
) -> Tensor:
    out: Tensor = func(*args, **kwargs)

    def share(r: Tensor) -> tuple[Tensor]:
        return (x * pull(safe_divide(r, func(*args, **kwargs).to(r.dtype))),)

    tape.record(func.__name__, "z, variance held constant", [x], [out], share, weight=weight)
    return out


def _centred(x: Tensor, c: Tensor, over: Sequence[int], eps: float) -> Tensor:
    """The transpose of centring and scaling by the standard deviation."""
    wide = x.to(c.dtype)
    c = c * (wide.var(tuple(over), correction=0, keepdim=True) + eps).rsqrt()
    return c - c.mean(tuple(over), keepdim=True)


TABLE: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((F.batch_norm, torch.batch_norm), _batch_norm),
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    **dict.fromkeys((F.group_norm, torch.group_norm), _group_norm),
    F.instance_norm: _instance_norm,
    F.normalize: _unit_length,
    **({F.rms_norm: _rms_norm} if hasattr(F, "rms_norm") else {}),
}
