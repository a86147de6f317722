"""The LRP signature: relevance of a layer's neurons, as a vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.explainers import EXPLAINERS
from heatprint.explainers.lrp.explainer import LRP


@dataclass(frozen=True, kw_only=True)
class RelevanceSignature:
    """Relevance for the predicted class at a layer (Klawikowska et al. 2020, section 4.1; Fidel et al. 2020).

    Attributes:
        layer: ``"last"``: the neurons of the last hidden layer; ``"input"``: one value per pixel; or a layer's name
            as the rule plan prints it: one value per channel of its output, summed over positions, so that relevance
            is conserved.
        method: An ``lrp.`` explainer.
    """

    layer: str = "last"
    method: str = "lrp.sequential_preset_a_flat"

    def __post_init__(self) -> None:
        if not issubclass(EXPLAINERS.load(self.method), LRP):
            raise InvalidInput(f"RelevanceSignature: {self.method!r} knows no layers; write an 'lrp.' method.")

    def sign(self, classifier: Classifier, images: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Signer`."""
        inputs = classifier.normalise(images)
        with torch.no_grad():
            target = classifier.network(inputs).argmax(1)
        layers = () if self.layer == "input" else (self.layer,)
        explained, kept = EXPLAINERS.make(self.method).attribute(classifier, inputs, target, layers=layers)
        if self.layer == "input":
            return explained.heat.flatten(1)
        relevance = kept[self.layer]
        return relevance.flatten(2).sum(2) if relevance.ndim > 2 else relevance
