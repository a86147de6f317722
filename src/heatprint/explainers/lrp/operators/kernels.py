"""Convolutions and dense layers: shared by the composite's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import Unsupported
from heatprint.explainers.lrp.kernels import Kernel, conv, conv_transpose, dense
from heatprint.explainers.lrp.tape import Tape

Made = Callable[..., tuple[Kernel, Tensor]]


def _handler(make: Made) -> Callable[..., Tensor]:
    def run(tape: Tape, watch: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        with watch:  # explicit padding, where it is needed, is an operation of its own
            kernel, x = make(*args, **kwargs)
        return kernel_on_tape(tape, kernel, x)

    return run


def kernel_on_tape(tape: Tape, kernel: Kernel, x: Tensor) -> Tensor:
    """Apply a kernel, and record it with the composite's rule for it."""
    if not tape.carries(x) or tape.carries(kernel.weight):
        raise Unsupported(f"lrp: there is no rule for a {kernel.kind} layer whose weight depends on the image.")
    first, number = tape.is_raw(x), len(tape.kernels)
    name = tape.layer_of(kernel.weight) or kernel.kind
    rule = tape.composite.rule(kernel.kind, first, name, number)
    if rule is None:
        raise Unsupported(f"lrp: no line of the composite matches layer {name!r} ({kernel.kind}, number {number}).")
    out = kernel.forward(x, kernel.weight, kernel.bias)
    z, nonnegative = out if rule.uses_output else None, tape.is_nonnegative(x)

    def share(r: Tensor) -> tuple[Tensor]:
        return (rule.share(kernel, x, z, r, nonnegative),)

    node = tape.record(
        kernel.kind,
        repr(rule),
        [x],
        [out],
        share,
        weight=kernel.weight,
        epsilon=getattr(rule, "epsilon", None),
        bias=getattr(rule, "bias", ""),
    )
    tape.kernels.append((node.name, node.inputs[0]))
    return out


TABLE: dict[Any, Callable[..., Any]] = {
    F.linear: _handler(dense),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _handler(conv)),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _handler(conv_transpose)),
}
