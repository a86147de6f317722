"""The heat print without any attack to learn from: how far out its columns lie, compared with images left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.detectors.examples import Examples
from heatprint.detectors.features.table import columns, measure
from heatprint.detectors.heat_print import check_features

DIRECTED = ("undo", "key", "squeezing")
NOT_DIRECTED = ("key: curved", "key: peak residual")  # large for any noise; what is left of a margin falls instead


@dataclass(frozen=True, kw_only=True)
class OneClassPrint:
    """The mean of the largest -log p over the columns of the heat print, p the share of fitted images further out.

    Every column used grows when an attack is undone, fits the slope or is squeezed away, so the upper tail alone
    counts. Nothing is learned of attacks: what it was fitted on, clean images and changes without aim, decides what
    is unusual. Several columns see the same trace, so the largest few are averaged, which is steadier than the
    largest.

    Our own (docs/results/forensics.md).

    Attributes:
        families: Of ``"undo"``, ``"key"`` and ``"squeezing"``.
        largest: How many columns are averaged, 1 or more.
        rivals: How many classes behind the predicted one are tried.
    """

    families: tuple[str, ...] = DIRECTED
    largest: int = 5
    rivals: int = 1

    unsupervised = True

    def __post_init__(self) -> None:
        check_features("OneClassPrint", self.families, self.rivals)
        if set(self.families) - set(DIRECTED) or self.largest < 1:
            raise InvalidInput(
                f"OneClassPrint: families = {self.families} must be of {', '.join(DIRECTED)}, whose columns grow under "
                f"attack, and largest = {self.largest} be 1 or more."
            )

    def learn(
        self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress
    ) -> Mapping[str, np.ndarray]:
        """See `heatprint.detectors.door.Method`."""
        table = measure(classifier, examples.pixels, self.families, rivals=self.rivals, progress=progress)
        return self.learn_from(table, examples, seed=seed)

    def learn_from(self, table: np.ndarray, examples: Examples, *, seed: int) -> Mapping[str, np.ndarray]:
        """The same from features measured already, float32 [N, columns] in the order of `families`."""
        del seed  # nothing is random
        return {"usual": np.sort(self._chosen(table)[~np.asarray(examples.attacked, dtype=bool)], axis=0)}

    def score(self, classifier: Classifier, learned: Mapping[str, np.ndarray], pixels: Tensor) -> np.ndarray:
        """See `heatprint.detectors.door.Method`."""
        return self.score_of(learned, measure(classifier, pixels, self.families, rivals=self.rivals))

    def score_of(self, learned: Mapping[str, np.ndarray], table: np.ndarray) -> np.ndarray:
        """The same from features measured already."""
        usual, values = learned["usual"], self._chosen(table)
        ranks = np.arange(len(usual)) + 0.5  # between two fitted values the rank rises evenly, not in a step
        below = np.stack([np.interp(values[:, k], usual[:, k], ranks, left=0.0) for k in range(values.shape[1])], 1)
        rare = -np.log((len(usual) - below + 0.5) / (len(usual) + 1))
        return np.asarray(np.sort(rare, axis=1)[:, -self.largest :].mean(1), dtype=np.float64)

    def _chosen(self, table: np.ndarray) -> np.ndarray:
        named = enumerate(columns(self.families))
        kept = [place for place, name in named if name not in NOT_DIRECTED and not name.endswith(" left")]
        return table[:, kept]
