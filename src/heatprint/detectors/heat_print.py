"""The heat-print detector: heat maps used as keys to the image they explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.detectors.examples import Examples
from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.table import measure
from heatprint.detectors.learners import Learner, applied, check_learner, evenly, learned


@dataclass(frozen=True, kw_only=True)
class HeatPrint:
    """Gradient boosting (or another learner) on families of features of one forward and one backward pass.

    The families ``undo`` and ``key`` multiply the slope of the margin with the image; see there. ``image`` asks no
    network; ``squeezing`` adds seven forward passes and helps against what was never learned from. The score is the
    probability of an attack, where every kind in the examples counts the same: not the probability in your traffic.

    Our own (docs/results/forensics.md).

    Attributes:
        families: Names of `detectors.features`; the ablation changes nothing else.
        learner: ``"boosting"``, ``"trees"`` or ``"logistic"``.
        rivals: How many classes behind the predicted one are tried as the one the image came from.
    """

    families: tuple[str, ...] = ("undo", "key", "margin", "image")
    learner: Learner = "boosting"
    rivals: int = 1

    unsupervised = False

    def __post_init__(self) -> None:
        check_features("HeatPrint", self.families, self.rivals)
        check_learner("HeatPrint", self.learner)

    def learn(
        self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress
    ) -> Mapping[str, np.ndarray]:
        """See `heatprint.detectors.door.Method`."""
        table = measure(classifier, examples.pixels, self.families, rivals=self.rivals, progress=progress)
        return self.learn_from(table, examples, seed=seed)

    def learn_from(self, table: np.ndarray, examples: Examples, *, seed: int) -> Mapping[str, np.ndarray]:
        """The same from features measured already, float32 [N, columns] in the order of `families`."""
        attacked = np.asarray(examples.attacked, dtype=bool)
        weights = evenly(examples.kinds, attacked)
        return {"learner": learned(self.learner, table, attacked, weights, seed=seed)}

    def score(self, classifier: Classifier, learned: Mapping[str, np.ndarray], pixels: Tensor) -> np.ndarray:
        """See `heatprint.detectors.door.Method`."""
        return self.score_of(learned, measure(classifier, pixels, self.families, rivals=self.rivals))

    def score_of(self, learned: Mapping[str, np.ndarray], table: np.ndarray) -> np.ndarray:
        """The same from features measured already.

        Raises:
            StoreError: What it learned is of other features, those of another version.
        """
        return applied(learned["learner"]).probabilities(table)[:, 1]


def check_features(who: str, families: tuple[str, ...], rivals: int) -> None:
    """Refuse families that do not exist, and fewer than one rival.

    Raises:
        UnknownName: With the nearest known name.
        InvalidInput: None or one twice, or rivals below 1.
    """
    for family in families:
        FEATURES.load(family)
    if not families or len(set(families)) != len(families) or rivals < 1:
        raise InvalidInput(
            f"{who}: families = {families} must name at least one, each once, and rivals = {rivals} be 1 or more."
        )
