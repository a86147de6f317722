"""What LIME, KernelSHAP and Anchors share: superpixels, fills, seeds, and the way back to a map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers.draws import generators
from heatprint.explainers.fills import Fill, check_fill
from heatprint.explainers.masks.engine import MaskedImage, hidden
from heatprint.explainers.masks.segments import Kind, label_map
from heatprint.explainers.target import refuse_layers, score

MOST = 4096  # superpixels; to tell more apart would take tens of thousands of masks, and gigabytes


@dataclass(frozen=True, kw_only=True)
class Superpixels(ABC):
    """A method that weighs the superpixels of one image; the settings all of them have.

    Attributes:
        segmentation: How superpixels are found, see `heatprint.explainers.masks.segments.Kind`.
        segments: How many superpixels at most, 4 to `MOST`.
        fill: What an off superpixel shows, see `heatprint.explainers.fills`; ``"mean"`` is that of each superpixel.
        seed: Of the random masks; an image's masks depend on it and on the image alone.
        at_once: One image at a time is handed over by `explain`, so that progress is seen.
    """

    at_once: ClassVar[int] = 1

    segmentation: Kind = "slic"
    segments: int = 50
    fill: Fill = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fill(f"{type(self).__name__}: fill", self.fill)
        if self.segmentation not in get_args(Kind) or not 4 <= self.segments <= MOST:
            raise InvalidInput(
                f"{type(self).__name__}: segmentation = {self.segmentation!r} must be one of "
                f"{', '.join(get_args(Kind))}; segments = {self.segments} 4 or more and at most {MOST}, e.g. 50."
            )

    @abstractmethod
    def weigh(self, masked: MaskedImage, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        """The weight of each superpixel, [S], and what the method says of its own answer."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers(type(self).__name__, layers)
        inputs = inputs.detach()
        maps, facts = [], []
        for row, rng in enumerate(generators(self.seed, type(self).__name__, inputs)):
            masked = self._masked(classifier, inputs[row], target[row : row + 1])
            weights, said = self.weigh(masked, rng)
            maps.append(masked.spread(weights))
            facts.append(said)
        with torch.no_grad():
            value = score(classifier.network(inputs.clone()), target)
        told = {name: inputs.new_tensor([said[name] for said in facts]) for name in facts[0]}
        return Explained(ids=(), relevance=torch.stack(maps), target=target, score=value, facts=told), {}

    def _masked(self, classifier: Classifier, image: Tensor, target: Tensor) -> MaskedImage:
        labels = label_map(classifier, image, self.segmentation, self.segments)
        fill = hidden(self.fill, classifier, image, labels)
        return MaskedImage(classifier=classifier, image=image, labels=labels, fill=fill, target=target)
