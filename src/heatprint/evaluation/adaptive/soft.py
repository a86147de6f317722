"""The detector's own columns with a gradient: exact forwards, softened backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import LEVELS, to_images, to_pixels
from heatprint.detectors.features import FEATURES
from heatprint.detectors.filters import median3, repeated
from heatprint.detectors.look import Look

SOFTENED = ("undo", "key", "margin", "image", "squeezing")
"""Families of features whose columns can be differentiated so."""


def soft_columns(
    classifier: Classifier, images: Tensor, families: Sequence[str], *, second_order: bool = False
) -> tuple[Tensor, Tensor]:
    """What the families measure of 8-bit images, with the graph that leads back to them.

    The values are those of `detectors.features.table.measure`; only the way back differs (backward pass differentiable
    approximation, Athalye, Carlini and Wagner 2018, section 4.1): a sign goes back as tanh, a rounding as the identity,
    a root near zero with a bounded slope, a JPEG file that the classifier is asked about as the image itself. A median
    goes back to the neighbour that it is. Columns that only count or compare have no gradient.

    Args:
        classifier: Who looks.
        images: float32 [N, 3, H, W] in [0, 1], on the 8-bit lattice, requiring a gradient.
        families: Of `SOFTENED`.
        second_order: Whether the slope of the margin, of which patterns are made, moves with the image, too (double
            backward); otherwise it is held where it is for this step.

    Returns:
        Columns float32 [N, columns], and logits [N, K].
    """
    look = _SoftLook(classifier, images, second_order=second_order)
    with _Softened():
        return torch.cat([FEATURES.make(family).measure(look).float() for family in families], 1), look.logits


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked(Classifier):
    """A classifier that keeps the graph where features ask it without one."""

    images: Tensor
    middle: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Logits; what was made of bytes, which have no graph, goes back as the median it is, or as the image."""
        with torch.enable_grad():
            if not images.requires_grad:
                near = self.middle if torch.equal(images, self.middle) else self.images
                images = images + near - near.detach()
            return super().__call__(images)


class _SoftLook(Look):
    """A look whose every part leads back to the images."""

    def __init__(self, classifier: Classifier, images: Tensor, *, second_order: bool) -> None:
        own = {field.name: getattr(classifier, field.name) for field in fields(Classifier)}
        middle = _Median.apply(images)
        super().__init__(_Asked(**own, images=images, middle=middle), to_pixels(images.detach()))
        self.__dict__["images"] = images
        self.__dict__["residual"] = images - middle
        logits = classifier(images)
        ordered = logits.sort(dim=1, descending=True, stable=True).values
        slope = torch.autograd.grad(
            (ordered[:, 0] - ordered[:, 1]).sum(), images, create_graph=second_order, retain_graph=True
        )[0]
        self.__dict__["_pass"] = (logits, slope[:, None])


class _Softened(TorchFunctionMode):
    """While it is entered, signs, roundings and roots have a useful way back."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation, or the same with another way back."""
        name = str(getattr(func, "__name__", "")).rstrip("_")
        if name in _WAYS_BACK and args and isinstance(args[0], Tensor) and args[0].requires_grad:
            with torch.no_grad():
                value, slope = _WAYS_BACK[name](args[0])
            return _Given.apply(args[0], value, slope)
        return func(*args, **(kwargs or {}))


def _sign(x: Tensor) -> tuple[Tensor, Tensor]:
    size = x.abs().flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1)).clamp_min(1e-12)
    return x.sign(), (1 - (x / size).tanh().square()) / size


def _round(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.round(), torch.ones_like(x)


def _sqrt(x: Tensor) -> tuple[Tensor, Tensor]:
    root = x.sqrt()
    return root, 0.5 / root.clamp_min(1 / LEVELS)


_WAYS_BACK: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {"sign": _sign, "round": _round, "sqrt": _sqrt}


class _Median(torch.autograd.Function):
    """The median over 3 x 3, whose gradient goes to the first of the nine that equals it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        """Of images on the 8-bit lattice."""
        pixels = to_pixels(images)
        middle = median3(pixels)
        ctx.save_for_backward(repeated(pixels), middle)
        return to_images(middle)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """To the neighbours; what falls on a repeated edge belongs to the edge."""
        wide, middle = ctx.saved_tensors
        height, width = middle.shape[2:]
        left, out = gradients[0].clone(), torch.zeros_like(wide, dtype=gradients[0].dtype)
        for i, j in ((i, j) for i in range(3) for j in range(3)):
            own = left * (wide[..., i : i + height, j : j + width] == middle)
            out[..., i : i + height, j : j + width] += own
            left -= own
        out[..., 1, :] += out[..., 0, :]
        out[..., -2, :] += out[..., -1, :]
        out[..., 1] += out[..., 0]
        out[..., -2] += out[..., -1]
        return out[..., 1:-1, 1:-1]


class _Given(torch.autograd.Function):
    """A value with a given slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        """The value."""
        del x
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Gradient times slope."""
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None
