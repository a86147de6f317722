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
        remedy: Who answered, in `Router.remedies`, or ``"rejected"``.
        expected: float64 [N], probability that this answer is right, as learned from images of known history; of an
            image turned away, the best there was.
    """

    labels: Tensor
    remedy: tuple[str, ...]
    expected: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """Sends each image to the remedy that is likeliest to answer it rightly, by the traces of what was done to it.

    After Maini et al. (2021, PROTECTOR, section 4), who tell the kind of perturbation and send the image to an expert
    for it. Here the expert is not tied to a name: see `Worth`. An image of which even the best remedy is expected to
    be right too seldom is turned away (Chow 1970, the reject option).

    This is as blind as its features: who fools the classifier without leaving them passes. `study.counterattack` says
    what is left under attacks on the detector and the identifier, which look at the same features.

    Attributes:
        classifier: The undefended one, whose features are looked at.
        remedies: Name to remedy; the undefended classifier is one of them, too.
        worth: What is known of each, of the same names.
        reject: Probability of a right answer below which an image is turned away, 0 to 1; 0 never turns any away.
    """

    classifier: Classifier
    remedies: Mapping[str, Remedy] = field(repr=False)
    worth: Worth = field(repr=False)
    reject: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.reject <= 1:
            raise InvalidInput(f"Router: reject = {self.reject} must be 0 (never) to 1.")
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
        chosen, expected = self.choose(measure(self.classifier, pixels, self.worth.families, rivals=self.worth.rivals))
        labels = torch.full((len(pixels),), -1)
        for name in set(chosen.tolist()) - {REJECTED}:
            rows = torch.from_numpy(np.flatnonzero(chosen == name))
            labels[rows] = self.remedies[name](pixels[rows])
        return Routed(labels=labels, remedy=tuple(chosen.tolist()), expected=expected)

    def choose(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The remedy for each image, from features measured already.

        Args:
            table: [N, columns], of the families of `worth`.

        Returns:
            Names [N], and the probability that the best of them is right, float64 [N].
        """
        worth = self.worth.of(table)
        best = worth.argmax(1) if len(worth) else np.empty(0, dtype=np.int64)
        expected = worth[np.arange(len(best)), best]
        chosen = np.asarray(self.worth.remedies, dtype=object)[best]
        chosen[expected < self.reject] = REJECTED
        return chosen, expected
