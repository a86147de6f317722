"""Baselines that explain nothing: what the network computes, without asking what it relied on.

The full LRP and SHAP signatures of the last layer are rescaled activations, so whatever is claimed for them must be
compared with these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.explainers.gradients.shap_last import last_neurons


@dataclass(frozen=True, kw_only=True)
class ActivationSignature:
    """The activations of the last hidden layer, as the last linear layer reads them."""

    def sign(self, classifier: Classifier, images: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Signer`.

        Raises:
            Unsupported: The logits are not the output of a linear layer on vectors.
        """
        return last_neurons(classifier, images)[0]


@dataclass(frozen=True, kw_only=True)
class LogitSignature:
    """The logits."""

    def sign(self, classifier: Classifier, images: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Signer`."""
        with torch.no_grad():
            return classifier(images)
