"""Planted: only the largest activations are passed on."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.defences.planted.swap import swapped
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models.train import train
from heatprint.models.wrap import wrap

SHARE, EPOCHS = 0.1, 6


class Winners(nn.Module):
    """Of each image's activations the largest tenth; the others are zero."""

    def forward(self, x: Tensor) -> Tensor:
        """As the input."""
        flat = x.flatten(1)
        least = flat.topk(math.ceil(SHARE * flat.shape[1]), dim=1).values[:, -1]
        return torch.where(x >= least.view(-1, *[1] * (x.ndim - 1)), x, 0)


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """k-winners-take-all in place of every ReLU, then trained on (Xiao, Zhong and Zheng 2020).

    What is broken: the function jumps whenever another activation wins, densely enough that its gradient says little
    of what a step will do. Its authors reported 50 % on CIFAR-10 where the attack was gradient descent; averaging the
    loss over random points near the image brought it to zero (Tramèr et al. 2020, sec. 5).
    Found by: gradient and finite differences, adaptive attack.
    """
    start = wrap(swapped(classifier.trainable, nn.ReLU, lambda _: Winners()), classes=classifier.classes,
                 size=classifier.size, mean=classifier.mean, std=classifier.std)  # fmt: skip
    how = replace(FINE_TUNE, lr=2e-3, stages=((EPOCHS, classifier.size),))
    found, _ = train(start, train_batch, how, seed=seed, name="planted: winners", progress=progress)
    return found
