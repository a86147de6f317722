"""The forensic laboratory of a trained classifier: images of known history, their features, detectors and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.inventory import LABORATORY, inventoried
from heatprint.core.limits import share_threads
from heatprint.core.scratch import scratch_in
from heatprint.core.store import Part, Store, write_json
from heatprint.core.values import Batch
from heatprint.detectors.door import Detector
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.learners import Learner
from heatprint.evaluation.detection import RATES
from heatprint.evaluation.forensics import (
    ABLATION,
    WHOLE,
    Measured,
    ablation,
    check_transfer,
    identification,
    left_out,
    one_class,
    transferred,
)
from heatprint.evaluation.location import located
from heatprint.evaluation.oracle import true_difference
from heatprint.study.contested import published, resisted
from heatprint.study.corpus import Trial, read_trials
from heatprint.study.engines import Engine, Local
from heatprint.study.kinds import PARTS, Kind, gathered, measured
from heatprint.study.parts import Workshop
from heatprint.study.progress import SILENT, Watch

DETECTOR, FITTED, RESULTS = "heat-print", "forensics/fitted", "forensics.json"
VERSION = 1  # of the oracle's columns
SPARSE = "one-pixel"


def forensics(
    classifier: Classifier,
    batch: Batch,
    out: str | Path,
    *,
    learned: Batch | None = None,
    stranger: Detector | None = None,
    trials: Sequence[Trial] | None = None,
    learner: Learner = "boosting",
    full: bool = False,
    seed: int = 0,
    engine: Engine | None = None,
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Attack, measure, fit, judge; what is in the folder already is read.

    Args:
        classifier: The victim.
        batch: Images it did not learn from, right or wrong.
        out: The run folder; the detector is saved in it, the numbers in ``forensics.json``.
        learned: Images it learned from. Those it gets wrong all the same are further mistakes to learn from, of which
            there are never enough; none is judged with.
        stranger: The detector of another classifier, judged on this one as it is.
        trials: Attacks and changes without aim; without them `corpus.read_trials()`.
        learner: With what detectors and identifiers learn.
        full: Also judge the published detectors, and attack this one as someone would who knows it.
        seed: Of everything random.
        engine: Computes the parts; by default processes on this machine, one a core.
        watch: Shows progress.

    Returns:
        The numbers: ``"made from"`` (`made_from`), ``"counts"``, ``"ablation"``, ``"one class"``, ``"left out"``,
        ``"transferred"`` (None without a stranger), ``"identification"``, ``"location"``; with `full` ``"published"``
        and ``"resisted"``.
    """
    store, engine = Store(Path(out)), engine or Local()
    workshop = Workshop(store=store, engine=engine)
    if stranger is not None:
        check_transfer(stranger)
    share_threads()
    with store.writing(), scratch_in(store.root), closing(engine), inventoried(store.root, LABORATORY):
        kinds = gathered(classifier, batch, learned, workshop, trials or read_trials(), seed=seed, watch=watch)
        known = replace(measured(classifier, kinds, workshop, watch), learner=learner)
        told: dict[str, Any] = {"made from": made_from(batch, trials or read_trials(), seed), "counts": _counts(known)}
        with watch.step("ablation") as progress:
            told["ablation"] = ablation(known, seed=seed, progress=progress)
        with watch.step("one class"):
            told["one class"] = one_class(known, seed=seed)
        with watch.step("attacks left out") as progress:
            told["left out"] = left_out(known, seed=seed, progress=progress)
        told["transferred"] = stranger and transferred(stranger, known, seed=seed)
        oracle = _oracle(classifier, known, store, watch)
        with watch.step("identification") as progress:
            told["identification"], identifier = identification(
                classifier, known, oracle=oracle, seed=seed, progress=progress
            )
        told["location"] = {one.name: located(classifier, batch, one.batch) for one in kinds if _one_pixel(one)}
        detector = _fitted(classifier, known, seed)
        detector.save(store.root / FITTED)
        identifier.save(store.root / FITTED)
        if full:
            write_json(store.root / RESULTS, told)  # what follows is long
            told["published"] = published(classifier, known, store, seed=seed, watch=watch)
            told["resisted"] = resisted(classifier, detector, identifier, known, store, seed=seed, watch=watch)
        write_json(store.root / RESULTS, told)
    return told


def made_from(batch: Batch, trials: Sequence[Trial], seed: int) -> str:
    """Identity of what a laboratory is built from, by which whoever uses it knows that it is the same."""
    return digest(VERSION, tuple(trials), batch.ids, batch.pixels, batch.labels, seed)


def _one_pixel(kind: Kind) -> bool:
    return kind.algorithm == SPARSE and "@" not in kind.name


def _oracle(classifier: Classifier, known: Measured, store: Store, watch: Watch) -> np.ndarray:
    """Columns of the true difference of all examples, float32 [N, columns]."""
    pixels, originals = known.examples.pixels, known.examples.pixels[known.originals]

    def made() -> Part:
        return Part(arrays={"features": true_difference(classifier, originals, pixels, progress=progress)})

    with watch.step("true differences") as progress:
        part = store.memo("forensics/oracle", 0, (VERSION, classifier.digest, pixels, originals), made)
    return part.arrays["features"]


def _fitted(classifier: Classifier, known: Measured, seed: int) -> Detector:
    """The detector of all families, calibrated."""
    method = HeatPrint(families=ABLATION[WHOLE], learner=known.learner)
    fit, held_out = known.where("fit"), known.where("calibrate")
    learned = method.learn_from(known.table(method.families, fit), known.examples.take(fit), seed=seed)
    detector = Detector(
        name=DETECTOR, method=method, classifier=classifier.digest, classes=classifier.classes, size=classifier.size,
        learned=learned,
    )  # fmt: skip
    usual = held_out[~known.rows.attacked[held_out]]
    scores = method.score_of(learned, known.table(method.families, usual))
    for rate in RATES:
        if rate * len(scores) >= 1:  # fewer cannot tell it
            detector = detector.calibrate(scores, fpr=rate, kinds=known.rows.kinds[usual].tolist())
    return detector


def _counts(known: Measured) -> dict[str, dict[str, int]]:
    """Kind to part to number of images."""
    return {
        kind: {part: int(((known.rows.kinds == kind) & (known.part == part)).sum()) for part in PARTS}
        for kind in sorted(set(known.rows.kinds))
    }
