"""Any network as a `Classifier`: copied, frozen, in evaluation mode, checked for the usual mistakes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, ModelMismatch

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class TwoLogits(nn.Module):
    """A one-logit sigmoid head z as two logits (-z/2, z/2): the same probabilities, both classes explainable."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 2]."""
        half = self.network(x) * 0.5
        return torch.cat([-half, half], dim=1)


def wrap(
    network: nn.Module,
    *,
    classes: Sequence[str],
    size: int = 112,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    name: str = "model",
    architecture: str = "",
) -> Classifier:
    """A network that takes normalised images [N, 3, H, W] and returns logits [N, K].

    The network given is copied and never touched again.

    Args:
        network: The network; one logit for two classes is adapted to two.
        classes: Class names in logit order, two or more.
        size: Side of its input images in pixels.
        mean: Its normalisation, for images in [0, 1] (ImageNet: 0.485, 0.456, 0.406).
        std: Likewise (ImageNet: 0.229, 0.224, 0.225).
        name: How tables call it.
        architecture: Name in the zoo, if it is from there.

    Raises:
        InvalidInput: It returns probabilities, normalises its input itself while mean or std are given, their values
            are for 0..255 pixels, or names repeat.
        ModelMismatch: Its output does not fit the classes, or it cannot take images of this size.
    """
    classes = tuple(classes)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InvalidInput(f"wrap: classes must be two or more different names, got {classes}.")
    if max(mean) > 1 or min(std) <= 0 or max(std) > 2:
        raise InvalidInput(
            f"wrap: mean = {tuple(mean)}, std = {tuple(std)} are not for images in [0, 1]. "
            "Divide values meant for 0..255 pixels by 255."
        )
    inside = _normaliser(network)
    if inside and (any(mean) or any(s != 1 for s in std)):
        raise InvalidInput(
            f"wrap: the network normalises its input itself ({inside}), so mean and std would normalise it twice. "
            "Leave them out, or take that layer off."
        )
    trainable = copy.deepcopy(network).eval().requires_grad_(False)
    outputs = _probe(trainable, size)
    if outputs.shape[1] == 1 and len(classes) == 2:
        if isinstance(_last(trainable), nn.Sigmoid):
            raise InvalidInput("wrap: the network ends in a sigmoid. Pass it without that layer: logits are needed.")
        trainable = TwoLogits(trainable).eval()
    elif outputs.shape[1] != len(classes):
        raise ModelMismatch(
            f"wrap: the network returns {outputs.shape[1]} values for {len(classes)} classes "
            f"({', '.join(classes)}). Name as many classes as it has outputs."
        )
    elif bool((outputs >= 0).all() & ((outputs.sum(1) - 1).abs() < 1e-4).all()):
        raise InvalidInput(
            "wrap: the network returns probabilities (each row adds up to 1). Pass it without its last "
            "softmax: attacks and LRP need logits."
        )
    memory_format = _memory_format(trainable, size)
    return Classifier(
        network=_folded(trainable).to(memory_format=memory_format),
        trainable=trainable.to(memory_format=memory_format),
        memory_format=memory_format,
        classes=classes,
        size=size,
        mean=tuple(mean),
        std=tuple(std),
        name=name,
        architecture=architecture,
    )


def _probe(network: nn.Module, size: int) -> Tensor:
    first = next(network.parameters(), torch.zeros(()))
    images = torch.rand((4, 3, size, size), generator=torch.Generator().manual_seed(0)).to(first)
    try:
        with torch.no_grad():
            outputs = network(images)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ModelMismatch(
            f"wrap: the network cannot take images of {size}x{size} pixels ({error}). Name its input size: size=..."
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 4:
        came = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelMismatch(f"wrap: the network must return logits [N, K], got {came} for 4 images.")
    if not bool(outputs.isfinite().all()):
        raise ModelMismatch("wrap: the network returns values that are not finite; its weights are damaged.")
    return outputs


def _normaliser(network: nn.Module) -> str:
    """The name of a layer that subtracts a mean and divides by a deviation per channel, if the network has one."""
    for name, module in network.named_modules():
        statistics = [getattr(module, key, None) for key in ("mean", "std")]
        if all(v is not None and not callable(v) and _channels(v) in (1, 3) for v in statistics):
            return f"{name or 'network'}: {type(module).__name__}"
    return ""


def _channels(value: object) -> int:
    """How many numbers a statistic holds; 0 for anything else."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, list | tuple):
        return len(value)
    return int(isinstance(value, float))


def _last(network: nn.Module) -> nn.Module:
    return list(network.modules())[-1]


def _folded(network: nn.Module) -> nn.Module:
    """The network with batch norm folded into the convolutions before it, if it can be traced.

    A network that is made of others names them in `folds`: each is folded by itself.
    """
    inner = getattr(network, "folds", ())
    if inner:
        network = copy.deepcopy(network)
        for name in inner:
            part = getattr(network, name)
            made = nn.ModuleList(map(_folded, part)).eval() if isinstance(part, nn.ModuleList) else _folded(part)
            setattr(network, name, made)
        return network
    if any(isinstance(m, BATCH_NORMS) for m in network.modules()):
        try:
            folded = fuse(network)
        except (TraceError, TypeError, NameError, AttributeError, KeyError):
            return network  # control flow that depends on data: exact, only slower
        network = folded.eval().requires_grad_(False)
    return network


def _memory_format(network: nn.Module, size: int) -> torch.memory_format:
    """Channels-last, which is faster, unless the network reads its maps in a way that only the plain order allows."""
    first = next(network.parameters(), torch.zeros(()))
    images = torch.zeros((2, 3, size, size)).to(first).contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            copy.deepcopy(network).to(memory_format=torch.channels_last)(images)
    except RuntimeError:  # x.view(len(x), -1) of a map, above all
        return torch.contiguous_format
    return torch.channels_last
