"""Planted: defensive distillation at a high temperature."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.defences.distil import Distil
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models.wrap import wrap

TEMPERATURE, EPOCHS = 100.0, 2


class Scaled(nn.Module):
    """Logits times a number."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        logits: Tensor = self.scale * self.network(x)
        return logits


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """Defensive distillation (Papernot et al. 2016): a pupil learns the soft labels of a teacher at T = 100.

    What is broken: at test time the temperature is 1, so the logits are a hundred times as large, the softmax is
    exactly 0 or 1 in float32 and the cross-entropy has no gradient. The decision boundary is where it was. It held for
    a year as a defence that let 0.5 % of attacks through, until logits were attacked instead (Carlini and Wagner 2017).
    Found by: scale invariance; losses and classes warns.

    The network given, its logits times 100, is the same network at T = 100: from there the defence trains teacher and
    pupil for real, if briefly (`heatprint.defences.distil`).
    """
    at_temperature = wrap(Scaled(classifier.trainable, TEMPERATURE), classes=classifier.classes, size=classifier.size,
                          mean=classifier.mean, std=classifier.std)  # fmt: skip
    how = replace(FINE_TUNE, stages=((EPOCHS, classifier.size),), label_smoothing=0.0)
    method = Distil(temperature=TEMPERATURE, fresh=False, training=how)
    found = method.protect(at_temperature, train_batch, {}, seed=seed, checkpoint=None, progress=progress)
    return found.named("planted: distilled")
