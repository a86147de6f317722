"""Guided backpropagation: the gradient, less everything that would lower an active neuron's answer."""

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
class GuidedBackprop:
    """The gradient that passes a ReLU only where its input and the gradient are positive (Springenberg et al. 2015).

    Figure 1 of the paper: R = 1[x > 0] 1[g > 0] g. Sharp pictures, but they hardly depend on the upper layers'
    weights (Adebayo et al. 2018), nor much on the class: read them as what the lower layers see. Networks that call
    another activation function by name (`heatprint.explainers.gradients.rectifiers.NOT_RELU`) are refused, and so are
    parts in TorchScript, which hides what it calls; an activation spelled out in arithmetic passes by its gradient.
    Cost: one forward and one backward pass.
    """

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("guided_backprop", layers)
        with Rectifiers("guided_backprop", classifier.network, _guided):
            relevance, value = input_gradient(classifier, inputs, target)
        return Explained(ids=(), relevance=relevance, target=target, score=value), {}


def _guided(gradient: Tensor, positive: Tensor) -> Tensor:
    return gradient.relu() * positive
