"""What each remedy is worth on this very image, by the traces that an attack has left in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, StoreError
from heatprint.detectors import saved
from heatprint.detectors.door import check_pixels
from heatprint.detectors.features.table import measure
from heatprint.detectors.heat_print import check_features
from heatprint.detectors.learners import applied, evenly, learned

NAME = "worth"
FEWEST = 10  # images that a remedy must get right, and wrong, for anything to be learned about it


class _Card(saved.Card):
    """What is kept beside what was learned; see `Worth`."""

    classifier: str
    families: tuple[str, ...]
    rivals: int
    remedies: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Worth:
    """Probability that each remedy answers an image rightly, learned from images of known history.

    The name of an attack says little about its strength, and one remedy helps against weak steps and another against
    strong ones. So what is learned is not the remedy of a name, but of the traces themselves: the features by which an
    identifier names attacks, and for each remedy whether it was right (the algorithm selection problem of Rice 1976).

    Attributes:
        classifier: Digest of the classifier whose features they are.
        families: Families of features (`detectors.features`), in the order of the columns.
        rivals: How many classes behind the predicted one features look at.
        remedies: R names.
        learners: Bytes of what was learned about each; empty where the remedy was right, or wrong, nearly always.
        usual: float64 [R], share of the images it was right about, all kinds alike.
    """

    classifier: str
    families: tuple[str, ...]
    rivals: int
    remedies: tuple[str, ...]
    learners: tuple[np.ndarray, ...]
    usual: np.ndarray

    @classmethod
    def fit(
        cls,
        table: np.ndarray,
        right: Mapping[str, np.ndarray],
        kinds: Sequence[str],
        attacked: np.ndarray,
        *,
        classifier: str,
        families: tuple[str, ...],
        rivals: int = 1,
        seed: int = 0,
    ) -> Worth:
        """Learn from images of known history.

        Args:
            table: float32 [N, columns], their features.
            right: Remedy to bool [N], whether it answers the image rightly.
            kinds: What was done to each; every kind weighs the same.
            attacked: bool [N].
            classifier: Digest of the classifier.
            families: Of the features.
            rivals: Of the features.
            seed: Of the learner.

        Raises:
            InvalidInput: No remedies, or tables that do not belong together.
        """
        if not right or any(len(own) != len(table) for own in right.values()):
            raise InvalidInput(f"Worth: {len(table)} images and answers of {len(right)} remedies to others.")
        weights = evenly(kinds, attacked)
        learners = [
            learned("boosting", table, own, weights, seed=seed) if FEWEST <= own.sum() <= len(own) - FEWEST
            else np.empty(0, dtype=np.uint8)
            for own in right.values()
        ]  # fmt: skip
        usual = np.array([np.average(own, weights=weights) for own in right.values()])
        return cls(classifier=classifier, families=families, rivals=rivals, remedies=tuple(right),
                   learners=tuple(learners), usual=usual)  # fmt: skip

    def of(self, table: np.ndarray) -> np.ndarray:
        """Probability that each remedy is right, float64 [N, R], from features [N, columns]."""
        told = np.tile(self.usual, (len(table), 1))
        for column, learner in enumerate(self.learners):
            if len(learner) and len(table):
                told[:, column] = applied(learner).probabilities(table)[:, 1]
        return told

    def best(self, classifier: Classifier, pixels: Tensor) -> tuple[str, float]:
        """The remedy that is likeliest right about a folder of images, uint8 [N, 3, H, W], and how likely.

        Raises:
            InvalidInput: Another classifier, or images that do not fit.
        """
        if classifier.digest != self.classifier:
            raise InvalidInput("Worth: it was learned for another classifier; run `heatprint defend` again.")
        check_pixels(classifier, pixels)
        told = self.of(measure(classifier, pixels, self.families, rivals=self.rivals)).mean(0)
        return self.remedies[int(told.argmax())], float(told.max())

    def save(self, folder: str | Path) -> None:
        """Write ``worth.json`` and ``worth.safetensors`` into a folder."""
        card = {"classifier": self.classifier, "families": list(self.families), "rivals": self.rivals,
                "remedies": list(self.remedies)}  # fmt: skip
        kept = {f"learner.{row}": learner for row, learner in enumerate(self.learners) if len(learner)}
        saved.write(Path(folder), NAME, card, kept | {"usual": self.usual})

    @classmethod
    def load(cls, folder: str | Path) -> Worth:
        """What `save` wrote.

        Raises:
            StoreError: The folder holds none, or a damaged one.
        """
        card, arrays = saved.read(Path(folder), NAME, _Card)
        usual, empty = arrays.get("usual", np.empty(0)), np.empty(0, dtype=np.uint8)
        try:
            check_features("worth", card.families, card.rivals)
        except InvalidInput as error:
            raise StoreError(f"worth: {folder} holds a damaged card ({error}). Run `defend` again.") from error
        if usual.shape != (len(card.remedies),):
            raise StoreError(f"worth: {folder} does not tell of {len(card.remedies)} remedies. Run `defend` again.")
        return cls(
            classifier=card.classifier, families=card.families, rivals=card.rivals, remedies=card.remedies, usual=usual,
            learners=tuple(arrays.get(f"learner.{row}", empty) for row in range(len(card.remedies))),
        )  # fmt: skip
