"""The deconvolutional network: activations sent back to the image through rectified transposed filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.values import Explained
from heatprint.explainers.gradients.gradient import input_gradient
from heatprint.explainers.gradients.rectifiers import Rectifiers
from heatprint.explainers.target import refuse_layers


@dataclass(frozen=True, kw_only=True)
class DeconvNet:
    """The gradient that passes a ReLU only where it is positive, whatever the input was (Zeiler & Fergus 2014).

    Section 2.1 of the paper: unpooling by the switches of the forward pass, rectification, transposed filters. That
    is an ordinary backward pass with R = max(g, 0) at each ReLU (Springenberg et al. 2015, figure 1). Here it starts
    from the score of a class in place of one feature map's activation. Networks that call another activation
    function by name (`heatprint.explainers.gradients.rectifiers.NOT_RELU`) are refused, and so are parts in
    TorchScript, which hides what it calls; an activation spelled out in arithmetic passes by its gradient. Cost: one
    forward and one backward pass.
    """

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("deconvnet", layers)
        with Rectifiers("deconvnet", classifier.network, _rectified):
            relevance, value = input_gradient(classifier, inputs, target)
        return Explained(ids=(), relevance=relevance, target=target, score=value), {}


def _rectified(gradient: Tensor, positive: Tensor) -> Tensor:
    del positive
    return gradient.relu()
