"""A classifier with its detector, as its attacker knows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks import attack, make
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.detectors.door import Detector
from heatprint.detectors.families import FAMILIES
from heatprint.detectors.features.table import columns, measure
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.adaptive.soft import SOFTENED
from heatprint.evaluation.adaptive.stand_in import LEAST, StandIn, unbounded
from heatprint.models.predict import predict

STUDIED = 40  # images of which the attacker makes copies to learn the detector from
TRIED: tuple[tuple[str, dict[str, object], float], ...] = (
    ("noise", {"eps": 2 / 255}, 0.0),
    ("noise", {"eps": 8 / 255}, 0.0),
    ("jpeg", {"quality": 75}, 0.0),
    ("blur", {"sigma": 0.6}, 0.0),
    ("salt-pepper", {"share": 2e-4, "coloured": True}, 0.0),
    ("deepfool", {}, 0.0),
    ("fgsm", {"eps": 8 / 255, "ramp": False}, 0.0),
    ("square", {"eps": 8 / 255, "queries": 100}, 0.0),
    ("smooth-sign", {"eps": 8 / 255}, 0.0),
    ("bim", {"eps": 2 / 255, "step": 1 / 255, "steps": 4}, 0.0),
    ("pgd", {"eps": 8 / 255, "step": 1 / 255, "steps": 8}, 0.0),
    ("pgd", {"eps": 8 / 255, "step": 1 / 255, "steps": 12}, 4.0),
)
"""Name in the room of attacks, settings, and how sure the classifier must be: what it is asked about first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Guarded:
    """What an attacker who knows everything has: weights, detector and identifier to ask, and stand-ins of both.

    Attributes:
        classifier: The victim.
        detector: Its guard, asked as often as the attacker likes.
        stand_in: Follows the detector's score; its gradient is the attacker's.
        identifier: Names attacks, if there is one.
        namer: Follows the log-probabilities of the identifier's families, in the order of `named`.
        enough: Score at or below which an image is hidden well enough and worked on no more; -inf asks for the lowest.
    """

    classifier: Classifier
    detector: Detector
    stand_in: StandIn
    identifier: FittedIdentifier | None = None
    namer: StandIn | None = None
    enough: float = -np.inf

    def ask(self, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the stand-in's families, and the detector's scores float64 [N], of uint8 [N, 3, H, W]."""
        method = self.detector.method
        table = measure(self.classifier, pixels, self.stand_in.families)
        if isinstance(method, HeatPrint) and (method.families, method.rivals) == (self.stand_in.families, 1):
            return table, method.score_of(self.detector.learned, table)  # measured once
        return table, self.detector.score(self.classifier, pixels)

    @property
    def named(self) -> tuple[str, ...]:
        """Families of attacks the identifier knows."""
        return () if self.identifier is None else tuple(sorted({FAMILIES[name] for name in self.identifier.names}))

    def name(self, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the namer's families, and probabilities float64 [N, families of attacks].

        Raises:
            InvalidInput: There is no identifier.
        """
        if self.identifier is None:
            raise InvalidInput("adaptive: to be taken for another attack, there must be an identifier; give one.")
        settings = self.identifier.settings
        table = measure(self.classifier, pixels, settings.families, rivals=settings.rivals)
        found = self.identifier.identify_from(table)
        of = [[FAMILIES[name] == family for name in found.names] for family in self.named]
        softened = [family in SOFTENED for family in settings.families for _ in columns((family,))]
        return table[:, softened], np.stack([found.probabilities[:, chosen].sum(1) for chosen in of], 1)


def study(
    classifier: Classifier,
    detector: Detector,
    batch: Batch,
    *,
    identifier: FittedIdentifier | None = None,
    enough: float = -np.inf,
    seed: int = 0,
    progress: Progress = silent,
) -> Guarded:
    """What an attacker learns of a detector by asking it about changed copies of some images.

    Args:
        classifier: The victim.
        detector: Fitted for it.
        batch: Images of the attacker, right ones.
        identifier: Fitted for it.
        enough: See `Guarded`.
        seed: Of copies and networks.
        progress: Told how far it is.
    """
    families = getattr(detector.method, "families", SOFTENED)
    chosen = tuple(family for family in families if family in SOFTENED) or SOFTENED
    guarded = Guarded(classifier=classifier, detector=detector, identifier=identifier, enough=enough,
                      stand_in=StandIn(chosen, seed=seed), namer=_namer(identifier, seed))  # fmt: skip
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    named: list[tuple[np.ndarray, np.ndarray]] = []
    for done, pixels in enumerate(_copies(classifier, batch, seed)):
        table, scores = guarded.ask(pixels)
        asked.append((table, unbounded(scores)))
        if guarded.namer is not None:
            seen, shares = guarded.name(pixels)
            named.append((seen, np.log(shares.clip(LEAST))))
        progress(done + 1, len(TRIED) + 1, "studying the detector")
    guarded.stand_in.fit(*(np.concatenate(part) for part in zip(*asked, strict=True)))
    if guarded.namer is not None:
        guarded.namer.fit(*(np.concatenate(part) for part in zip(*named, strict=True)))
    return guarded


def _namer(identifier: FittedIdentifier | None, seed: int) -> StandIn | None:
    if identifier is None:
        return None
    families = [family for family in identifier.settings.families if family in SOFTENED]
    return StandIn(families, outputs=len({FAMILIES[name] for name in identifier.names}), seed=seed)


def _copies(classifier: Classifier, batch: Batch, seed: int) -> Iterator[Tensor]:
    some = batch.take(torch.arange(min(len(batch), STUDIED)))
    yield some.pixels
    for name, settings, margin in TRIED:
        made = attack(classifier, some, make(name, **settings), criterion=Criterion(margin=margin), seed=seed)
        yield made.adversarial.pixels


def fools(classifier: Classifier, pixels: Tensor, labels: Tensor) -> Tensor:
    """Which 8-bit images are misclassified, bool [N], on the CPU."""
    return predict(classifier, pixels).argmax(1) != labels.cpu()
