"""The LRP signature: relevance of a layer's neurons, as a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.explainers import EXPLAINERS
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.explainers.lrp.explainer import LRP
from heatprint.explainers.target import choose, contrast
from heatprint.signatures.maps import pool

What = Literal["predicted", "every", "contrast"]
"""Which logits a signature explains: the predicted class's, each one by itself, or the predicted minus the second."""


@dataclass(frozen=True, kw_only=True)
class RelevanceSignature:
    """Relevance at a layer (Klawikowska et al. 2020, section 4.1; after the SHAP signatures of Fidel et al. 2020).

    The signature of every class at the last layer is never written out. By LRP-0 (Bach et al. 2015, eq. 56) neuron j
    has for class c the relevance a_j w_cj, so that the Euclidean distance of two images over all K D values is
    exactly that of the D values a_j ||w_:j||: these are returned. Here the rules of `method`, and so its epsilon, are
    left out.

    Attributes:
        layer: ``"last"``: the neurons of the last hidden layer, which the last dense or convolutional layer reads;
            ``"penultimate"``: those that the last but one reads; ``"input"``: the pixels, their channels added up; or
            the name of a layer or block as the rule plan prints it. Of maps there is one value per channel, summed
            over positions. Sums conserve relevance.
        method: An ``lrp.`` explainer.
        explained: ``"predicted"``; ``"contrast"``: the predicted class minus the runner-up; or ``"every"``: one
            signature per class, joined to K D values, but D at the last layer.
        side: For the input: side in pixels of the map that is kept, pooled by sums. 0 keeps every pixel; images that
            are no larger than `side` keep their own size.
    """

    layer: str = "last"
    method: str = "lrp.sequential_preset_a_flat"
    explained: What = "predicted"
    side: int = 0

    def __post_init__(self) -> None:
        if not issubclass(EXPLAINERS.load(self.method), LRP):
            raise InvalidInput(f"RelevanceSignature: {self.method!r} knows no layers; write an 'lrp.' method.")
        check_explained("RelevanceSignature", self.explained)
        if self.side < 0 or (self.side and self.layer != "input"):
            raise InvalidInput(
                f"RelevanceSignature: side = {self.side} at layer {self.layer!r}; a side is 0 or more, and only "
                "layer='input' has one."
            )

    def sign(self, classifier: Classifier, images: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Signer`."""
        method, inputs = EXPLAINERS.make(self.method), classifier.normalise(images)
        assert isinstance(method, LRP)
        if self.explained == "every":
            if self.layer == "last":
                hidden, weight, _ = last_neurons(classifier, images)
                return hidden * weight.square().sum(0).sqrt()
            return method.every_class(classifier, inputs, layer=self.layer, read=self._vectors).flatten(1)
        with torch.no_grad():
            target = asked(self.explained, classifier.network(inputs))
        layers = () if self.layer == "input" else (self.layer,)
        explained, kept = method.attribute(classifier, inputs, target, layers=layers)
        return self._vectors(kept[self.layer] if layers else explained.relevance)

    def _vectors(self, relevance: Tensor) -> Tensor:
        """Relevance [N, D] or [N, C, ...] as vectors."""
        if self.layer != "input":
            return relevance.flatten(2).sum(2) if relevance.ndim > 2 else relevance
        heat = relevance.sum(1)
        return (pool(heat, self.side) if 0 < self.side < min(heat.shape[1:]) else heat).flatten(1)


def check_explained(who: str, explained: str) -> None:
    """Refuse what no signature explains.

    Raises:
        InvalidInput: With what can be asked for.
    """
    if explained not in get_args(What):
        raise InvalidInput(f"{who}: explained = {explained!r}; write one of {', '.join(get_args(What))}.")


def asked(explained: What, logits: Tensor) -> Tensor:
    """What is explained: the predicted classes, int64 [N], or the contrast's weighting of the logits [N, K]."""
    predicted = logits.argmax(1)
    if explained == "predicted":
        return predicted
    return contrast(predicted, choose("runner-up", logits, predicted)[0], logits)
