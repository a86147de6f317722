"""Planted: probabilities where logits belong."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """A softmax left on the network, whose outputs are then taken for logits.

    What is broken: a loss takes a softmax of the softmax, whose gradient is nearly flat; many a network of the first
    defences ended in a softmax layer because that was the library's habit, and was attacked through it (Carlini and
    Wagner 2016 on distillation; AutoAttack flags it to this day). Found by: logits, not probabilities.

    `models.wrap` refuses such a network, so this one is put together by hand: it stands for those that come in by other
    ways, a softmax of one's own that a probe of four images does not show.
    """
    del train_batch, seed, progress  # nothing is learned
    return replace(
        classifier,
        network=nn.Sequential(classifier.network, nn.Softmax(dim=1)),
        trainable=nn.Sequential(classifier.trainable, nn.Softmax(dim=1)),
        name="planted: softmax",
        architecture="",
    )
