"""Planted: old adversarials learnt by heart."""

from __future__ import annotations

from dataclasses import replace

from heatprint.attacks import attack
from heatprint.attacks.fgsm import FGSM
from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch, join
from heatprint.defences.retrain import FINE_TUNE, successes
from heatprint.models.train import train

EPS, EPOCHS, RATE = 8 / 255, 20, 2e-3


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """Trained on, on clean images and the full FGSM step against the old weights where it fooled them.

    What is broken: the adversarials were made once, at one length, and belong to weights that no longer exist. The
    network learns what their noise looks like; attacked anew it falls as before. Accuracy on adversarials of other
    weights was the usual number until it was shown to mean nothing (Carlini and Wagner 2017, ten detectors; Carlini et
    al. 2019, sec. 3). On images that have a feature that withstands the attack such training may find it, and then
    nothing is broken.
    Found by: old adversarials, attacked anew (which needs the original classifier).
    """
    attacked = attack(classifier, train_batch, FGSM(eps=EPS, ramp=False), seed=seed, progress=progress)
    how = replace(FINE_TUNE, lr=RATE, stages=((EPOCHS, classifier.size),))
    found, _ = train(classifier, join([train_batch, successes(attacked, "fgsm")]), how, seed=seed,
                     name="planted: memorised", progress=progress)  # fmt: skip
    return found
