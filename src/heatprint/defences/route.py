"""Routing: each image goes to the remedy that is best against what was done to it, or is turned away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.defences.worth import Worth
from heatprint.detectors.door import check_pixels
from heatprint.detectors.features.table import measure
from heatprint.detectors.locator import locate
from heatprint.models.predict import predict

Remedy = Callable[[Tensor], Tensor]
"""From images uint8 [N, 3, H, W] to labels int64 [N]."""

RESTORED = "restored pixel"
REJECTED = "rejected"
ROUTED = "routed"  # what tables call the whole system
DOUBT = 0.02  # no remedy is taken to be right, or wrong, more surely than this


def answered(classifier: Classifier) -> Remedy:
    """The answers of a classifier, as it is or defended."""

    def remedy(pixels: Tensor) -> Tensor:
        return predict(classifier, pixels).argmax(1)

    return remedy


def restored(classifier: Classifier) -> Remedy:
    """The answers of a classifier after its most suspicious pixel was repaired (`detectors.locator`)."""

    def remedy(pixels: Tensor) -> Tensor:
        return locate(classifier, pixels).label

    return remedy


@dataclass(frozen=True, kw_only=True, eq=False)
class Routed:
    """Answers for N images.

    Attributes:
        labels: int64 [N], -1 where the image was turned away.
        remedy: The likeliest of those who gave this answer, in `Router.remedies`, or ``"rejected"``.
        sure: float64 [N], probability of the answer if remedies erred independently of each other. They do not, so it
            is too near 1, but orders images by doubt.
    """

    labels: Tensor
    remedy: tuple[str, ...]
    sure: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """Sends each image to the remedies that are likely to answer it rightly, by the traces of what was done to it.

    After Maini et al. (2021, PROTECTOR, section 4), who tell the kind of perturbation and send the image to an expert
    for it. Here the expert is not tied to a name: `Worth` says how likely each remedy is right about such an image, and
    those that are asked vote with the log odds of it, the best weights where errors are independent (Nitzan and Paroush
    1982). With `asked` = 1 the likeliest alone answers. An image about which the vote is in doubt is turned away (Chow
    1970, the reject option).

    This is as blind as its features: who fools the classifier without leaving them passes. `study.counterattack` says
    what is left under attacks on the detector and the identifier, which look at the same features.

    Attributes:
        classifier: The undefended one, whose features are looked at.
        remedies: Name to remedy; the undefended classifier is one of them, too.
        worth: What is known of each, of the same names.
        asked: How many of the likeliest remedies are asked about an image; None for all, which takes their time added
            up.
        reject: `Routed.sure` below which an image is turned away, 0 to 1; 0 never turns any away.
    """

    classifier: Classifier
    remedies: Mapping[str, Remedy] = field(repr=False)
    worth: Worth = field(repr=False)
    asked: int | None = None
    reject: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.reject <= 1 or (self.asked is not None and self.asked < 1):
            raise InvalidInput(
                f"Router: reject = {self.reject} must be 0 (never) to 1, and asked = {self.asked} 1 or more, or None."
            )
        missing = sorted(set(self.worth.remedies) - set(self.remedies))
        if missing:
            raise InvalidInput(f"Router: of {', '.join(missing)} it is known what they are worth, but they are gone.")
        if self.worth.classifier != self.classifier.digest:
            raise InvalidInput("Router: what remedies are worth was learned for another classifier; learn it again.")

    def answer(self, pixels: Tensor) -> Routed:
        """The answers, and who gave them.

        Args:
            pixels: uint8 [N, 3, H, W].

        Raises:
            InvalidInput: Not 8-bit images of the classifier's size.
        """
        check_pixels(self.classifier, pixels)
        worth = self.worth.of(measure(self.classifier, pixels, self.worth.families, rivals=self.worth.rivals))
        asked = self._asked(worth)
        said = np.full(worth.shape, -1)
        for column, name in enumerate(self.worth.remedies):
            rows = np.flatnonzero(asked[:, column])
            if len(rows):
                said[rows, column] = self.remedies[name](pixels[torch.from_numpy(rows)]).numpy()
        return self.decide(worth, said)

    def decide(self, worth: np.ndarray, said: np.ndarray) -> Routed:
        """The vote, from answers that are there already.

        Args:
            worth: float64 [N, R], probability that each remedy is right.
            said: int64 [N, R], the class it names; those who are not asked are not listened to.
        """
        count, classes = len(worth), len(self.classifier.classes)
        odds = worth.clip(DOUBT, 1 - DOUBT)
        weights = np.where(self._asked(worth), np.log(odds * (classes - 1) / (1 - odds)), 0.0)
        scores = np.zeros((count, classes))
        for column in range(worth.shape[1]):
            np.add.at(scores, (np.arange(count), said[:, column]), weights[:, column])
        powers = np.exp(scores - scores.max(1, keepdims=True))
        labels, sure = scores.argmax(1), powers.max(1) / powers.sum(1)
        leader = np.where(said == labels[:, None], weights, -np.inf).argmax(1)
        names = np.asarray(self.worth.remedies, dtype=object)[leader]
        doubtful = sure < self.reject
        labels[doubtful], names[doubtful] = -1, REJECTED
        return Routed(labels=torch.from_numpy(labels), remedy=tuple(names.tolist()), sure=sure)

    def _asked(self, worth: np.ndarray) -> np.ndarray:
        """Which remedies are asked about which image, bool [N, R]."""
        if self.asked is None or self.asked >= worth.shape[1]:
            return np.ones(worth.shape, dtype=bool)
        rank = (-worth).argsort(1, kind="stable").argsort(1, kind="stable")
        return np.asarray(rank < self.asked)
