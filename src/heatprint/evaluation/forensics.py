"""The protocol of a forensic laboratory: ablation, attacks left out, families left out, one class, names.

Works on features measured once (`detectors.features.table.measure`), so that a whole table costs minutes. The parts are
fixed by source image: a copy of an image is where its original is, and nothing is fitted on the test part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import recall_score

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.detectors.door import FEWEST, Detector
from heatprint.detectors.examples import Examples
from heatprint.detectors.families import BENIGN, FAMILIES
from heatprint.detectors.features.table import columns
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.identifier import FittedIdentifier, Identifier
from heatprint.detectors.learners import Learner
from heatprint.detectors.one_class import OneClassPrint
from heatprint.evaluation.detection import Rows, auroc, judged

ABLATION: Mapping[str, tuple[str, ...]] = {
    "margin alone": ("margin",),
    "dropout": ("dropout",),
    "image alone": ("image",),
    "signature alone": ("signature",),
    "map as a picture": ("appearance",),
    "picture and margin": ("appearance", "signature", "margin"),
    "map as a key": ("undo", "key"),
    "heat print": ("undo", "key", "margin", "image"),
    "squeezing": ("squeezing", "margin"),
    "heat print and squeezing": ("undo", "key", "margin", "image", "squeezing"),
}
"""Name in tables to families of features."""

WHOLE, ORACLE = "heat print and squeezing", "true difference"
NAMING: Mapping[str, tuple[str, ...]] = {
    **{name: ABLATION[name] for name in ("margin alone", "image alone", "picture and margin", "map as a key", WHOLE)},
    "and compression": (*ABLATION[WHOLE], "compression"),
}
"""The same for names; the last is what the identifier has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Examples with their features and their part.

    Attributes:
        examples: The images; those never learned from are among them.
        rows: What the judge may know of each.
        tables: Family of features to float32 [N, columns].
        part: ``"fit"``, ``"calibrate"`` or ``"test"`` of each, by source.
        unseen: bool [N], never learned from, whatever their part.
        originals: int [N], row of the clean image each was made from; only an upper bound may look at it.
        learner: With what detectors and identifiers learn from attacks.
    """

    examples: Examples
    rows: Rows
    tables: Mapping[str, np.ndarray]
    part: np.ndarray
    unseen: np.ndarray
    originals: np.ndarray
    learner: Learner = "boosting"

    def table(self, families: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Columns of these families, of these rows."""
        return np.concatenate([self.tables[family][rows] for family in families], axis=1)

    def where(self, part: str, *, unseen: bool = False) -> np.ndarray:
        """Rows of a part; those never learned from only if asked for."""
        return np.flatnonzero((self.part == part) & (~self.unseen | unseen))


def ablation(measured: Measured, *, seed: int = 0, progress: Progress = silent) -> dict[str, Any]:
    """Each set of families by itself: how well it detects each attack, those never learned from included."""
    told = {}
    for done, (name, families) in enumerate(ABLATION.items()):
        if set(families) - set(measured.tables):
            continue  # this network has no such layers
        told[name] = _detected(
            measured, HeatPrint(families=families, learner=measured.learner), measured.where("fit"), seed
        )
        progress(done + 1, len(ABLATION), name)
    return told


def one_class(measured: Measured, *, seed: int = 0) -> dict[str, Any]:
    """The same for the heat print that has learned from images left alone only."""
    method, fit, test = OneClassPrint(), measured.where("fit"), measured.where("test", unseen=True)
    learned = method.learn_from(measured.table(method.families, fit), measured.examples.take(fit), seed=seed)
    usual = _not_attacked(measured, measured.where("calibrate"))
    scores = [method.score_of(learned, measured.table(method.families, rows)) for rows in (test, usual)]
    return judged(scores[0], measured.rows.take(test), scores[1], kinds=measured.rows.kinds[usual], seed=seed)


def left_out(measured: Measured, *, seed: int = 0, progress: Progress = silent) -> dict[str, Any]:
    """AUROC of each algorithm when nothing of it was learned from, and when nothing of its family was.

    Where too few attacked images are left to learn from, there is no number.
    """
    names = np.asarray(measured.examples.names)
    family = np.asarray([FAMILIES[name] for name in names])
    fit = measured.where("fit")
    known = sorted({name for name in names[fit] if FAMILIES[name] not in BENIGN})
    families = sorted({FAMILIES[name] for name in known})
    told: dict[str, Any] = {"algorithms": {}, "families": {}}
    asked = [("algorithms", name, names) for name in known] + [("families", name, family) for name in families]
    for done, (what, name, of) in enumerate(asked):
        left = fit[of[fit] != name]
        enough = np.asarray(measured.examples.attacked)[left].sum() >= FEWEST
        if enough and (of[measured.where("test")] == name).any():
            told[what][name] = _without(measured, left, of == name, seed)
        progress(done + 1, len(asked), name)
    return told


def identification(
    classifier: Classifier,
    measured: Measured,
    *,
    oracle: np.ndarray | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[dict[str, Any], FittedIdentifier]:
    """Balanced accuracy over names and families for each set of families, and how well the unknown is told.

    With the columns of `oracle.true_difference`, [N, columns], also how well one could tell who has the clean image.

    Returns:
        The numbers, and the identifier of the whole set.
    """
    told: dict[str, Any] = {"sets": {}}
    if oracle is not None:
        known = replace(measured, tables={ORACLE: oracle})
        told["sets"][ORACLE] = _named(known, _identifier(classifier, known, (ORACLE,), seed), (ORACLE,))
    for done, (name, families) in enumerate(NAMING.items()):
        if set(families) - set(measured.tables):
            continue
        fitted = _identifier(classifier, measured, families, seed)
        told["sets"][name] = _named(measured, fitted, families)
        progress(done + 1, len(NAMING), name)
    told["unknown"] = _unknown(measured, fitted)
    return told, fitted


def check_transfer(detector: Detector) -> HeatPrint:
    """The method of a detector that can be judged on another classifier.

    Raises:
        InvalidInput: It is not a heat print.
        StoreError: It was fitted with features of another version.
    """
    method = detector.method
    if not isinstance(method, HeatPrint):
        raise InvalidInput(
            f"transferred: detector {detector.name!r} is no heat print; take one that `heatprint detect --benchmark` "
            "saved."
        )
    method.score_of(detector.learned, np.zeros((1, len(columns(method.families))), dtype=np.float32))
    return method


def transferred(detector: Detector, measured: Measured, *, seed: int = 0) -> dict[str, Any]:
    """What another classifier's detector is worth for this one: its rule as it is, only its thresholds taken anew.

    Raises:
        InvalidInput: It is not a heat print, or this network lacks what its features ask for.
    """
    method = check_transfer(detector)
    missing = sorted(set(method.families) - set(measured.tables))
    if missing:
        raise InvalidInput(f"transferred: this network has no layers for {', '.join(missing)}; take another detector.")
    test, usual = measured.where("test", unseen=True), _not_attacked(measured, measured.where("calibrate"))
    scores = [method.score_of(detector.learned, measured.table(method.families, rows)) for rows in (test, usual)]
    return judged(scores[0], measured.rows.take(test), scores[1], kinds=measured.rows.kinds[usual], seed=seed)


def _identifier(classifier: Classifier, measured: Measured, families: Sequence[str], seed: int) -> FittedIdentifier:
    """Of the algorithms with enough images to learn from."""
    fit, held_out = measured.where("fit"), measured.where("calibrate")
    names = np.asarray(measured.examples.names)
    found, counts = np.unique(names[fit], return_counts=True)
    fit = fit[np.isin(names[fit], found[counts >= FEWEST])]
    settings = Identifier(learner=measured.learner)
    settings = settings if ORACLE in families else replace(settings, families=tuple(families))
    return settings.fit_from(
        classifier, measured.table(families, fit), measured.examples.take(fit),
        measured.table(families, held_out), measured.examples.take(held_out), seed=seed,
    )  # fmt: skip


def _named(measured: Measured, fitted: FittedIdentifier, families: Sequence[str]) -> dict[str, Any]:
    test = measured.where("test")
    test = test[np.isin(np.asarray(measured.examples.names)[test], fitted.names)]
    plain = _as_made(measured, test)
    found = fitted.identify_from(measured.table(families, plain))
    truth = np.asarray(measured.examples.names)[plain]
    of_family = np.asarray([FAMILIES[name] for name in truth])
    return {
        "images": len(plain),
        "algorithms": list(fitted.names),
        "names": _balanced_accuracy(truth, np.asarray(found.name)),
        "families": _balanced_accuracy(of_family, np.asarray(found.family)),
        "confusion": _confusion(truth, np.asarray(found.name)),
        "family_confusion": _confusion(of_family, np.asarray(found.family)),
    }


def _as_made(measured: Measured, rows: np.ndarray) -> np.ndarray:
    """Without images that were saved anew: of these, names are told apart less well."""
    return np.asarray(rows[[" @" not in kind for kind in measured.rows.kinds[rows]]], dtype=np.int64)


def _unknown(measured: Measured, fitted: FittedIdentifier) -> dict[str, Any]:
    """AUROC of 1 - credibility: algorithms never learned from against those that were, attacks of the test part."""
    test = measured.where("test", unseen=True)
    test = _as_made(measured, test[np.asarray(measured.examples.attacked)[test]])
    test = test[measured.unseen[test] | np.isin(np.asarray(measured.examples.names)[test], fitted.names)]
    new = measured.unseen[test]
    if new.all() or not new.any():
        return {"auroc": None, "algorithms": {}}
    found = fitted.identify_from(measured.table(fitted.settings.families, test))
    names = np.asarray(measured.examples.names)[test]
    doubt = 1 - found.credibility
    return {
        "auroc": auroc(doubt[new], doubt[~new]),
        "algorithms": {name: auroc(doubt[new & (names == name)], doubt[~new]) for name in sorted(set(names[new]))},
    }


def _detected(measured: Measured, method: HeatPrint, fit: np.ndarray, seed: int) -> dict[str, Any]:
    test = measured.where("test", unseen=True)
    return _scored(measured, method, fit, test, seed)


def _without(measured: Measured, fit: np.ndarray, target: np.ndarray, seed: int) -> dict[str, Any]:
    """Detection of the target rows of the test part by a detector fitted on these rows."""
    test = measured.where("test")
    test = test[target[test] | ~np.asarray(measured.examples.attacked)[test]]
    method = HeatPrint(families=ABLATION[WHOLE], learner=measured.learner)
    told = _scored(measured, method, fit, test, seed)
    return {"pooled": told["pooled"], "attacks": told["attacks"]}


def _scored(measured: Measured, method: HeatPrint, fit: np.ndarray, test: np.ndarray, seed: int) -> dict[str, Any]:
    """Fit on these rows, judge on those."""
    learned = method.learn_from(measured.table(method.families, fit), measured.examples.take(fit), seed=seed)
    usual = _not_attacked(measured, measured.where("calibrate"))
    scores = [method.score_of(learned, measured.table(method.families, rows)) for rows in (test, usual)]
    return judged(scores[0], measured.rows.take(test), scores[1], kinds=measured.rows.kinds[usual], seed=seed)


def _not_attacked(measured: Measured, rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows[~np.asarray(measured.examples.attacked)[rows]])


def _balanced_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean share named rightly over the true names; names that are not among these may be answered."""
    return float(recall_score(truth, found, labels=np.unique(truth), average="macro", zero_division=0.0))


def _confusion(truth: np.ndarray, found: np.ndarray) -> dict[str, dict[str, int]]:
    """True name to named as, with counts."""

    def counted(values: Iterable[str]) -> dict[str, int]:
        names, counts = np.unique(np.asarray(list(values)), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    return {name: counted(found[truth == name]) for name in sorted(set(truth))}
