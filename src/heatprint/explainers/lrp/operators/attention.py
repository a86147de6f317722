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
        return (torch.where(out > 0, x * (r - out * r.sum(dim, keepdim=True)), 0.0),)  # a masked x is -inf

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
    carrying = [t for t in (a, b) if tape.carries(t)]

    def share(r: Tensor) -> list[Tensor]:
        s = safe_divide(r, len(carrying) * run(a, b).to(r.dtype))
        pulled = {id(t): t * _pull(run, a, b, t is a, s) for t in carrying}
        return [pulled[id(t)] for t in carrying]

    tape.record(name, "uniform" if len(carrying) == 2 else "z", carrying, [out], share)
    return out


def _pull(run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, by_first: bool, s: Tensor) -> Tensor:
    """The vector-Jacobian product with one factor; linear in it, so only the other's value counts."""
    twin = (a if by_first else b).detach().to(s.dtype).requires_grad_()
    with torch.enable_grad():
        out = run(twin, b.to(s.dtype)) if by_first else run(a.to(s.dtype), twin)
    return torch.autograd.grad(out, twin, s, create_graph=torch.is_grad_enabled())[0]


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
    odd = [n for n in ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "static_k", "static_v") if given.get(n)]
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
        mask = given.get("attn_mask")
        allowed = ~mask if mask is not None and mask.dtype == torch.bool else mask
        mixed = F.scaled_dot_product_attention(sides[0], sides[1], sides[2], attn_mask=allowed)
        joined = mixed.transpose(1, 2).flatten(2)
        out = F.linear(joined, given["out_proj_weight"], given["out_proj_bias"]).transpose(0, 1)
    return out, None


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
