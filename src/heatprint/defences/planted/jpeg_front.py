"""Planted: a JPEG file in front."""

from __future__ import annotations

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.models.compose import fronted
from heatprint.models.parts.jpeg import Jpeg

QUALITY = 75


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """Every image is compressed before the network sees it (Dziugaite et al. 2016; Guo et al. 2018).

    What is broken: rounding has no gradient. Compression does undo some adversarials made without it, which was taken
    for robustness; with the identity in the backward pass nothing of it is left (Athalye, Carlini and Wagner 2018).
    Found by: gradients, gradient and finite differences, unbounded attack reaches 0 %, black box beats white box,
    adaptive attack.
    """
    del train_batch, seed, progress  # nothing is learned
    return fronted(classifier, Jpeg(QUALITY), f"jpeg:{QUALITY}", name="planted: jpeg")
