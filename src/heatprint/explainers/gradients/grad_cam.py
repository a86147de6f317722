"""Grad-CAM: which places of a convolution's output the score rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.values import Explained
from heatprint.explainers.target import refuse_layers, score


@dataclass(frozen=True, kw_only=True)
class GradCAM:
    """ReLU of a layer's channels weighted by their mean gradient (Selvaraju et al. 2017, equations 1 and 2).

    The map of the layer's resolution is enlarged bilinearly to the image's, and a third of it is given to each
    colour, so that the sum over channels is Grad-CAM's map. It never is negative, and is not divided by its maximum.
    Cost: one forward pass and a backward pass down to the layer, and one forward pass of a single image.

    Attributes:
        layer: Name of a convolution, whose output is read before its activation; batch norm is folded into it where
            the network can be traced. A convolution used again is called ``name#2``. None takes the last one of the
            forward pass.
    """

    layer: str | None = None

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("grad_cam", layers)
        inputs = inputs.detach()
        layer = self._layer(classifier.network, inputs[:1])
        # the graph begins at the layer's output, so nothing below it is kept
        watch = _Convolutions(classifier.network, layer)
        with torch.enable_grad(), watch:
            value = score(classifier.network(inputs.clone()), target)
        activation = watch.output
        assert activation is not None
        weights = _gradient(value, activation).mean((2, 3), keepdim=True)
        small = (weights * activation.detach()).sum(1, keepdim=True).relu()
        heat = F.interpolate(small, size=inputs.shape[2:], mode="bilinear", align_corners=False)
        relevance = (heat / 3).expand(-1, 3, -1, -1).contiguous()
        return Explained(ids=(), relevance=relevance, target=target, score=value.detach()), {}

    def _layer(self, network: nn.Module, image: Tensor) -> str:
        """The name of the convolution that is read."""
        watch = _Convolutions(network)
        with torch.no_grad(), watch:
            network(image.clone())
        if not watch.names:
            raise Unsupported("grad_cam: the network has no convolution. Use 'input_t_gradient' or an 'lrp.' method.")
        if self.layer is None:
            return watch.names[-1]
        if self.layer not in watch.names:
            raise InvalidInput(
                f"grad_cam: layer = {self.layer!r} is no convolution of this network. Write one of "
                f"{', '.join(watch.names)}, or leave it out for the last."
            )
        return self.layer


class _Convolutions(TorchFunctionMode):
    """Sees every 2-d convolution by the parameter it is called with, as a module or as a function.

    Attributes:
        names: Of the convolutions seen, in the order of the forward pass.
        output: What the wanted one returned; the graph begins here.
    """

    def __init__(self, network: nn.Module, wanted: str | None = None) -> None:
        super().__init__()
        self._layers = {id(p): name.rpartition(".")[0] for name, p in network.named_parameters()}
        self._wanted = wanted
        self.names: list[str] = []
        self.output: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation itself; after the wanted convolution a copy of what is kept, which may be written into."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is not F.conv2d:
            return out
        name = self._named(kwargs["weight"] if "weight" in kwargs else args[1])
        self.names.append(name)
        if name != self._wanted:
            return out
        self.output = out.detach().requires_grad_(True)
        return self.output.clone()

    def _named(self, weight: Tensor) -> str:
        name = self._layers.get(id(weight)) or "conv2d"
        uses = sum(seen.partition("#")[0] == name for seen in self.names)
        return f"{name}#{uses + 1}" if uses else name


def _gradient(value: Tensor, activation: Tensor) -> Tensor:
    """Of the score; zero where it does not depend on the activation."""
    if not value.requires_grad:
        return torch.zeros_like(activation)
    (gradient,) = torch.autograd.grad(value.sum(), activation, allow_unused=True, materialize_grads=True)
    return gradient
