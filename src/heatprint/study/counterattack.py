"""What is left of a defence, and of routing, once the attacker knows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from heatprint.attacks import attack, make
from heatprint.core.classifier import Classifier
from heatprint.core.lattice import whole_levels
from heatprint.core.store import Part, Store
from heatprint.core.values import Batch
from heatprint.data.splits import sample
from heatprint.defences.route import Router
from heatprint.detectors.door import Detector
from heatprint.detectors.examples import CLEAN
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.adaptive.guarded import study
from heatprint.evaluation.adaptive.table import attacks
from heatprint.evaluation.forensics import Measured
from heatprint.evaluation.shares import share
from heatprint.evaluation.straight import stand_in
from heatprint.models.predict import predict
from heatprint.study.corpus import Trial, run_trial
from heatprint.study.progress import Watch

VERSION = 1
STRONG = {"eps": 2 / 255, "effort": "quick"}  # of the ensemble that stands beside every defence
EVADED = 40  # images by which routing is attacked
AGAINST_ROUTING = ("joint", "joint, eps 4", "taken for a benign change")


def attacked_anew(
    models: Mapping[str, Classifier],
    test: Batch,
    trials: Sequence[Trial],
    store: Store,
    *,
    images: int,
    seed: int,
    watch: Watch,
) -> dict[str, Any]:
    """Every model against the attacks at hand, made anew against itself, and against the ensemble.

    Gradients pass parts that give none (`evaluation.straight`), and what was found is judged on the model itself.

    Args:
        models: Name to model, all of equal classes and size.
        test: Images nobody learned from.
        trials: The attacks at hand.
        store: The run folder.
        images: How many images.
        seed: Of the attacks.
        watch: Shows progress.

    Returns:
        Model to ``"clean"``, ``"attacks"`` (trial to what stands), ``"strong"`` and ``"worst"``, what stands after
        every one of them; ``"past gradients"`` says whether gradients had to be led past a part of it.
    """
    chosen = test.take(sample(test, images))
    told = {}
    for name, model in models.items():
        straight = stand_in(model, chosen)
        asked = model if straight is None else straight
        stood = {}
        with watch.step(f"{name} attacked anew"):
            for number, trial in enumerate((*trials, None)):
                found = _found(store, f"defence/anew/{name}", number, model, asked, chosen, trial, seed)
                stood["strong" if trial is None else trial.name] = found
        right = predict(model, chosen.pixels).argmax(1) == chosen.labels
        total = len(chosen)
        told[name] = {
            "clean": share(right.sum(), total),
            "attacks": {kind: share(int(stands.sum()), total) for kind, stands in stood.items() if kind != "strong"},
            "strong": share(int(stood["strong"].sum()), total),
            "worst": share(int(np.all([*stood.values()], axis=0).sum()), total),
            "past gradients": straight is not None,
        }
    return told


def _found(
    store: Store,
    step: str,
    number: int,
    model: Classifier,
    asked: Classifier,
    batch: Batch,
    trial: Trial | None,
    seed: int,
) -> np.ndarray:
    """Which images are answered rightly as they are and after one attack, bool [N]; None is the ensemble."""

    def compute() -> Part:
        hit = attack(asked, batch, make("ensemble", **STRONG), seed=seed) if trial is None else run_trial(
            asked, batch, trial, seed
        )  # fmt: skip
        stands = [predict(model, pixels).argmax(1) == batch.labels for pixels in (batch.pixels, hit.adversarial.pixels)]
        return Part(arrays={"stands": (stands[0] & stands[1]).numpy()})

    key = (VERSION, model.digest, STRONG if trial is None else trial, batch.ids, batch.pixels, seed)
    return store.memo(step, number, key, compute).arrays["stands"]


def evaded(
    router: Router,
    detector: Detector,
    identifier: FittedIdentifier,
    known: Measured,
    store: Store,
    *,
    seed: int,
    watch: Watch,
) -> dict[str, Any]:
    """Routing under attacks on the detector and the identifier that see what it sees (`evaluation.adaptive`).

    Args:
        router: The system.
        detector: Fitted for its classifier.
        identifier: Likewise.
        known: The laboratory's images.
        store: The run folder.
        seed: Of everything random.
        watch: Shows progress.

    Returns:
        Attack to ``"levels"``, ``"fooled"`` (the undefended classifier is wrong), ``"right"``, ``"rejected"`` and
        ``"wrong"`` of routing, and ``"alone"``: what each single remedy answers rightly of the same images.
    """
    test = known.where("test")
    clean = known.examples.take(test[np.asarray(known.examples.kinds)[test] == CLEAN])
    batch = Batch(ids=clean.sources, pixels=clean.pixels, labels=clean.labels)
    batch = batch.take(sample(batch, EVADED))
    usual = detector.score(router.classifier, batch.pixels)
    about = (VERSION, router.classifier.digest, detector.learned, dict(detector.thresholds),
             identifier.learner, batch.ids, batch.pixels, seed)  # fmt: skip
    told: dict[str, Any] = {}
    guarded = None
    for name, one in attacks().items():
        if name not in AGAINST_ROUTING:
            continue
        with watch.step(f"routing against {name}") as progress:

            def compute(one: Any = one, progress: Any = progress) -> Part:
                nonlocal guarded
                guarded = guarded or study(router.classifier, detector, batch, identifier=identifier,
                                           enough=float(np.median(usual)), seed=seed)  # fmt: skip
                found = one.perturb(guarded, batch, seed=seed, progress=progress)
                return Part(arrays={"pixels": found.pixels.numpy()})

            part = store.memo(f"defence/evaded/{name.replace(', ', '-').replace(' ', '-')}", 0, (about, one), compute)
        told[name] = _judged(router, batch, torch.from_numpy(part.arrays["pixels"])) | {"levels": whole_levels(one.eps)}
    return told


def _judged(router: Router, batch: Batch, pixels: torch.Tensor) -> dict[str, Any]:
    """Counts of what routing and each remedy answer."""
    routed, total = router.answer(pixels), len(batch)
    right, rejected = routed.labels == batch.labels, routed.labels < 0
    fooled = predict(router.classifier, pixels).argmax(1) != batch.labels
    alone: dict[str, Callable[[torch.Tensor], torch.Tensor]] = dict(router.remedies)
    return {
        "fooled": share(fooled.sum(), total),
        "right": share(right.sum(), total),
        "rejected": share(rejected.sum(), total),
        "wrong": share((~right & ~rejected).sum(), total),
        "alone": {name: share((remedy(pixels) == batch.labels).sum(), total) for name, remedy in alone.items()},
    }
