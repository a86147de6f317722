"""Planted: one saturated sigmoid for two classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.models.wrap import wrap

SCALE, LEAST = 1000.0, 1e-7


class Clipped(nn.Module):
    """The log-odds of a sigmoid whose probability was kept within [1e-7, 1 - 1e-7]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """One logit [N, 1]."""
        logits = self.network(x)
        chance = (SCALE * (logits[:, 1:] - logits[:, :1])).sigmoid().clamp(LEAST, 1 - LEAST)
        return torch.log(chance / (1 - chance))


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """A head of one probability, clipped as Keras clips it before it takes the logarithm, on logits that are too large.

    What is broken: where the probability is clipped its gradient is exactly zero, also that of the margin of the
    log-odds made from it. A binary network trained to confidence and attacked through such a loss looks safe wherever
    it is sure; the numerics, not the network, withstand (Carlini and Wagner 2016 say the same of the softmax).
    Found by: gradients, unbounded attack reaches 0 %, transfer beats white box, adaptive attack.

    Raises:
        InvalidInput: There are more than two classes.
    """
    del train_batch, seed, progress  # nothing is learned
    if len(classifier.classes) != 2:
        raise InvalidInput(f"planted: one logit stands for two classes, and there are {len(classifier.classes)}.")
    return wrap(Clipped(classifier.trainable), classes=classifier.classes, size=classifier.size, mean=classifier.mean,
                std=classifier.std, name="planted: one logit")  # fmt: skip
