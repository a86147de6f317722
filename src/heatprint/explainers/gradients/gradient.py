"""The gradient of a score, plain and times the input, and at many copies of an image in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.values import Explained
from heatprint.explainers.target import refuse_layers, score
from heatprint.models.predict import batch_size


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """d score / d input (Simonyan et al. 2014, equation 4): how the score would move, not what it is made of."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("gradient", layers)
        gradient, value = input_gradient(classifier, inputs, target)
        return Explained(ids=(), relevance=gradient, target=target, score=value), {}


@dataclass(frozen=True, kw_only=True)
class InputTimesGradient:
    """input * d score / d input (Shrikumar et al. 2017): equals LRP-0 on networks of ReLU and max-pooling."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("input_t_gradient", layers)
        gradient, value = input_gradient(classifier, inputs, target)
        return Explained(ids=(), relevance=inputs.detach() * gradient, target=target, score=value), {}


def input_gradient(classifier: Classifier, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient [N, 3, H, W] of the score, and the score [N]; zero where the score does not depend on the input."""
    leaf = inputs.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = score(classifier.network(leaf.clone()), target)  # a clone, so that a network may write into its input
    if not value.requires_grad:
        return torch.zeros_like(leaf).detach(), value
    (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True, materialize_grads=True)
    return gradient, value.detach()


def gradients_of_copies(
    classifier: Classifier,
    inputs: Tensor,
    target: Tensor,
    copies: int,
    place: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Gradients at several changed copies of each image, as many at a time as suit the device.

    Args:
        classifier: The classifier.
        inputs: Normalised images [N, 3, H, W].
        target: What is explained, for each image.
        copies: How many of each image.
        place: From images, int64 [n], and copies, int64 [c], to those copies [n, c, 3, H, W]. Each is asked for once,
            an image's copies in their order.

    Yields:
        Images, copies and the gradients there, [n, c, 3, H, W].
    """
    batch = batch_size(classifier)
    for images in torch.split(torch.arange(len(inputs), device=inputs.device), max(1, batch // copies)):
        for chosen in torch.split(torch.arange(copies, device=inputs.device), batch):
            changed = place(images, chosen)
            gradient, _ = input_gradient(
                classifier, changed.flatten(0, 1), target[images].repeat_interleave(len(chosen), 0)
            )
            yield images, chosen, gradient.view_as(changed)
