"""A guard before a classifier: its answers, and for each whether the image was attacked, by what and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput, StoreError
from heatprint.core.values import Batch
from heatprint.defences.worth import Worth
from heatprint.detectors import load as load_detector
from heatprint.detectors.door import Detector, check_pixels, learned_by
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.detectors.locator import locate
from heatprint.detectors.one_class import OneClassPrint
from heatprint.explainers import explain, make
from heatprint.live.traces import Traces
from heatprint.live.verdict import Attack, Checked, Remedy, Restored
from heatprint.models import load as load_model
from heatprint.models.predict import predict

FITTED, WORTH = "forensics/fitted", "defence/fitted"
METHOD = "lrp.sequential_preset_a_flat"
SPARSE = ("one-pixel", "few-pixel")  # attacks that repairing one pixel may undo


@dataclass(frozen=True, kw_only=True, eq=False)
class Guard:
    """A classifier with the detector that was fitted for it; any classifier, in memory or saved.

    Detector, identifier and remedies look at the same features, so each family is measured once. What was done is asked
    of flagged images only, and which pixel it was only of those that look like an attack on few pixels.

    Attributes:
        classifier: Whose answers are given, unchanged.
        detector: Fitted for it and calibrated.
        identifier: Names the attack; None leaves that out.
        worth: What the run's remedies are worth; None leaves that out.
        fpr: Share of images left alone that may be flagged, a rate the detector is calibrated for.
    """

    classifier: Classifier
    detector: Detector = field(repr=False)
    identifier: FittedIdentifier | None = field(default=None, repr=False)
    worth: Worth | None = field(default=None, repr=False)
    fpr: float = 0.05

    def __post_init__(self) -> None:
        parts = {"detector": self.detector, "identifier": self.identifier, "worth": self.worth}
        strange = [name for name, part in parts.items() if part and part.classifier != self.classifier.digest]
        if strange:
            raise InvalidInput(
                f"Guard: {' and '.join(strange)} were fitted for another classifier than {self.classifier.name!r}. "
                "Fit them for this one: heatprint detect --benchmark."
            )
        self.detector.flags(np.empty(0), fpr=self.fpr)  # refuses a rate it has no threshold for

    @classmethod
    def load(cls, model: str | Path | Classifier, run: str | Path, *, fpr: float = 0.05) -> Guard:
        """A guard from what a run has learned.

        Args:
            model: Folder of a saved model, or any classifier: the one the run's detector was fitted for.
            run: Run folder with ``forensics/fitted``, and ``defence/fitted`` where `heatprint defend` was run.
            fpr: See `Guard`.

        Raises:
            StoreError: The run has no detector yet, or a damaged one.
            InvalidInput: The detector belongs to another classifier, or has no threshold for the rate.
        """
        folder = Path(run) / FITTED
        if not folder.is_dir():
            raise StoreError(
                f"Guard: {run} has no detector yet. Build it: heatprint detect --benchmark --run {run} --data ..."
            )
        worth = Path(run) / WORTH
        return cls(
            classifier=model if isinstance(model, Classifier) else load_model(Path(model)),
            detector=load_detector(folder), identifier=FittedIdentifier.load(folder),
            worth=Worth.load(worth) if worth.is_dir() else None, fpr=fpr,
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Side of the images it takes, in pixels."""
        return self.classifier.size

    def check(self, pixels: Tensor | np.ndarray) -> tuple[Checked, ...]:
        """Answers and verdicts, one per image.

        Args:
            pixels: uint8 [N, 3, H, W], H = W = `size`.

        Raises:
            InvalidInput: Not 8-bit images of this size.
            BrokenContract: The detector's scores are not finite.
        """
        images = self._images(pixels)
        answered = self.predict(images)
        traces = Traces(classifier=self.classifier, pixels=images)
        scores = self._scores(traces)
        flagged = self.detector.flags(scores, fpr=self.fpr)
        threshold = float(self.detector.thresholds[self.fpr])
        checked = [
            replace(one, verdict="attacked" if flag else "passed", score=float(score), threshold=threshold)
            for one, flag, score in zip(answered, flagged, scores, strict=True)
        ]
        rows = np.flatnonzero(flagged)
        for row, told in zip(rows, self._named(traces.take(rows), [checked[row] for row in rows]), strict=True):
            checked[row] = told
        return tuple(checked)

    def predict(self, pixels: Tensor | np.ndarray) -> tuple[Checked, ...]:
        """The classifier's answers alone, unchecked; arguments and errors as in `check`."""
        chance, label = predict(self.classifier, self._images(pixels)).softmax(1).max(1)
        return tuple(
            Checked(prediction=self.classifier.classes[one], label=one, probability=sure)
            for one, sure in zip(label.tolist(), chance.tolist(), strict=True)
        )

    def heat(self, pixels: Tensor | np.ndarray) -> np.ndarray:
        """Relevance of each pixel for the class answered, by layer-wise relevance propagation, float32 [N, H, W].

        Raises:
            InvalidInput: Not 8-bit images of this size, or none.
            Unsupported: The network has an operation without a rule.
        """
        images = self._images(pixels)
        names = tuple(str(row) for row in range(len(images)))
        batch = Batch(ids=names, pixels=images, labels=torch.full((len(images),), -1))
        return explain(self.classifier, batch, make(METHOD)).heat.float().numpy()

    def _images(self, pixels: Tensor | np.ndarray) -> Tensor:
        images = torch.as_tensor(pixels)
        check_pixels(self.classifier, images)
        return images

    def _scores(self, traces: Traces) -> np.ndarray:
        """The detector's own scores, from shared features where it is made of any."""
        method = self.detector.method
        if not len(traces.pixels) or not isinstance(method, (HeatPrint, OneClassPrint)):
            return self.detector.score(self.classifier, traces.pixels)
        with learned_by(self.detector.name):
            scores = method.score_of(self.detector.learned, traces.table(method.families, method.rivals))
        if not np.isfinite(scores).all():
            raise BrokenContract(f"Guard: detector {self.detector.name!r} gave scores that are not finite.")
        return scores

    def _named(self, traces: Traces, checked: Sequence[Checked]) -> list[Checked]:
        """Flagged images with what was done to them, and what helps."""
        if not checked:
            return []
        attacks = self._attacks(traces)
        restored, remedies = self._restored(traces, attacks), self._remedies(traces)
        return [
            replace(one, attack=attack, restored=repaired, remedy=remedy)
            for one, attack, repaired, remedy in zip(checked, attacks, restored, remedies, strict=True)
        ]

    def _attacks(self, traces: Traces) -> list[Attack | None]:
        if self.identifier is None:
            return [None] * len(traces.pixels)
        settings = self.identifier.settings
        found = self.identifier.identify_from(traces.table(settings.families, settings.rivals))
        unknown, sure = found.unknown(), found.probabilities.max(1)
        return [
            Attack(
                family=found.family[row], family_probability=float(found.family_probability[row]),
                name=found.name[row], probability=float(sure[row]), unknown=bool(unknown[row]),
            )
            for row in range(len(unknown))
        ]  # fmt: skip

    def _restored(self, traces: Traces, attacks: Sequence[Attack | None]) -> list[Restored | None]:
        """Costs as much as the detector itself, so only those that look like it are asked."""
        out: list[Restored | None] = [None] * len(attacks)
        rows = np.array([row for row, one in enumerate(attacks) if one and one.name in SPARSE], dtype=np.int64)
        place = locate(self.classifier, traces.pixels[torch.from_numpy(rows)])
        for here, row in enumerate(rows):
            if bool(place.changed[here]):
                y, x = place.place[here].tolist()
                out[row] = Restored(prediction=self.classifier.classes[int(place.label[here])], row=y, column=x)
        return out

    def _remedies(self, traces: Traces) -> list[Remedy | None]:
        if self.worth is None:
            return [None] * len(traces.pixels)
        told = self.worth.of(traces.table(self.worth.families, self.worth.rivals))
        names = (self.worth.remedies[best] for best in told.argmax(1))
        return [Remedy(name=name, probability=hope) for name, hope in zip(names, told.max(1).tolist(), strict=True)]
