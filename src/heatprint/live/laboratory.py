"""The live laboratory: one image at a time is looked at, changed, attacked, judged and placed. All in plain arrays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from heatprint.core.classifier import Classifier
from heatprint.core.errors import StoreError, UnknownName
from heatprint.core.protocols import Explainer, silent
from heatprint.core.reading import read_json
from heatprint.core.streams import stream
from heatprint.detectors import Detector, Identified, locate
from heatprint.detectors import load as load_detector
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.explainers import explain
from heatprint.explainers.conservation import leaking
from heatprint.live.guard import FITTED, Guard
from heatprint.live.offered import OFFERED, Offered, with_own
from heatprint.live.place import RECIPE, Place, StoredMap
from heatprint.live.ramp import Ramp
from heatprint.live.reach import pixel_map
from heatprint.live.searches import SEARCHES, Found, Search, Told, run
from heatprint.live.specimen import batch_of, check_class, images_of, one_thread
from heatprint.models import load as load_model
from heatprint.models.predict import predict

MODEL = "models/clear"
FPR = 0.05  # share of images left alone that may be flagged, where the detector is calibrated for it


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What the classifier answers about an image, and what it relied on.

    Attributes:
        probabilities: float32 [K].
        predicted: The most probable class.
        heat: Relevance of each pixel, float32 [H, W], in units of the logit.
        target: The class that is explained.
        seconds: What it took.
        note: What must be known to read the map, of relevance that layers kept or made; mostly empty.
    """

    probabilities: np.ndarray
    predicted: int
    heat: np.ndarray
    target: int
    seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What detector, identifier and locator say of an image; None where the run has none, or there is nothing to say.

    Attributes:
        score: The detector's, higher for attacked.
        threshold: Score above which an image is flagged.
        flagged: Whether it is.
        family: The most probable family of attacks, of a flagged image.
        algorithm: The most probable algorithm.
        probability: Of the algorithm.
        credibility: Share of known attacked images that are at least as strange; small for what is unlike all of them.
        unknown: It is unlike every attack learned from.
        restored_label: Class after the most suspicious pixel was repaired, where that changes the answer.
        restored_place: Row and column of that pixel.
    """

    score: float | None = None
    threshold: float | None = None
    flagged: bool | None = None
    family: str | None = None
    algorithm: str | None = None
    probability: float | None = None
    credibility: float | None = None
    unknown: bool | None = None
    restored_label: int | None = None
    restored_place: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Laboratory:
    """A classifier at hand, with what its run has learned about it.

    Safe to be asked from several threads: questions wait for one another, at one core.

    Attributes:
        classifier: The one that is studied.
        detector: Fitted for it; None leaves verdicts out.
        identifier: Names the attack; None leaves that out.
        stored: The run's map; None leaves places out.
        offered: Explainers that can be asked for.
    """

    classifier: Classifier
    detector: Detector | None = field(default=None, repr=False)
    identifier: FittedIdentifier | None = field(default=None, repr=False)
    stored: StoredMap | None = field(default=None, repr=False)
    offered: tuple[Offered, ...] = field(default=OFFERED, repr=False)
    _asking: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _made: dict[str, Explainer] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(cls, run: str | Path) -> Laboratory:
        """The laboratory of a run, warmed up by one round of questions: the first of each kind takes seconds.

        Args:
            run: Run folder; ``models/clear`` must be in it, ``forensics/fitted`` and a finished map may be.

        Raises:
            StoreError: There is no such model, or something in the folder is damaged.
            InvalidInput: The detector was fitted for another classifier.
        """
        run = Path(run)
        if not (run / MODEL).is_dir():
            raise StoreError(f"laboratory: {run} has no model {MODEL}. Name the run folder of a study.")
        fitted = run / FITTED
        made = cls(
            classifier=load_model(run / MODEL),
            detector=load_detector(fitted) if fitted.is_dir() else None,
            identifier=FittedIdentifier.load(fitted) if fitted.is_dir() else None,
            stored=StoredMap.load(run), offered=_offered(run),
        )  # fmt: skip
        made._warm()
        return made

    @property
    def size(self) -> int:
        """Side of the images, in pixels."""
        return self.classifier.size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.classifier.classes

    def explainers(self) -> list[tuple[str, str]]:
        """Name and title of each explainer that can be asked for, the run's own first."""
        return [(one.name, one.title) for one in self.offered]

    def searches(self) -> tuple[Search, ...]:
        """The searches that can be asked for."""
        return SEARCHES

    def look(self, pixels: np.ndarray, *, method: str, target: int | None = None) -> Look:
        """Prediction and heat map of an image.

        Args:
            pixels: uint8 [3, H, W].
            method: Name of one of `explainers`.
            target: The class to explain; None for the predicted one.

        Raises:
            InvalidInput: An explainer that is not offered, a class or an image that is none.
            Unsupported: The explainer has no rule for an operation of the network.
        """
        images = images_of(self.classifier, pixels)
        if target is not None:
            check_class(self.classifier, target)
        with self._turn():
            start, explainer = time.perf_counter(), self._explainer(method)
            logits = predict(self.classifier, images)[0]
            predicted = int(logits.argmax())
            wanted = predicted if target is None else target
            explained = explain(
                self.classifier, batch_of(self.classifier, pixels, wanted), explainer, target=torch.tensor([wanted])
            )
            heat = explained.heat[0].float().numpy()
            seconds = time.perf_counter() - start
        return Look(
            probabilities=logits.softmax(0).numpy(), predicted=predicted, heat=heat, target=wanted, seconds=seconds,
            note=leaking(explained),
        )  # fmt: skip

    def gain(self, pixels: np.ndarray, label: int, gain: int) -> np.ndarray:
        """The image as the attack ``fgsm`` leaves it at this gain, uint8 [3, H, W]; also where it is wrong already.

        The direction is remembered, so that moving the gain costs a sum.

        Args:
            pixels: The clean image, uint8 [3, H, W].
            label: Its true class.
            gain: 0 to 255 levels of 1/255.

        Raises:
            InvalidInput: A gain, a class or an image that is none.
        """
        with self._turn():
            return self._ramp.at(pixels, label, gain)

    def curve(self, pixels: np.ndarray, label: int, gains: Sequence[int]) -> np.ndarray:
        """Probabilities at each of the gains, float32 [G, K]; arguments and errors as of `gain`."""
        with self._turn():
            moved = torch.from_numpy(self._ramp.along(pixels, label, gains))
            return predict(self.classifier, moved).softmax(1).numpy()

    def reach(self, pixels: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        """The one-pixel vulnerability map: share of the margin each pixel could take, to first order, and its colour.

        Args:
            pixels: uint8 [3, H, W].
            label: The true class.

        Returns:
            Shares float32 [H, W], 1 or more where this pixel alone may be enough, infinite all over where the image is
            wrong already; and the colour that each would take, uint8 [3, H, W].

        Raises:
            InvalidInput: A class or an image that is none.
        """
        with self._turn():
            return pixel_map(self.classifier, pixels, label)

    def search(self, pixels: np.ndarray, label: int, name: str, progress: Told = silent) -> Found:
        """Let an attack search for a copy that the classifier gets wrong; takes seconds, and other questions wait.

        An attack may trace the network symbolically, and while torch traces, calls in other threads are traced, too.

        Args:
            pixels: uint8 [3, H, W].
            label: The class it should be taken for, and is.
            name: Of one of `searches`.
            progress: Told about twice a second of queries done and the most there can be. To end the search it raises,
                for instance `heatprint.live.searches.Cancelled`.

        Raises:
            InvalidInput: No such search, the image is wrong already, a class or an image that is none.
        """
        known = {one.name: one for one in SEARCHES}
        if name not in known:
            raise UnknownName("laboratory: the search", name, known)
        with self._turn():
            return run(self.classifier, pixels, label, known[name], progress)

    def judge(self, pixels: np.ndarray) -> Judged:
        """Whether an image was attacked, by what, and at which pixel.

        Args:
            pixels: uint8 [3, H, W].

        Raises:
            InvalidInput: Not an image of the classifier's.
        """
        images, found = images_of(self.classifier, pixels), None
        with self._turn():
            checked = self._guard.check(images)[0] if self._guard else None
            flagged = None if checked is None else checked.verdict == "attacked"
            if self.identifier and flagged is not False:
                found = self.identifier.identify(self.classifier, images)
            repaired = locate(self.classifier, images)
        row, column = repaired.place[0].tolist()
        changed = bool(repaired.changed[0])
        judged = Judged(
            score=None if checked is None else checked.score,
            threshold=None if checked is None else checked.threshold,
            flagged=flagged,
            restored_label=int(repaired.label[0]) if changed else None,
            restored_place=(row, column) if changed else None,
        )
        return judged if found is None else _named(judged, found)

    def place(self, pixels: np.ndarray) -> Place | None:
        """About where an image lies on the run's map, and its neighbours there; None where the run has no map.

        Args:
            pixels: uint8 [3, H, W].

        Raises:
            InvalidInput: Not an image of the classifier's.
        """
        images = images_of(self.classifier, pixels)
        with self._turn():
            return None if self.stored is None else self.stored.place(self.classifier, images)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._asking, one_thread():
            yield

    @cached_property
    def _ramp(self) -> Ramp:
        return Ramp(self.classifier)

    @cached_property
    def _guard(self) -> Guard | None:
        """The detector at the usual rate, or the nearest one it is calibrated for; None where it is for none."""
        if self.detector is None or not self.detector.thresholds:
            return None
        rate = min(self.detector.thresholds, key=lambda known: abs(known - FPR))
        return Guard(classifier=self.classifier, detector=self.detector, fpr=rate)

    def _explainer(self, method: str) -> Explainer:
        if method not in self._made:
            known = {one.name: one for one in self.offered}
            if method not in known:
                raise UnknownName("laboratory: the explainer", method, known)
            self._made[method] = known[method].make()
        return self._made[method]

    def _warm(self) -> None:
        """Ask each kind of question once, about an image of noise."""
        shape = (3, self.size, self.size)
        pixels = stream(0, "live/laboratory").integers(0, 256, shape, dtype=np.uint8)
        self.look(self.gain(pixels, 0, 1), method=self.offered[0].name)
        self.judge(pixels)
        self.place(pixels)


def _named(judged: Judged, found: Identified) -> Judged:
    """The same with what the identifier says of this one image."""
    return replace(
        judged, family=found.family[0], algorithm=found.name[0], probability=float(found.probabilities[0].max()),
        credibility=float(found.credibility[0]), unknown=bool(found.unknown()[0]),
    )  # fmt: skip


def _offered(run: Path) -> tuple[Offered, ...]:
    """The explainers, the one of the run's recipe first; without a recipe those that are always offered."""
    if not (run / RECIPE).is_file():
        return OFFERED
    try:
        table = read_json(run / RECIPE)["explainer"]
        return with_own(table["method"], dict(table["settings"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"laboratory: {run / RECIPE} is damaged ({error}). Run the study again.") from error
