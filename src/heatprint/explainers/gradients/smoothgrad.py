"""SmoothGrad: the gradient averaged over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers.draws import generators
from heatprint.explainers.gradients.gradient import gradients_of_copies
from heatprint.explainers.target import refuse_layers, score


@dataclass(frozen=True, kw_only=True)
class SmoothGrad:
    """The mean gradient over copies of the image with Gaussian noise (Smilkov et al. 2017, section 3).

    The noise is drawn in pixels and handed on as the network's input, so that a map does not depend on how the input
    is normalised; where all channels have the same deviation this is the paper's noise. A constant image has no range
    and so gets no noise: its map is the plain gradient. Cost: `samples` forward and backward passes, and one forward.

    Attributes:
        noise: Standard deviation of the noise as a fraction of the image's range (largest less smallest value), > 0.
            The paper recommends 0.1 to 0.2.
        samples: Noisy copies of each image, >= 1. The paper sees little gain beyond 50.
        square: Average the squared gradients instead (SmoothGrad-Squared, Hooker et al. 2019): no signs, less noise.
        seed: Of the noise. An image gets the same noise alone or in a batch.
    """

    noise: float = 0.15
    samples: int = 50
    square: bool = False
    seed: int = 0

    at_once: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if not 0 < self.noise < float("inf"):
            raise InvalidInput(f"SmoothGrad: noise = {self.noise} must be a fraction of the range above 0, e.g. 0.15.")
        if self.samples < 1:
            raise InvalidInput(f"SmoothGrad: samples = {self.samples} must be 1 or more, e.g. 50.")

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("smoothgrad", layers)
        inputs = inputs.detach()
        deviation = self._deviation(classifier, inputs)
        draws = generators(self.seed, "smoothgrad", inputs)

        def place(images: Tensor, copies: Tensor) -> Tensor:
            shape = (len(copies), *inputs.shape[1:])
            normal = np.stack([draws[image].standard_normal(shape) for image in images.tolist()])
            return inputs[images, None] + deviation[images, None] * torch.from_numpy(normal).to(inputs)

        relevance = torch.zeros_like(inputs)
        for images, _, gradients in gradients_of_copies(classifier, inputs, target, self.samples, place):
            relevance[images] += (gradients.square() if self.square else gradients).sum(1) / self.samples
        with torch.no_grad():
            value = score(classifier.network(inputs.clone()), target)
        return Explained(ids=(), relevance=relevance, target=target, score=value), {}

    def _deviation(self, classifier: Classifier, inputs: Tensor) -> Tensor:
        """Of the noise, at the network's input [N, 3, 1, 1]."""
        std = inputs.new_tensor(classifier.std).view(1, 3, 1, 1)
        pixels = inputs * std + inputs.new_tensor(classifier.mean).view(1, 3, 1, 1)
        spread = pixels.amax((1, 2, 3), keepdim=True) - pixels.amin((1, 2, 3), keepdim=True)
        return self.noise * spread / std
