"""Layer-wise relevance propagation: one forward pass that is watched, one backward pass that shares relevance.

Every torch operation of the forward pass is intercepted by a function mode, so functional calls, residual
additions and third-party modules are covered and the model is not touched: no hooks, no copies, no changed weights.
Each operation returns its ordinary value, and carries as its "gradient" the rule by which it shares relevance:
kernels (convolution, dense) by the composite, activations pass it on, pooling and reshaping by their gradient, sums
and averages in proportion to their parts. An operation nobody has written a rule for is an error that names it.

The gradient graph of this forward pass carries relevance in place of derivatives, so relevance cannot be
differentiated through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.values import PlanLine
from heatprint.explainers.kernels import Conv2d, Dense, Kernel, conv2d_kernel
from heatprint.explainers.rules import Rule, safe_divide

Share = Callable[[tuple[Tensor, ...], Tensor, Tensor], tuple[Tensor | None, ...]]


@dataclass(frozen=True, kw_only=True)
class Composite:
    """Which kernel gets which rule.

    Attributes:
        conv: Convolutions.
        dense: Dense layers.
        first: Kernels that read the network's input itself; None treats them like the others.
    """

    conv: Rule
    dense: Rule
    first: Rule | None = None

    def rule(self, kernel: Kernel, is_first: bool) -> Rule:
        """The rule of one kernel."""
        if is_first and self.first is not None:
            return self.first
        return self.dense if isinstance(kernel, Dense) else self.conv


@dataclass
class Tape:
    """What one explanation recorded on its way: the plan forward, relevance per layer backward."""

    plan: list[PlanLine] = field(default_factory=list)
    totals: dict[str, Tensor] = field(default_factory=dict)
    wanted: Mapping[str, bool] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)


def propagate(
    network: nn.Module,
    inputs: Tensor,
    target: Tensor,
    composite: Composite,
    *,
    layers: Sequence[str] = (),
) -> tuple[Tensor, Tensor, Tape]:
    """Relevance of the inputs for one logit each; the start value is that logit.

    Args:
        network: Inputs to logits [N, K]; in evaluation mode.
        inputs: The network's own (normalised) inputs [N, 3, H, W].
        target: Class to explain, int64 [N].
        composite: The rules.
        layers: Names of kernels whose outputs' relevance is kept, or ``"last"`` for the inputs of the last kernel:
            the neurons of the last hidden layer.

    Returns:
        Relevance [N, 3, H, W], the logits [N, K], and the tape.

    Raises:
        Unsupported: An operation without a rule; the message names it.
    """
    leaf = inputs.detach().clone().requires_grad_(True)
    tape = Tape(wanted=dict.fromkeys(layers, True))
    with torch.enable_grad(), _Watch(network, leaf, composite, tape):
        logits = network(leaf)
    _check_layers(layers, tape)
    start = torch.zeros_like(logits).scatter(1, target[:, None], logits.detach().gather(1, target[:, None]))
    (relevance,) = torch.autograd.grad(logits, leaf, start)
    return relevance, logits.detach(), tape


def _check_layers(layers: Sequence[str], tape: Tape) -> None:
    known = [line.layer for line in tape.plan if line.layer]
    for name in layers:
        if name != "last" and name not in known:
            raise InvalidInput(f"lrp: there is no layer {name!r}. Layers: last, {', '.join(known)}.")


class _Shared(torch.autograd.Function):
    """A value whose backward pass is a rule."""

    @staticmethod
    def forward(ctx: Any, share: Share, value: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """The ordinary value."""
        ctx.share = share
        out = value(*inputs)
        ctx.save_for_backward(*inputs, out)
        return out

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        """The inputs' relevance."""
        *inputs, out = ctx.saved_tensors
        return (None, None, *ctx.share(tuple(inputs), out, relevance[0]))


class _Watch(TorchFunctionMode):
    """Replaces each operation on tensors that carry relevance by one that knows how to share it."""

    def __init__(self, network: nn.Module, leaf: Tensor, composite: Composite, tape: Tape) -> None:
        super().__init__()
        self._names = {id(p): n.rpartition(".")[0] for n, p in network.named_parameters()}
        self._raw = {id(leaf): leaf}  # the input itself, also reshaped; held, so that ids stay theirs
        self._composite = composite
        self._tape = tape
        self._last: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(_carries(a) for a in _flat((args, tuple(kwargs.values())))):
            return func(*args, **kwargs)
        if func in _KERNELS:
            return self._kernel(*_KERNELS[func](*args, **kwargs))
        if func in _PASSED:
            return self._pass(func, args, kwargs)
        if func in _SUMS:
            return self._sum(*args[:2], **kwargs)
        if func in _DIFFERENCES and not _carries(args[1]):
            return self._sum(args[0], -args[1])
        if func in _SCALED:
            return self._scale(func, args, kwargs)
        if func in _AVERAGES:
            return self._average(func, args, kwargs)
        if func in _BY_GRADIENT:
            return self._by_gradient(func, args, kwargs)
        out = func(*args, **kwargs)
        if any(_carries(o) for o in _flat(out)):
            raise Unsupported(
                f"lrp: there is no rule for the operation {_name(func)!r}. Rules exist for: "
                f"{', '.join(sorted({_name(f) for f in _ALL}))}. "
                + (
                    "Batch norm is folded into the convolution before it when the network can be traced; this one "
                    "stands elsewhere."
                    if "batch_norm" in _name(func)
                    else "Rewrite the layer with these."
                )
            )
        return out

    def _kernel(self, kernel: Kernel, x: Tensor) -> Tensor:
        first = id(x) in self._raw
        rule = self._composite.rule(kernel, first)
        name = self._named(kernel)
        tape = self._tape

        def share(inputs: tuple[Tensor, ...], z: Tensor, r: Tensor) -> tuple[Tensor | None, ...]:
            shared = rule.share(kernel, inputs[0], z, r)
            tape.totals[name] = r.detach().flatten(1).sum(1)
            if name in tape.wanted:
                tape.kept[name] = r
            if "last" in tape.wanted and name == self._last[-1]:
                tape.kept["last"] = shared
            if first:
                tape.totals["input"] = shared.detach().flatten(1).sum(1) + tape.totals.get("input", 0)
            return (shared,)

        self._last.append(name)
        tape.plan.append(PlanLine(layer=name, operator=kernel.kind, rule=repr(rule)))
        return _apply(share, lambda t: _value(kernel, t), x)

    def _named(self, kernel: Kernel) -> str:
        name = self._names.get(id(kernel.weight)) or kernel.kind
        uses = sum(line.layer.partition("#")[0] == name for line in self._tape.plan)
        return f"{name}#{uses + 1}" if uses else name

    def _pass(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Activations: the relevance of the output is that of the input."""
        kwargs = {k: v for k, v in kwargs.items() if k not in ("inplace", "input")} | {}
        x, rest = args[0], args[1:]
        forward = _OUT_OF_PLACE.get(func, func)
        self._note(func, "pass")
        return _apply(lambda _, __, r: (r,), lambda t: forward(t, *_without_inplace(func, rest), **kwargs), x)

    def _sum(self, a: Any, b: Any, *, alpha: float = 1, out: None = None, **_: Any) -> Tensor:
        """Residual additions: shared in proportion to the summands; a constant keeps its share."""
        del out
        self._note(torch.add, "z")
        if alpha != 1:
            raise Unsupported("lrp: there is no rule for add(..., alpha=...); scale the summand before.")
        tensors = [t if isinstance(t, Tensor) else torch.as_tensor(t) for t in (a, b)]
        carrying = [t for t in tensors if _carries(t)]
        if any(t.shape != max((u.shape for u in tensors), key=len) for t in carrying):
            raise Unsupported("lrp: there is no rule for a sum that broadcasts an activation; expand it before.")
        constant = sum((t for t in tensors if not _carries(t)), torch.zeros((), dtype=carrying[0].dtype))
        constant = constant.to(carrying[0].device)

        def share(inputs: tuple[Tensor, ...], z: Tensor, r: Tensor) -> tuple[Tensor | None, ...]:
            part = safe_divide(r, z)
            return tuple(x * part for x in inputs)

        return _apply(share, lambda *ts: sum(ts[1:], ts[0]) + constant, *carrying)

    def _scale(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Multiplication with a constant: linear without a bias, so relevance passes."""
        carrying = [a for a in args if _carries(a)]
        if len(carrying) != 1 or (func in _DIVISIONS and not _carries(args[0])):
            raise Unsupported(f"lrp: there is no rule for {_name(func)!r} of two activations.")
        self._note(func, "pass")
        place = next(i for i, a in enumerate(args) if a is carrying[0])
        forward = _OUT_OF_PLACE.get(func, func)
        return _apply(
            lambda _, __, r: (r,), lambda t: forward(*args[:place], t, *args[place + 1 :], **kwargs), carrying[0]
        )

    def _average(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Averages are linear: the z rule."""
        self._note(func, "z")
        rest = args[1:]

        def share(inputs: tuple[Tensor, ...], z: Tensor, r: Tensor) -> tuple[Tensor | None, ...]:
            twin = inputs[0].detach().requires_grad_(True)
            with torch.enable_grad():
                out = func(twin, *rest, **kwargs)
            (back,) = torch.autograd.grad(out, twin, safe_divide(r, z))
            return (inputs[0] * back,)

        return _apply(share, lambda t: func(t, *rest, **kwargs), args[0])

    def _by_gradient(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Reshaping, routing and the largest of a window: relevance goes where the value came from."""
        self._note(func, "gradient")
        out = func(*args, **kwargs)
        if func in _RESHAPES and id(args[0]) in self._raw and isinstance(out, Tensor):
            self._raw[id(out)] = out
        return out

    def _note(self, func: Callable[..., Any], rule: str) -> None:
        self._tape.plan.append(PlanLine(layer="", operator=_name(func), rule=rule))


def _value(kernel: Kernel, x: Tensor) -> Tensor:
    if isinstance(kernel, Dense):
        return F.linear(x, kernel.weight, kernel.bias)
    return F.conv2d(x, kernel.weight, kernel.bias, kernel.stride, kernel.padding, kernel.dilation, kernel.groups)


def _apply(share: Share, value: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    out: Tensor = _Shared.apply(share, value, *inputs)
    return out


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and value.is_floating_point()


def _flat(values: Any) -> list[Any]:
    if isinstance(values, tuple | list):
        return [item for value in values for item in _flat(value)]
    return [values]


def _name(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__name__", func))


def _without_inplace(func: Callable[..., Any], rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """Positional arguments of an activation after its input, less the in-place flag."""
    return () if func is F.relu else rest


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Kernel, Tensor]:
    return Dense(weight, bias), input


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Conv2d, Tensor]:
    return conv2d_kernel(weight, bias, stride, padding, dilation, groups), input


T = torch.Tensor
_KERNELS: dict[Any, Callable[..., tuple[Kernel, Tensor]]] = {F.linear: _linear, F.conv2d: _conv2d}
_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    T.relu_: torch.relu, torch.relu_: torch.relu, F.relu: torch.relu,
    T.mul_: torch.mul, T.__imul__: torch.mul, T.div_: torch.div, T.__itruediv__: torch.div,
}  # fmt: skip
_PASSED = {F.relu, torch.relu, torch.relu_, T.relu, T.relu_, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.dropout,
           F.dropout2d, torch.dropout}  # fmt: skip
_SUMS = {torch.add, T.add, T.add_, T.__add__, T.__iadd__, T.__radd__}
_DIFFERENCES = {torch.sub, T.sub, T.sub_, T.__sub__, T.__isub__}  # of a constant only
_DIVISIONS = {torch.div, T.div, T.div_, T.__truediv__, T.__itruediv__}
_SCALED = {torch.mul, T.mul, T.mul_, T.__mul__, T.__imul__, T.__rmul__, torch.neg, T.neg, T.__neg__, *_DIVISIONS}
_AVERAGES = {F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, T.mean}
_RESHAPES = {torch.flatten, T.flatten, T.reshape, torch.reshape, T.view, T.permute, torch.permute, T.contiguous,
             torch.squeeze, T.squeeze, torch.unsqueeze, T.unsqueeze, T.transpose, torch.transpose}  # fmt: skip
_BY_GRADIENT = {*_RESHAPES, F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, torch.cat, T.clone, torch.clone,
                T.__getitem__, torch.chunk, T.chunk, torch.split, T.split, F.pad, T.expand, T.to}  # fmt: skip
_ALL = {*_KERNELS, *_PASSED, *_SUMS, *_DIFFERENCES, *_SCALED, *_AVERAGES, *_BY_GRADIENT}
