"""What stands against the laboratory's own detector: the published ones, and attackers who know it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.store import Part, Store
from heatprint.core.values import Batch
from heatprint.data.splits import sample
from heatprint.detectors.door import Detector
from heatprint.detectors.examples import CLEAN
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.adaptive.table import adaptive, attacks
from heatprint.evaluation.forensics import Measured
from heatprint.evaluation.leaks import bayesian_leak
from heatprint.evaluation.rivals import rivals
from heatprint.study.progress import Watch

VERSION = 1
IMAGES = 100  # right ones, attacked by those who know the detector
OF_A_KIND = 300  # at most, for detectors that are slow to learn


def published(classifier: Classifier, known: Measured, store: Store, *, seed: int, watch: Watch) -> dict[str, Any]:
    """Every registered detector in one protocol, and what the leaks of a published one are worth."""
    about = (VERSION, classifier.digest, known.examples.pixels, known.examples.kinds, known.examples.names,
             known.examples.attacked, known.part, known.unseen, OF_A_KIND, seed)  # fmt: skip

    def keep(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return _kept(store, f"forensics/rivals/{name}", about, compute)

    with watch.step("published detectors") as progress:
        told = rivals(classifier, known, images=OF_A_KIND, seed=seed, keep=keep, progress=progress)
    with watch.step("a detector with its published leaks"):
        leak = keep("leak", lambda: _leak(classifier, known, seed))
    return {"detectors": told, "leak": leak}


def resisted(
    classifier: Classifier,
    detector: Detector,
    identifier: FittedIdentifier,
    known: Measured,
    store: Store,
    *,
    seed: int,
    watch: Watch,
) -> dict[str, Any]:
    """AUROC before and after attacks by someone who knows the detector."""
    test = known.where("test")
    clean = known.examples.take(test[np.asarray(known.examples.kinds)[test] == CLEAN])
    batch = Batch(ids=clean.sources, pixels=clean.pixels, labels=clean.labels)
    batch = batch.take(sample(batch, IMAGES))
    usual = test[~known.rows.attacked[test]]
    made = attacks()
    about = (VERSION, classifier.digest, detector.learned, dict(detector.thresholds), identifier.learner, made,
             batch.ids, batch.pixels, seed)  # fmt: skip

    def compute() -> dict[str, Any]:
        scores = detector.score(classifier, known.examples.pixels[usual])
        return adaptive(classifier, detector, batch, scores, identifier=identifier, chosen=made, seed=seed,
                        progress=progress)  # fmt: skip

    with watch.step("attacks on the detector") as progress:
        return _kept(store, "forensics/resisted", about, compute)


def _leak(classifier: Classifier, known: Measured, seed: int) -> dict[str, Any]:
    """What the leaks are worth, or why this network or so few images cannot tell."""
    try:
        return bayesian_leak(classifier, known, images=OF_A_KIND, seed=seed)
    except (Unsupported, InvalidInput) as error:
        return {"unsupported": str(error)}


def _kept(store: Store, step: str, key: object, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result that is kept as soon as it is there, and not computed twice."""

    def made() -> Part:
        return Part(arrays={"json": np.frombuffer(json.dumps(compute()).encode(), dtype=np.uint8)})

    told: dict[str, Any] = json.loads(store.memo(step, 0, key, made).arrays["json"].tobytes())
    return told
