"""Another way back through every ReLU: what guided backpropagation and the deconvolutional network share.

A function mode watches the forward pass, so modules, `F.relu`, `torch.relu` and in-place `x.relu_()` are all covered
and nothing is left on the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heatprint.core.errors import Unsupported

Back = Callable[[Tensor, Tensor], Tensor]
"""From the gradient at a ReLU's output, and where its input was positive (bool), to the gradient at its input."""

# names, so that F.gelu, torch.tanh, Tensor.tanh and Tensor.tanh_ need no line each
NOT_RELU = frozenset({
    "celu", "clamp", "clamp_max", "clamp_min", "clip", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish",
    "hardtanh", "leaky_relu", "log_sigmoid", "logsigmoid", "maximum", "mish", "prelu", "relu6", "rrelu", "selu",
    "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold",
})  # fmt: skip


class Rectifiers(TorchFunctionMode):
    """While it is entered, every ReLU has this backward pass.

    Args:
        who: The method, for its messages.
        network: What will be run; parts in TorchScript are refused, since nobody can look inside. What `torch.compile`
            made is read like any other.
        back: The backward pass.

    Raises:
        Unsupported: An activation that is not a ReLU, by name; a part in TorchScript.
    """

    def __init__(self, who: str, network: nn.Module, back: Back) -> None:
        super().__init__()
        self._who = who
        self._back = back
        if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
            raise Unsupported(f"{who}: the network is TorchScript, which hides its activations. Pass the original.")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation, or ours where it is a ReLU."""
        kwargs = kwargs or {}
        if not any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        name = str(getattr(func, "__name__", func))
        if name in ("relu", "relu_"):
            x = args[0] if args else kwargs["input"]
            inplace = name == "relu_" or kwargs.get("inplace", False)
            return _Rectified.apply(x, self._back, inplace)
        if name.rstrip("_") in NOT_RELU:
            raise Unsupported(
                f"{self._who}: is defined for networks of ReLU, and this one computes {name.rstrip('_')!r}. "
                "Use 'gradient', 'smoothgrad' or 'integrated_gradients'."
            )
        return func(*args, **kwargs)


class _Rectified(torch.autograd.Function):
    """A ReLU whose backward pass is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back: Back, inplace: bool) -> Tensor:
        """max(x, 0), into x itself if asked."""
        ctx.back = back
        ctx.save_for_backward(x > 0)
        if inplace:
            ctx.mark_dirty(x)
            return x.relu_()
        return x.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """As given."""
        (positive,) = ctx.saved_tensors
        return ctx.back(gradients[0], positive), None, None
