"""The gradient of a logit, plain and times the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers.target import score


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """d logit / d input (Simonyan et al. 2014): how the logit would move, not what it is made of."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        gradient, value = _gradient(classifier, inputs, target, layers)
        return Explained(ids=(), relevance=gradient, target=target, score=value), {}


@dataclass(frozen=True, kw_only=True)
class InputTimesGradient:
    """input * d logit / d input (Shrikumar et al. 2017): equals LRP-0 on networks of ReLU and max-pooling."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        gradient, value = _gradient(classifier, inputs, target, layers)
        return Explained(ids=(), relevance=inputs.detach() * gradient, target=target, score=value), {}


def _gradient(classifier: Classifier, inputs: Tensor, target: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    if layers:
        raise InvalidInput(f"gradient: attributes to the input only, not to {', '.join(layers)}; use an 'lrp.' method.")
    leaf = inputs.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = score(classifier.network(leaf), target)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return gradient, value.detach()
