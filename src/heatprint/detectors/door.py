"""The door of the room: a method learns and scores, the door checks, calibrates, keeps and refuses.

A method is a frozen dataclass of settings. What it learned is a mapping of arrays, so that a detector is saved as
safetensors and JSON and nothing in its file can run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput, StoreError
from heatprint.core.protocols import Progress, silent
from heatprint.core.reading import fitting_together
from heatprint.core.registry import Registry
from heatprint.detectors import saved
from heatprint.detectors.examples import Examples

FEWEST = 20  # images of either kind, below which nothing is learned
STREAM = 256  # images scored at one time
NAME = "detector"

Learned = Mapping[str, np.ndarray]


class _Card(saved.Card):
    """What is kept of a detector beside what it learned; see `Detector`."""

    name: str
    settings: dict[str, Any]
    classifier: str
    classes: tuple[str, ...]
    size: int
    thresholds: dict[float, float]


@runtime_checkable
class Method(Protocol):
    """How a detector learns and scores; it never judges itself."""

    @property
    def unsupervised(self) -> bool:
        """Whether it learns from clean images only."""
        ...

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """What it keeps, as arrays. An unsupervised method is handed images that were not attacked only."""
        ...

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """How attacked each image looks, float64 [N], higher for attacked; the image's own, whatever the batch."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """A method that has learned, for one classifier.

    Attributes:
        name: Of the method, in `DETECTORS`.
        method: Its settings.
        classifier: Digest of the classifier it was fitted for.
        classes: Class names of that classifier.
        size: Side of its images.
        learned: What it learned.
        thresholds: False positive rate asked for, e.g. 0.05, to the score above which an image is flagged.
    """

    name: str
    method: Method
    classifier: str
    classes: tuple[str, ...]
    size: int
    learned: Learned
    thresholds: Mapping[float, float] = field(default_factory=dict)

    def score(self, classifier: Classifier, pixels: Tensor, *, progress: Progress = silent) -> np.ndarray:
        """How attacked each image looks, float64 [N]; higher for attacked. In streams, so that memory stays bounded.

        Args:
            classifier: The one it was fitted for.
            pixels: uint8 [N, 3, H, W].
            progress: Told how far it is.

        Raises:
            InvalidInput: Another classifier, other classes, another image size, or images that are not 8-bit.
            BrokenContract: The method returned something other than one finite number per image.
            StoreError: What it learned does not fit its method.
        """
        self._check(classifier, pixels)
        parts = []
        for part in torch.split(pixels, STREAM) if len(pixels) else ():
            with learned_by(self.name):
                scores = np.asarray(self.method.score(classifier, self.learned, part), dtype=np.float64)
            if scores.shape != (len(part),) or not np.isfinite(scores).all():
                raise BrokenContract(
                    f"detector {self.name!r} returned scores of shape {list(scores.shape)} for {len(part)} images, "
                    f"{int((~np.isfinite(scores)).sum())} of them not finite; it must return one finite number each."
                )
            parts.append(scores)
            progress(sum(map(len, parts)), len(pixels))
        return np.concatenate(parts) if parts else np.empty(0)

    def calibrate(
        self, scores: np.ndarray, *, fpr: float = 0.05, kinds: Sequence[str] | None = None, most: float = 0.1
    ) -> Detector:
        """The same with a threshold that flags at most this share of images like these.

        Args:
            scores: Of images that were not attacked and that it did not learn from, float [N]. Their kinds decide what
                the rate means: of clean images only, a file saved anew may be flagged far more often.
            fpr: Share that may be flagged, above 0 and below 1.
            kinds: What was done to each; then no kind is flagged more often than `most` or, if that is more, `fpr`. A
                share of all hides that one kind, say images the classifier errs on, is flagged every other time.
            most: Share of any one kind that may be flagged.

        Raises:
            InvalidInput: Too few scores for the rate, or a rate out of range.
        """
        if not 0 < fpr < 1:
            raise InvalidInput(f"calibrate: fpr = {fpr} must be above 0 and below 1. Write 0.05 for 5 %.")
        scores = np.asarray(scores, dtype=np.float64)
        if len(scores) * fpr < 1 or not np.isfinite(scores).all():
            raise InvalidInput(
                f"calibrate: {len(scores)} finite scores cannot tell a rate of {fpr:g}; give at least "
                f"{int(np.ceil(1 / fpr))} images that were not attacked, or ask for a larger fpr."
            )
        return replace(self, thresholds={**self.thresholds, fpr: guarded(scores, fpr, kinds, most)})

    def flags(self, scores: np.ndarray, *, fpr: float = 0.05) -> np.ndarray:
        """Which scores mean attacked, bool [N], at a rate it was calibrated for.

        Raises:
            InvalidInput: It was not calibrated for this rate.
        """
        if fpr not in self.thresholds:
            known = ", ".join(f"{rate:g}" for rate in self.thresholds) or "none"
            raise InvalidInput(f"detector {self.name!r} is calibrated for fpr {known}; call calibrate(..., fpr={fpr}).")
        return np.asarray(scores) > self.thresholds[fpr]

    def save(self, folder: str | Path) -> None:
        """Write ``detector.json`` and ``detector.safetensors`` into a folder."""
        card = {"name": self.name, "settings": _settings(self.method), "classifier": self.classifier,
                "classes": list(self.classes), "size": self.size,
                "thresholds": {repr(rate): value for rate, value in self.thresholds.items()}}  # fmt: skip
        saved.write(Path(folder), NAME, card, self.learned)

    def _check(self, classifier: Classifier, pixels: Tensor) -> None:
        if classifier.classes != self.classes or classifier.size != self.size or classifier.digest != self.classifier:
            raise InvalidInput(
                f"detector {self.name!r} was fitted for another classifier (classes {', '.join(self.classes[:5])}, "
                f"{self.size} px; this one: {', '.join(classifier.classes[:5])}, {classifier.size} px"
                f"{'' if classifier.digest == self.classifier else ', other weights'}). Fit it again for this one: "
                "what it learned is about the very weights that are attacked."
            )
        check_pixels(classifier, pixels)


def learned_by(name: str) -> AbstractContextManager[None]:
    """What a method raises, inside, when it is handed what another has learned, as a `StoreError`."""
    return fitting_together(
        lambda what: StoreError(f"detector {name!r}: what it learned does not fit together ({what}). Fit it again.")
    )


def guarded(scores: np.ndarray, fpr: float, kinds: Sequence[str] | None = None, most: float = 0.1) -> float:
    """The score above which at most a share `fpr` of all lies, and of each kind at most a share `most` or `fpr`.

    Kinds of fewer than 20 images cannot tell a rate and are counted with all others only.
    """
    lowest = [at_most(scores, fpr)]
    if kinds is not None:
        named = np.asarray(kinds)
        own = [scores[named == kind] for kind in np.unique(named)]
        lowest += [at_most(some, max(most, fpr)) for some in own if len(some) >= FEWEST]
    return max(lowest)


def at_most(scores: np.ndarray, rate: float) -> float:
    """The score above which at most this share of images lies; infinite where too few tell such a rate."""
    allowed = int(np.floor(rate * len(scores)))
    return float(np.sort(scores)[::-1][allowed]) if allowed else float("inf")


def fit(
    classifier: Classifier,
    examples: Examples,
    method: Method,
    *,
    name: str = "",
    seed: int = 0,
    progress: Progress = silent,
) -> Detector:
    """Let a detector learn.

    Args:
        classifier: Whose images are to be guarded.
        examples: Images of known history, those of the test part left out.
        method: E.g. ``detectors.make("heat-print")``.
        name: Under which the method is registered, for the saved card.
        seed: Of what is random in learning.
        progress: Told how far it is.

    Raises:
        InvalidInput: Another image size, or too few images of either kind.
    """
    check_pixels(classifier, examples.pixels)
    attacked = np.asarray(examples.attacked)
    if method.unsupervised:
        examples = examples.take(np.flatnonzero(~attacked))
        attacked = np.asarray(examples.attacked)
    for what, count, needed in (("not attacked", int((~attacked).sum()), True),
                                ("attacked", int(attacked.sum()), not method.unsupervised)):  # fmt: skip
        if needed and count < FEWEST:
            raise InvalidInput(
                f"fit: {count} images that were {what}; a detector needs {FEWEST} or more of either kind to learn "
                "from. Attack more images, or take a stronger attack."
            )
    learned = method.learn(classifier, examples, seed=seed, progress=progress)
    return Detector(
        name=name, method=method, classifier=classifier.digest, classes=classifier.classes, size=classifier.size,
        learned=learned,
    )  # fmt: skip


def load(folder: str | Path, registry: Registry[Method]) -> Detector:
    """What `Detector.save` wrote.

    Raises:
        StoreError: The folder holds no detector, a damaged one, or one of a newer version.
    """
    card, learned = saved.read(Path(folder), NAME, _Card)
    try:
        method = registry.make(card.name, **card.settings)
    except InvalidInput as error:
        raise StoreError(f"detector: {folder} holds a damaged card ({error}). Fit it again.") from error
    return Detector(
        name=card.name, method=method, classifier=card.classifier, classes=card.classes, size=card.size,
        learned=learned, thresholds=card.thresholds,
    )  # fmt: skip


def _settings(method: Method) -> dict[str, object]:
    return {one.name: getattr(method, one.name) for one in fields(method)}  # type: ignore[arg-type]


def check_pixels(classifier: Classifier, pixels: Tensor) -> None:
    """Refuse images a classifier cannot take as they are.

    Raises:
        InvalidInput: Not uint8 [N, 3, size, size].
    """
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (3, classifier.size, classifier.size):
        raise InvalidInput(
            f"detectors: images must be uint8 [N, 3, {classifier.size}, {classifier.size}] for {classifier.name}, got "
            f"{pixels.dtype} {list(pixels.shape)}. Detectors see images as they are saved, in 8 bits."
        )
