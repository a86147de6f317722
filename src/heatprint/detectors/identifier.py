"""Who attacked this image: family and algorithm, with probabilities that mean something, or "unknown"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.display import Displayed
from heatprint.core.errors import InvalidInput, StoreError
from heatprint.core.protocols import Progress, silent
from heatprint.detectors import saved
from heatprint.detectors.door import FEWEST, check_pixels
from heatprint.detectors.examples import Examples
from heatprint.detectors.families import FAMILIES
from heatprint.detectors.features.table import measure
from heatprint.detectors.heat_print import check_features
from heatprint.detectors.learners import Learner, applied, check_learner, learned
from heatprint.detectors.strangeness import Strangeness

NAME = "identifier"
FLOOR = 1e-6  # probability below which trees cannot tell


class _Card(saved.Card):
    """What is kept of an identifier beside what it learned; see `FittedIdentifier`."""

    settings: dict[str, Any]
    classifier: str
    names: tuple[str, ...]
    temperature: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Identified(Displayed):
    """Answers for N images.

    Attributes:
        names: Algorithms known, G of them.
        probabilities: float64 [N, G], calibrated; they add up to 1.
        name: The most probable algorithm of each image.
        family: The most probable family of each, whose algorithms' probabilities are added.
        family_probability: float64 [N].
        credibility: float64 [N], share of known attacked images, held out of learning, that are at least as strange
            (`strangeness.Strangeness`): a conformal p-value. Small for images unlike anything learned.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    name: tuple[str, ...]
    family: tuple[str, ...]
    family_probability: np.ndarray
    credibility: np.ndarray

    def unknown(self, *, alpha: float = 0.05) -> np.ndarray:
        """Which attacked images are of no known kind, bool [N]: of known ones at most the share `alpha` is."""
        return self.credibility <= alpha


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """Settings of an identifier; `fit` makes one that answers.

    Attributes:
        families: Families of features (`detectors.features`). With ``"compression"``, which no detector of attacks may
            have: once an image is flagged, whether it was saved anew, before or after, helps to say what was done.
        learner: See `learners.learned`.
        rivals: How many classes behind the predicted one are tried.
    """

    families: tuple[str, ...] = ("undo", "key", "margin", "image", "squeezing", "compression")
    learner: Learner = "boosting"
    rivals: int = 1

    def __post_init__(self) -> None:
        check_features("Identifier", self.families, self.rivals)
        check_learner("Identifier", self.learner)

    def fit(
        self,
        classifier: Classifier,
        examples: Examples,
        held_out: Examples,
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> FittedIdentifier:
        """Learn algorithms from examples, and calibrate on images of other sources.

        Args:
            classifier: Whose images they are.
            examples: To learn from; every algorithm with 20 images or more.
            held_out: To calibrate on: other source images.
            seed: Of the learner.
            progress: Told how far it is.

        Raises:
            InvalidInput: The two share a source image, an algorithm has too few images, or there is only one.
        """
        check_pixels(classifier, examples.pixels)
        shared = set(examples.sources) & set(held_out.sources)
        if shared:
            raise InvalidInput(
                f"Identifier: {len(shared)} source images, such as {min(shared)!r}, are in both parts; split by source "
                "image (data.splits.split), or the calibration is not honest."
            )
        total = len(examples) + len(held_out)
        tables = [
            measure(classifier, some.pixels, self.families, rivals=self.rivals,
                    progress=lambda done, of, note="", start=start: progress(start + done, total, note))
            for some, start in ((examples, 0), (held_out, len(examples)))
        ]  # fmt: skip
        return self.fit_from(classifier, tables[0], examples, tables[1], held_out, seed=seed)

    def fit_from(
        self,
        classifier: Classifier,
        table: np.ndarray,
        examples: Examples,
        held_out_table: np.ndarray,
        held_out: Examples,
        *,
        seed: int = 0,
    ) -> FittedIdentifier:
        """The same from features measured already."""
        names, counts = np.unique(np.asarray(examples.names), return_counts=True)
        if len(names) < 2 or counts.min() < FEWEST:
            raise InvalidInput(
                f"Identifier: {dict(zip(names.tolist(), counts.tolist(), strict=True))} images of each algorithm; it "
                f"needs two algorithms or more, and {FEWEST} images of each."
            )
        names_of = np.asarray(examples.names)
        content = learned(self.learner, table, names_of, _balanced(examples), seed=seed)
        raw = applied(content).probabilities(held_out_table)
        truth = np.asarray([names.tolist().index(n) if n in names else -1 for n in held_out.names])
        known = truth >= 0
        temperature = _temperature(raw[known], truth[known])
        attacked = known & np.asarray(held_out.attacked)
        usual = attacked if attacked.any() else known
        strange = Strangeness.fit(
            table, np.searchsorted(names, names_of), held_out_table[usual], _scaled(raw[usual], temperature)
        )
        return FittedIdentifier(
            settings=self, classifier=classifier.digest, names=tuple(names.tolist()), learner=content,
            temperature=temperature, strange=strange,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedIdentifier:
    """An identifier that answers for one classifier.

    Attributes:
        settings: What it was fitted with.
        classifier: Digest of the classifier.
        names: Algorithms it knows.
        learner: Bytes of what it learned.
        temperature: By which log-probabilities are divided, fitted on the held-out part (Guo et al. 2017).
        strange: What is unlike anything learned.
    """

    settings: Identifier
    classifier: str
    names: tuple[str, ...]
    learner: np.ndarray
    temperature: float
    strange: Strangeness

    def identify(self, classifier: Classifier, pixels: Tensor, *, progress: Progress = silent) -> Identified:
        """Family and algorithm of each image.

        Args:
            classifier: The one it was fitted for.
            pixels: uint8 [N, 3, H, W].
            progress: Told how far it is.

        Raises:
            InvalidInput: Another classifier, or images of another size.
        """
        if classifier.digest != self.classifier:
            raise InvalidInput("Identifier: it was fitted for another classifier; fit it again for this one.")
        check_pixels(classifier, pixels)
        table = measure(classifier, pixels, self.settings.families, rivals=self.settings.rivals, progress=progress)
        return self.identify_from(table)

    def identify_from(self, table: np.ndarray) -> Identified:
        """The same from features measured already."""
        found = _scaled(applied(self.learner).probabilities(table), self.temperature)
        families = sorted({FAMILIES[name] for name in self.names})
        of_family = np.stack(
            [found[:, [FAMILIES[name] == family for name in self.names]].sum(1) for family in families], 1
        )
        return Identified(
            names=self.names, probabilities=found,
            name=tuple(self.names[place] for place in found.argmax(1)),
            family=tuple(families[place] for place in of_family.argmax(1)),
            family_probability=of_family.max(1),
            credibility=self.strange.credibility(table, found),
        )  # fmt: skip

    def save(self, folder: str | Path) -> None:
        """Write ``identifier.json`` and ``identifier.safetensors`` into a folder."""
        card = {"settings": asdict(self.settings), "classifier": self.classifier, "names": list(self.names),
                "temperature": self.temperature}  # fmt: skip
        kept = {f"strange.{name}": values for name, values in self.strange.arrays().items()}
        saved.write(Path(folder), NAME, card, {"learner": self.learner} | kept)

    @classmethod
    def load(cls, folder: str | Path) -> FittedIdentifier:
        """What `save` wrote.

        Raises:
            StoreError: The folder holds no identifier, a damaged one, or one of a newer version.
        """
        card, arrays = saved.read(Path(folder), NAME, _Card)
        try:
            settings = Identifier(**{**card.settings, "families": tuple(card.settings["families"])})
            strange = Strangeness(**{name: arrays[f"strange.{name}"] for name in Strangeness.__dataclass_fields__})
            strange.check(len(card.names))
            known = applied(arrays["learner"]).kinds.tolist() == list(card.names)
            if not known or not set(card.names) <= set(FAMILIES) or not card.temperature > 0:
                raise ValueError("its names are not those it learned, or its temperature is not above 0")
            return cls(
                settings=settings, classifier=card.classifier, names=card.names, temperature=card.temperature,
                learner=arrays["learner"], strange=strange,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StoreError(f"identifier: {folder} holds a damaged card ({error}). Fit it again.") from error


def _balanced(examples: Examples) -> np.ndarray:
    """Weights [N] by which every algorithm counts the same, and within it every kind."""
    names, kinds = np.asarray(examples.names), np.asarray(examples.kinds)
    weights = np.zeros(len(names))
    for name in np.unique(names):
        inside = np.unique(kinds[names == name])
        for kind in inside:
            rows = (names == name) & (kinds == kind)
            weights[rows] = 1 / max(int(rows.sum()), 30)
        weights[names == name] /= weights[names == name].sum()
    return np.asarray(weights * len(names) / weights.sum())


def _scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    logits = np.log(probabilities.clip(FLOOR)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature of the smallest negative log-likelihood."""

    def loss(log_temperature: float) -> float:
        scaled = _scaled(probabilities, float(np.exp(log_temperature)))
        return float(-np.log(scaled[np.arange(len(truth)), truth].clip(FLOOR)).mean())

    if not len(truth):
        return 1.0
    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
