"""Reshaping, routing and averaging: operations whose Jacobian depends on choices only, never on values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.explainers.lrp.rules import safe_divide
from heatprint.explainers.lrp.tape import Tape, local

T: Any = torch.Tensor


def _routed(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Relevance goes where the value came from: by the gradient."""
    run, inputs = _open(tape, func, args, kwargs)
    out, pull = local(tape, run, inputs)
    outputs = [o for o in (out if isinstance(out, tuple | list) else [out]) if o.is_floating_point()]
    tape.record(func.__name__, "gradient", inputs, outputs, pull, keeps=func not in _MIXED)
    tape.mark(
        outputs,
        raw=func in _MOVE | _RESHAPES | _PADS and all(tape.is_raw(t) for t in inputs),
        nonnegative=func not in _MIXED and all(tape.is_nonnegative(t) for t in inputs),
        gate=func in _MOVE | _RESHAPES and all(tape.is_gate(t) for t in inputs),
    )
    return out


def _averaged(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Averages and other weighted sums of one activation: the z rule."""
    run, inputs = _open(tape, func, args, kwargs)
    out, pull = local(tape, run, inputs)
    x = inputs[0]

    def share(r: Tensor) -> tuple[Tensor]:
        s = safe_divide(r, out.to(r.dtype))
        return (x * pull(s)[0],)

    tape.record(func.__name__, "z", inputs, [out], share)
    tape.mark([out], nonnegative=func in _AVERAGES and tape.is_nonnegative(x))
    return out  # type: ignore[no-any-return]


def _open(
    tape: Tape, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], list[Tensor]]:
    """The operation as a function of the tensors on the tape, and those tensors."""
    inputs: list[Tensor] = []
    holed = _find(args, tape, inputs)
    named = {key: _find(value, tape, inputs) for key, value in kwargs.items()}

    def run(*tensors: Tensor) -> Any:
        return func(*_fill(holed, tensors), **{key: _fill(value, tensors) for key, value in named.items()})

    return run, inputs


def _find(value: Any, tape: Tape, inputs: list[Tensor]) -> Any:
    if tape.carries(value):
        inputs.append(value)
        return _Hole(len(inputs) - 1)
    return type(value)(_find(v, tape, inputs) for v in value) if type(value) in (list, tuple) else value


def _fill(value: Any, tensors: tuple[Tensor, ...]) -> Any:
    if isinstance(value, _Hole):
        return tensors[value.place]
    return type(value)(_fill(v, tensors) for v in value) if type(value) in (list, tuple) else value


class _Hole:
    def __init__(self, place: int) -> None:
        self.place = place


_AVERAGES = {F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, torch.avg_pool1d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d,
             F.adaptive_avg_pool3d, torch.adaptive_avg_pool1d, torch.mean, T.mean, torch.sum, T.sum, torch.cumsum,
             T.cumsum}  # fmt: skip
_WEIGHTED = {F.interpolate, F.upsample, F.fold}
_RESHAPES = {torch.flatten, T.flatten, T.reshape, torch.reshape, T.view, T.permute, torch.permute, torch.squeeze,
             T.squeeze, torch.unsqueeze, T.unsqueeze, T.transpose, torch.transpose, torch.swapaxes, T.swapaxes,
             torch.movedim, T.movedim, T.unflatten, torch.unflatten, T.view_as, T.reshape_as, torch.moveaxis,
             T.moveaxis, T.t, torch.t, T.T.__get__, T.mT.__get__, torch.ravel, T.ravel,
             torch.channel_shuffle, F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle}  # fmt: skip
_PADS = {F.pad, torch.constant_pad_nd}
_CHOOSE = {F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
           F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, F.max_pool2d_with_indices,
           torch.amax, T.amax, torch.max, T.max, torch.maximum, T.maximum, torch.amin, T.amin, torch.min, T.min,
           torch.minimum, T.minimum, torch.where, T.where, torch.masked_fill, T.masked_fill, torch.topk,
           T.topk}  # fmt: skip
_MOVE = {torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.vstack, T.__getitem__,
         torch.chunk, T.chunk, torch.split, T.split, torch.tensor_split, T.tensor_split, torch.unbind, T.unbind,
         torch.roll, T.roll, torch.flip, T.flip, torch.select, T.select, torch.narrow, T.narrow, torch.gather,
         T.gather, torch.index_select, T.index_select, torch.take_along_dim, T.take_along_dim, T.expand, T.expand_as,
         torch.broadcast_to, T.broadcast_to, T.repeat, torch.tile, T.tile, T.repeat_interleave,
         torch.repeat_interleave, F.unfold, T.unfold, torch.rot90, T.rot90}  # fmt: skip

_MIXED = _PADS | {torch.where, T.where, torch.masked_fill, T.masked_fill, torch.maximum, T.maximum, torch.minimum,
                  T.minimum}  # fmt: skip
"""A constant may take the place of an activation, and keeps its share."""

LIKE = {torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like, torch.rand_like, torch.randn_like,
        T.new_zeros, T.new_ones, T.new_full, T.new_empty, T.new_tensor}  # fmt: skip
"""Constants that only take shape or dtype from an activation."""

LIKE_OTHER = {T.to, T.type_as, T.expand_as, T.view_as, T.reshape_as}
"""Operations that only take shape or dtype from their second argument."""

TABLE: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_AVERAGES | _WEIGHTED, _averaged),
    **dict.fromkeys(_RESHAPES | _PADS | _CHOOSE | _MOVE, _routed),
}
