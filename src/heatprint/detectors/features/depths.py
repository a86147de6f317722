"""What each activation of a network adds to the margin, at some depths of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier

# names, so that F.relu, torch.relu, Tensor.relu and Tensor.relu_ need no line each
ACTIVATIONS = frozenset({
    "celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "silu",
})  # fmt: skip


def at_depths(classifier: Classifier, images: Tensor, count: int) -> list[Tensor]:
    """Activation times slope of the margin, [N, ...] each, at so many activation functions.

    They are spread evenly over those that the network runs, the first and the last among them, so that networks of any
    depth give the same number; one may come twice. A network without any is asked at its input. One forward and one
    backward pass; nothing is left on the network.

    Args:
        classifier: Who is asked.
        images: float [N, 3, H, W] in [0, 1].
        count: How many, 2 or more.
    """
    with torch.enable_grad():
        source = images.detach().clone().requires_grad_()
        with _Recorder(len(images)) as recorder:
            logits = classifier(source)
        top = logits.topk(2, dim=1).values
    seen = recorder.seen or [source]
    chosen = [seen[round(step * (len(seen) - 1) / (count - 1))] for step in range(count)]
    slopes = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), chosen, materialize_grads=True)
    return [_by_image(values.detach() * slope, len(images)) for values, slope in zip(chosen, slopes, strict=True)]


class _Recorder(TorchFunctionMode):
    """Keeps the outputs of activation functions that hold the same number of values for each image."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if str(getattr(func, "__name__", "")).rstrip("_") in ACTIVATIONS and self._is_by_image(out):
            self.seen.append(out)
        return out

    def _is_by_image(self, out: Any) -> bool:
        return isinstance(out, Tensor) and out.requires_grad and out.shape[0] % self._images == 0


def _by_image(values: Tensor, images: int) -> Tensor:
    """Rows of one image side by side: windows of it may be rows of their own."""
    return values if len(values) == images else values.reshape(images, -1)
