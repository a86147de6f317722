"""Verification by interval bounds: a radius within which no image is answered otherwise, or "unknown"."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.models.predict import batch_size

ULP = 2.0**-52  # of float64, in which bounds are computed
SINGLE, SAFETY = 1e-6, 10  # what a margin must exceed for float32: relative to the logits, and times the gap seen
UNTRACEABLE = (fx.proxy.TraceError, TypeError, NameError, AttributeError, KeyError, ValueError, RuntimeError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Verified:
    """What interval bounds prove.

    Attributes:
        classes: int64 [N], the answers that are kept.
        radius: float64 [N], in the maximum norm, pixel values in [0, 1]: no image this near is answered otherwise. 0
            where nothing is proven. None where the network has something without bounds.
        unknown: What that is; empty where there is a radius.
    """

    classes: Tensor
    radius: Tensor | None
    unknown: str = ""


@torch.no_grad()
def verify(
    classifier: Classifier, pixels: Tensor, *, most: float = 0.1, halvings: int = 24, progress: Progress = silent
) -> Verified:
    """The largest radius that interval bound propagation proves, by halving (Gowal et al. 2018, section 3, eqs. 6, 9).

    The radius is proven, not the largest there is: every layer loosens the bounds, and a deep network that was not
    trained for it gets a tiny one. Below 1/255 it says nothing of stored images, which have no neighbour that near.

    Bounds hold for exact arithmetic: they are computed in float64 and widened by its rounding. The network that is run
    is usually float32; for what its rounding may do, a margin must exceed ten times the difference seen at the image
    and a millionth of the logits. That is a margin of safety, no proof.

    Args:
        classifier: Left as it is.
        pixels: uint8 [N, 3, H, W].
        most: Largest radius that is tried, above 0, at most 1.
        halvings: Of the interval from 0 to `most`; the radius is at most most / 2^halvings too small for these bounds.
        progress: Told after each batch.

    Raises:
        InvalidInput: A number out of range.
    """
    if not 0 < most <= 1 or halvings < 1:
        raise InvalidInput(f"verify: most = {most} must be above 0 and at most 1, halvings = {halvings} 1 or more.")
    classes, radii, unknown = [], [], ""
    step = batch_size(classifier)
    for start in range(0, len(pixels), step):
        images = to_images(pixels[start : start + step].to(classifier.device))
        logits = classifier(images)
        classes.append(logits.argmax(1).cpu())
        if not unknown:
            try:
                radii.append(_halved(_Network(classifier), images, logits, most, halvings).cpu())
            except Unsupported as error:
                unknown = str(error)
        progress(min(start + step, len(pixels)), len(pixels))
    answers = torch.cat(classes) if classes else torch.empty(0, dtype=torch.long)
    if unknown:
        return Verified(classes=answers, radius=None, unknown=unknown)
    return Verified(classes=answers, radius=torch.cat(radii) if radii else torch.empty(0, dtype=torch.float64))


@torch.no_grad()
def logit_bounds(classifier: Classifier, images: Tensor, radius: float | Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the logits, each float64 [N, K], of all images in [0, 1] within a radius in the maximum norm.

    Args:
        classifier: Left as it is.
        images: float [N, 3, H, W] in [0, 1].
        radius: One for all, or one per image, [N]; pixel values in [0, 1].

    Raises:
        Unsupported: The network has something without bounds; says what.
    """
    box = _Network(classifier).logits(_around(images, torch.as_tensor(radius).expand(len(images))))
    return box.low, box.high


def _halved(network: _Network, images: Tensor, logits: Tensor, most: float, halvings: int) -> Tensor:
    """The largest proven radius of each image, float64 [N]."""
    labels = logits.argmax(1)
    exact = network.logits(_around(images, logits.new_zeros(len(images))))
    gap = torch.maximum(exact.high - logits, logits - exact.low).amax(1)
    size = logits.double().abs().amax(1)
    if not bool((gap <= 1e-2 * (1 + size)).all()):
        raise Unsupported("the traced network computes something else than the network; it decides while it runs")
    slack = SAFETY * gap + SINGLE * size

    def holds(radius: Tensor) -> Tensor:
        return network.margin(_around(images, radius), labels) > slack

    top = torch.full((len(images),), most, dtype=torch.float64, device=images.device)
    low, high = torch.zeros_like(top), top.clone()
    whole = holds(top)
    for _ in range(halvings):
        middle = (low + high) / 2
        proven = holds(middle)
        low, high = torch.where(proven, middle, low), torch.where(proven, high, middle)
    return torch.where(whole, top, low)


@dataclass(frozen=True, eq=False)
class Box:
    """Lower and upper bounds, float64, of one shape."""

    low: Tensor
    high: Tensor

    def each(self, run: Callable[[Tensor], Tensor]) -> Box:
        """Through a function that never falls, exactly: both ends."""
        return Box(run(self.low), run(self.high))

    def wider(self, terms: int, size: Tensor | None = None) -> Box:
        """Widened by so many roundings of numbers no larger than `size`; without it, than the ends themselves."""
        largest = torch.maximum(self.low.abs(), self.high.abs()) if size is None else size
        return Box(self.low - terms * ULP * largest, self.high + terms * ULP * largest)


def _around(images: Tensor, radius: Tensor) -> Box:
    centre, reach = images.double(), radius.to(images.device).double().view(-1, 1, 1, 1)
    return Box(centre - reach, centre + reach).wider(1).each(lambda end: end.clamp(0, 1))


class _Network(fx.Interpreter):
    """A classifier, from images in [0, 1] on, whose every operation is run on boxes."""

    def __init__(self, classifier: Classifier) -> None:
        kind = type(classifier.network).__name__
        try:
            traced = fx.symbolic_trace(copy.deepcopy(classifier.network).double().eval())
        except UNTRACEABLE as error:
            raise Unsupported(f"network {kind}: cannot be traced ({error})") from error
        super().__init__(traced)
        self.extra_traceback = False  # an error then says what we say
        statistics = (torch.tensor(v, dtype=classifier.dtype, device=classifier.device).view(1, 3, 1, 1).double()
                      for v in (classifier.mean, classifier.std))  # fmt: skip
        self._mean, self._std = statistics
        self._last: tuple[Box, nn.Linear, Box] | None = None

    def logits(self, images: Box) -> Box:
        """Bounds of the logits."""
        self._last = None
        out: Box = self.run(images.each(lambda end: (end - self._mean) / self._std).wider(2))
        return out

    def margin(self, images: Box, labels: Tensor) -> Tensor:
        """A lower bound of the label's logit less the largest other, float64 [N].

        Where a dense layer makes the logits, of its rows' differences, which is tighter (Gowal et al. 2018, eq. 9).
        """
        box = self.logits(images)
        if self._last is not None and self._last[2] is box:
            before, layer, _ = self._last
            less = layer.weight[labels][:, None] - layer.weight
            bias = None if layer.bias is None else layer.bias[labels][:, None] - layer.bias
            found = _linear(before, _rows, less, bias, layer.in_features).low
        else:
            found = _subtract(Box(*[end.gather(1, labels[:, None]) for end in (box.low, box.high)]), box).low
        return found.scatter(1, labels[:, None], math.inf).amin(1)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A layer, on boxes."""
        module = self.fetch_attr(target)
        rule = LAYERS.get(type(module))
        if rule is None or kwargs or len(args) != 1 or not isinstance(args[0], Box):
            raise Unsupported(f"layer {target!r} ({type(module).__name__}) has no interval bounds")
        out = rule(module, args[0])
        if out is None:
            raise Unsupported(f"layer {target!r} ({module}) has no interval bounds with these settings")
        if isinstance(module, nn.Linear):
            self._last = args[0], module, out
        return out

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation, on boxes and constants."""
        return _operation(getattr(target, "__name__", str(target)), args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Likewise, written behind a value."""
        return _operation(str(target), args, kwargs)


def _operation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Box:
    rule = OPERATIONS.get(name)
    allowed = {"flatten": {"start_dim", "end_dim"}, "cat": {"dim"}, "relu": {"inplace"}}.get(name, set())
    given = args[0] if name == "cat" else args
    known = rule is not None and set(kwargs) <= allowed and any(isinstance(value, Box) for value in given)
    out = rule(*args, **kwargs) if rule is not None and known else None
    if out is None:
        raise Unsupported(f"operation {name!r} has no interval bounds")
    return out


def _linear(box: Box, run: Callable[..., Tensor], weight: Tensor, bias: Tensor | None, terms: int) -> Box:
    """Through a linear map of so many terms: centre and reach (Gowal et al. 2018, eq. 6), widened by its roundings."""
    centre, reach = (box.low + box.high) / 2, (box.high - box.low) / 2
    middle, spread = run(centre, weight, bias), run(reach, weight.abs(), None)
    size = run(centre.abs() + reach, weight.abs(), None if bias is None else bias.abs())
    return Box(middle - spread, middle + spread).wider(terms + 8, size)


def _rows(vectors: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.einsum("nd,nkd->nk", vectors, weight.expand(len(vectors), -1, -1))
    return out if bias is None else out + bias


def _scaled(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return values * weight if bias is None else values * weight + bias


def _convolution(module: nn.Conv2d, box: Box) -> Box | None:
    if module.padding_mode != "zeros":
        return None
    run = partial(F.conv2d, stride=module.stride, padding=module.padding, dilation=module.dilation,
                  groups=module.groups)  # fmt: skip
    return _linear(box, run, module.weight, module.bias, module.weight[0].numel())


def _dense(module: nn.Linear, box: Box) -> Box:
    return _linear(box, F.linear, module.weight, module.bias, module.in_features)


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, box: Box) -> Box | None:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:  # it takes the batch's own
        return None
    shape = (1, -1) + (1,) * (box.low.ndim - 2)
    scale = (variance + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
    shift = torch.zeros_like(mean) if module.bias is None else module.bias
    centred = box.each(lambda end: end - mean.view(shape)).wider(1)
    return _linear(centred, _scaled, scale.view(shape), shift.view(shape), 1)


def _mean_pool(module: nn.AvgPool2d | nn.AdaptiveAvgPool2d, box: Box) -> Box | None:
    if getattr(module, "divisor_override", None) is not None:
        return None
    size: Tensor = module(torch.maximum(box.low.abs(), box.high.abs()))
    return box.each(module).wider(box.low.shape[2] * box.low.shape[3] + 4, size)


def _max_pool(module: nn.MaxPool2d, box: Box) -> Box | None:
    return None if module.return_indices else box.each(module)


def _add(one: Box | Tensor | float, other: Box | Tensor | float) -> Box:
    (low, high), (less, more) = _ends(one), _ends(other)
    return Box(low + less, high + more).wider(1)


def _subtract(one: Box | Tensor | float, other: Box | Tensor | float) -> Box:
    (low, high), (less, more) = _ends(one), _ends(other)
    return Box(low - more, high - less).wider(1)


def _multiply(one: Box | Tensor | float, other: Box | Tensor | float) -> Box:
    ends = [a * b for a in _ends(one) for b in _ends(other)]
    return Box(torch.stack(ends).amin(0), torch.stack(ends).amax(0)).wider(1)


def _divide(one: Box | Tensor | float, other: Box | Tensor | float) -> Box | None:
    return None if isinstance(other, Box) else _multiply(one, 1 / other).wider(1)


def _ends(value: Box | Tensor | float) -> tuple[Any, Any]:
    return (value.low, value.high) if isinstance(value, Box) else (value, value)


def _beside(boxes: Sequence[Box], dim: int = 0) -> Box | None:
    if not all(isinstance(box, Box) for box in boxes):
        return None
    return Box(torch.cat([box.low for box in boxes], dim), torch.cat([box.high for box in boxes], dim))


LAYERS: dict[type[nn.Module], Callable[[Any, Box], Box | None]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _dense,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda _, box: box.each(torch.relu),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _mean_pool,
    nn.AdaptiveAvgPool2d: _mean_pool,
    nn.Flatten: lambda module, box: box.each(module),
    nn.Dropout: lambda _, box: box,
    nn.Identity: lambda _, box: box,
}
"""What a layer makes of a box, in evaluation mode; None for settings without bounds."""

OPERATIONS: dict[str, Callable[..., Box | None]] = {
    **dict.fromkeys(("add", "iadd"), _add),
    **dict.fromkeys(("sub", "isub"), _subtract),
    **dict.fromkeys(("mul", "imul"), _multiply),
    **dict.fromkeys(("truediv", "div"), _divide),
    "neg": lambda box: Box(-box.high, -box.low),
    "relu": lambda box, inplace=False: box.each(torch.relu),
    "flatten": lambda box, *dims, **named: box.each(lambda end: end.flatten(*dims, **named)),
    "cat": _beside,
}
"""What an operation of functions and signs makes of boxes and constants, by its name."""
