"""Attention, by the rules of AttnLRP (Achtibat et al. 2024): softmax and products of two activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import Unsupported
from heatprint.explainers.lrp.kernels import Dense
from heatprint.explainers.lrp.operators.kernels import kernel_on_tape
from heatprint.explainers.lrp.rules import safe_divide
from heatprint.explainers.lrp.tape import Tape

T: Any = torch.Tensor


def _softmax(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Softmax: R_i = x_i (R_i - s_i sum_j R_j), a Taylor expansion whose constant keeps its share (eq. 9)."""
    out: Tensor = func(*args, **kwargs)
    x, dim = args[0] if args else kwargs["input"], kwargs.get("dim", args[1] if len(args) > 1 else -1)

    def share(r: Tensor) -> tuple[Tensor]:
        seen = torch.where(out > 0, x, 0.0)  # what is masked is -inf
        return (seen * (r - out * r.sum(dim, keepdim=True)),)

    tape.record("softmax", "taylor", [x], [out], share)
    tape.mark([out], nonnegative=True)
    return out


def _matmul(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Matrix products: of two activations the uniform rule, half to each factor; with a constant a dense layer."""
    given = dict(zip(("input", "other"), args, strict=False)) | kwargs
    a, b = given["input"], given["mat2" if "mat2" in given else "other"]
    if not tape.carries(b) and b.ndim == 2:
        return kernel_on_tape(tape, Dense(b.T, None), a)
    return _bilinear(tape, func.__name__.strip("_"), torch.matmul, a, b)


def _einsum(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Einsum of two tensors: as a matrix product."""
    tensors = args[1] if isinstance(args[1], tuple | list) else args[1:]
    if len(tensors) != 2:
        raise Unsupported("lrp: there is no rule for einsum of more or fewer than two tensors.")
    return _bilinear(tape, "einsum", lambda a, b: torch.einsum(args[0], a, b), *tensors)


def _bilinear(tape: Tape, name: str, run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    out = run(a, b)
    places = [place for place, t in enumerate((a, b)) if tape.carries(t)]

    def share(r: Tensor) -> list[Tensor]:
        wide = a.to(r.dtype), b.to(r.dtype)
        product, pull, *_ = torch.func.vjp(run, *wide)
        pulled = pull(safe_divide(r, len(places) * product))
        return [wide[place] * pulled[place] for place in places]

    carrying = [(a, b)[place] for place in places]
    tape.record(name, "uniform" if len(places) == 2 else "z", carrying, [out], share)
    return out


def _scaled_dot_product(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` as the operations it is made of."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, args, strict=False)) | kwargs
    query, key, value, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    if given.get("enable_gqa"):
        raise Unsupported("lrp: there is no rule for grouped-query attention; repeat the keys and values before.")
    if given.get("is_causal"):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    with watch:
        scores = query @ key.transpose(-2, -1) * (given.get("scale") or query.shape[-1] ** -0.5)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask
        out: Tensor = torch.softmax(scores, -1) @ value
    return out


def _multi_head(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.nn.functional.multi_head_attention_forward` as the operations it is made of."""
    names = (
        *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k"),
        *("bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training"),
        *("key_padding_mask", "need_weights", "attn_mask"),
    )
    given = dict(zip(names, args, strict=False)) | kwargs
    odd = [n for n in ("bias_k", "bias_v", "static_k", "static_v") if given.get(n) is not None]
    odd += ["add_zero_attn"] if given.get("add_zero_attn") else []
    odd += ["dropout in train mode"] if given.get("training") and given.get("dropout_p") else []
    if odd:
        raise Unsupported(f"lrp: there is no rule for multi-head attention with {', '.join(odd)}.")
    heads = given["num_heads"]
    with watch:
        # length, batch, width -> batch, heads, length, width / heads
        inputs = [given[name].transpose(0, 1) for name in ("query", "key", "value")]
        sides = [
            torch.unflatten(F.linear(x, weight, bias), -1, (heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, *_projections(given), strict=True)
        ]
        mixed = F.scaled_dot_product_attention(sides[0], sides[1], sides[2], attn_mask=_mask(given, sides[0]))
        joined = mixed.transpose(1, 2).flatten(2)
        out = F.linear(joined, given["out_proj_weight"], given["out_proj_bias"]).transpose(0, 1)
    return out, None


def _mask(given: dict[str, Any], query: Tensor) -> Tensor | None:
    """Both masks of multi-head attention as one that is added to the scores; in booleans, True is left out."""
    found: Tensor | None = None
    for name in ("attn_mask", "key_padding_mask"):
        mask = given.get(name)
        if mask is None:
            continue
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(mask, -torch.inf)
        if name == "key_padding_mask":
            mask = mask[:, None, None]
        elif mask.ndim == 3:  # batch times heads
            mask = mask.unflatten(0, (len(query), -1))
        found = mask if found is None else found + mask
    return found


def _projections(given: dict[str, Any]) -> tuple[list[Tensor], list[Tensor | None]]:
    bias = given["in_proj_bias"]
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    if given.get("use_separate_proj_weight"):
        return [given[f"{side}_proj_weight"] for side in "qkv"], biases
    return list(given["in_proj_weight"].chunk(3)), biases


TABLE: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.softmax, T.softmax, F.softmax), _softmax),
    **dict.fromkeys((torch.matmul, T.matmul, T.__matmul__, torch.bmm, T.bmm), _matmul),
    torch.einsum: _einsum,
    F.scaled_dot_product_attention: _scaled_dot_product,
    F.multi_head_attention_forward: _multi_head,
}
