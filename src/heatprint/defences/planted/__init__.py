"""Deliberately broken defences, for the tests of the report card and for the documentation; none of them is registered.

Each file says what is broken, how the literature fell for it, and which check of `heatprint.evaluation.card` finds it.
"""

from collections.abc import Mapping
from typing import Protocol

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.defences.planted import (
    distilled,
    dropout,
    gradient_killer,
    jpeg_front,
    memorised,
    one_logit,
    softmax,
    winners,
)


class Plant(Protocol):
    """Makes a broken defence."""

    def __call__(
        self, classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent
    ) -> Classifier:
        """A new classifier; the one given stays as it was."""
        ...


PLANTED: Mapping[str, Plant] = {
    "distilled": distilled.plant,
    "dropout": dropout.plant,
    "gradient-killer": gradient_killer.plant,
    "jpeg": jpeg_front.plant,
    "memorised": memorised.plant,
    "one-logit": one_logit.plant,
    "softmax": softmax.plant,
    "winners": winners.plant,
}

__all__ = ["PLANTED", "Plant"]
