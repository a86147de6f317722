"""Planted: dropout that is never switched off."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.defences.planted.swap import swapped
from heatprint.models.wrap import wrap

SHARE = 0.3


class AlwaysDropout(nn.Module):
    """Dropout in every mode, drawn anew at each call."""

    def forward(self, x: Tensor) -> Tensor:
        """As the input."""
        return F.dropout(x, SHARE, training=True)


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """Dropout before every dense layer, at test time too.

    What is broken: an attack that asks once follows the gradient of one draw and is judged by another, so it looks
    weak. Stochastic activation pruning (Dhillon et al. 2018) and random resizing (Xie et al. 2018) were published so;
    gradients averaged over draws brought both to zero (Athalye, Carlini and Wagner 2018).
    Found by: randomised output, adaptive attack.
    """
    del train_batch, seed, progress  # nothing is learned
    network = swapped(classifier.trainable, nn.Linear, lambda dense: nn.Sequential(AlwaysDropout(), dense))
    return wrap(network, classes=classifier.classes, size=classifier.size, mean=classifier.mean, std=classifier.std,
                name="planted: dropout")  # fmt: skip
