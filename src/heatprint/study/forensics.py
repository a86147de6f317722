"""The forensic laboratory of a trained classifier: images of known history, their features, detectors and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import to_pixels
from heatprint.core.store import Part, Store, write_json
from heatprint.core.values import Batch
from heatprint.data.splits import sample, split
from heatprint.detectors.door import Detector
from heatprint.detectors.examples import CLEAN, Examples
from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.squeezing import saved_as_jpeg
from heatprint.detectors.features.table import columns, measure
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.learners import Learner
from heatprint.evaluation.detection import RATES, Rows
from heatprint.evaluation.forensics import (
    ABLATION,
    WHOLE,
    Measured,
    ablation,
    identification,
    left_out,
    one_class,
)
from heatprint.models.predict import predict
from heatprint.study.corpus import Trial, gather, read_trials
from heatprint.study.progress import SILENT, Watch

PARTS = {"fit": 0.5, "calibrate": 0.15, "test": 0.35}  # of the source images
SALT = "forensics"
MOST = 800  # images of one kind, besides clean ones
QUALITIES = (95, 90)  # of JPEG files that attacked images are saved in again
VERSION = 1
MISTAKEN = "clean, misclassified"
DETECTOR, FITTED, RESULTS = "heat-print", "forensics/fitted", "forensics.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """Images that had the same done to them."""

    name: str
    algorithm: str
    is_attack: bool
    unseen: bool
    batch: Batch


def forensics(
    classifier: Classifier,
    batch: Batch,
    out: str | Path,
    *,
    trials: Sequence[Trial] | None = None,
    learner: Learner = "boosting",
    seed: int = 0,
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Attack, measure, fit, judge; what is in the folder already is read.

    Args:
        classifier: The victim.
        batch: Images it did not learn from, right or wrong.
        out: The run folder; the detector is saved in it, the numbers in ``forensics.json``.
        trials: Attacks and changes without aim; without them `corpus.read_trials()`.
        learner: With what detectors and identifiers learn.
        seed: Of everything random.
        watch: Shows progress.

    Returns:
        The numbers: ``"ablation"``, ``"one class"``, ``"left out"``, ``"identification"``, ``"counts"``.
    """
    store = Store(Path(out))
    with store.writing():
        measured = _measured(classifier, batch, store, trials or read_trials(), seed, watch)
        measured = replace(measured, learner=learner)
        told: dict[str, Any] = {"counts": _counts(measured)}
        with watch.step("ablation") as progress:
            told["ablation"] = ablation(measured, seed=seed, progress=progress)
        with watch.step("one class"):
            told["one class"] = one_class(measured, seed=seed)
        with watch.step("attacks left out") as progress:
            told["left out"] = left_out(measured, seed=seed, progress=progress)
        with watch.step("identification") as progress:
            told["identification"], identifier = identification(classifier, measured, seed=seed, progress=progress)
        _fitted(classifier, measured, seed).save(store.root / FITTED)
        identifier.save(store.root / FITTED)
        write_json(store.root / RESULTS, told)
    return told


def _measured(
    classifier: Classifier, batch: Batch, store: Store, trials: Sequence[Trial], seed: int, watch: Watch
) -> Measured:
    """All examples with their features, kind by kind."""
    kinds = [Kind(name=CLEAN, algorithm=CLEAN, is_attack=False, unseen=False, batch=batch)]
    for trial in trials:
        attacked = gather(classifier, batch, trial, store, seed=seed, watch=watch)
        kept = attacked.adversarial.take(_rows(attacked.success if trial.is_attack else ~attacked.skipped))
        kept = kept.take(sample(kept, MOST))
        kinds.append(
            Kind(name=trial.name, algorithm=trial.algorithm, is_attack=trial.is_attack, unseen=trial.unseen, batch=kept)
        )
    kinds += [again for one in list(kinds) for again in _saved_anew(classifier, one)]
    kinds = [one for one in kinds if len(one.batch)]
    return _joined(kinds, [_table(classifier, store, one, watch) for one in kinds])


def _saved_anew(classifier: Classifier, kind: Kind) -> list[Kind]:
    """Copies from JPEG files: of attacks those that still fool the classifier, of clean images a fifth each."""
    if not kind.is_attack and kind.name != CLEAN:
        return []
    made = []
    for number, quality in enumerate(QUALITIES):
        some = kind.batch if kind.is_attack else kind.batch.take(list(range(number, len(kind.batch), 5)))
        again = some.with_pixels(to_pixels(saved_as_jpeg(some.pixels, quality)))
        if kind.is_attack and len(again):
            again = again.take(_rows(predict(classifier, again.pixels).argmax(1) != again.labels))
        algorithm = kind.algorithm if kind.is_attack else "jpeg"
        made.append(replace(kind, name=f"{kind.name} @{quality}", algorithm=algorithm, batch=again))
    return made


def _table(classifier: Classifier, store: Store, kind: Kind, watch: Watch) -> tuple[np.ndarray, Tensor]:
    """Features of all families, and logits."""
    families, batch = FEATURES.names(), kind.batch

    def made() -> Part:
        found = measure(classifier, batch.pixels, families, progress=progress)
        return Part(arrays={"features": found, "logits": predict(classifier, batch.pixels).numpy()})

    with watch.step(f"features of {kind.name}") as progress:
        key = (VERSION, classifier.digest, columns(families), batch.ids, batch.pixels)
        folder = kind.name.replace(", ", "-").replace(" @", "-saved-").replace(" ", "-")
        part = store.memo(f"forensics/features/{folder}", 0, key, made)
    return part.arrays["features"], torch.from_numpy(part.arrays["logits"])


def _joined(found: Sequence[Kind], tables: Sequence[tuple[np.ndarray, Tensor]]) -> Measured:
    sources = [name for one in found for name in one.batch.ids]
    lengths = [len(one.batch) for one in found]
    kinds, names = (np.repeat([getattr(one, what) for one in found], lengths) for what in ("name", "algorithm"))
    attacked, unseen = (np.repeat([getattr(one, what) for one in found], lengths) for what in ("is_attack", "unseen"))
    labels, logits = torch.cat([one.batch.labels for one in found]), torch.cat([logits for _, logits in tables])
    examples = Examples(
        sources=tuple(sources), pixels=torch.cat([one.batch.pixels for one in found]), labels=labels,
        kinds=tuple(kinds.tolist()), names=tuple(names.tolist()), attacked=attacked,
    )  # fmt: skip
    top = logits.sort(dim=1, descending=True).values
    mistaken = (logits.argmax(1) != labels).numpy() & (kinds == CLEAN)
    features, start, by_family = np.concatenate([table for table, _ in tables]), 0, {}
    for family in FEATURES.names():
        width = len(columns((family,)))
        by_family[family], start = features[:, start : start + width], start + width
    rows = split(sources, PARTS, salt=SALT)
    part = np.empty(len(sources), dtype=object)
    for name, index in rows.items():
        part[index.numpy()] = name
    return Measured(
        examples=examples,
        rows=Rows(sources=np.asarray(sources), kinds=np.where(mistaken, MISTAKEN, kinds),
                  attacked=attacked, margins=(top[:, 0] - top[:, 1]).numpy()),
        tables=by_family, part=part.astype(str), unseen=unseen,
    )  # fmt: skip


def _fitted(classifier: Classifier, measured: Measured, seed: int) -> Detector:
    """The detector of all families, calibrated."""
    method = HeatPrint(families=ABLATION[WHOLE], learner=measured.learner)
    fit, held_out = measured.where("fit"), measured.where("calibrate")
    learned = method.learn_from(measured.table(method.families, fit), measured.examples.take(fit), seed=seed)
    detector = Detector(
        name=DETECTOR, method=method, classifier=classifier.digest, classes=classifier.classes, size=classifier.size,
        learned=learned,
    )  # fmt: skip
    usual = held_out[~measured.rows.attacked[held_out]]
    scores = method.score_of(learned, measured.table(method.families, usual))
    for rate in RATES:
        if rate * len(scores) >= 1:  # fewer cannot tell it
            detector = detector.calibrate(scores, fpr=rate)
    return detector


def _counts(measured: Measured) -> dict[str, dict[str, int]]:
    """Kind to part to number of images."""
    return {
        kind: {part: int(((measured.rows.kinds == kind) & (measured.part == part)).sum()) for part in PARTS}
        for kind in sorted(set(measured.rows.kinds))
    }


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero().squeeze(1)
