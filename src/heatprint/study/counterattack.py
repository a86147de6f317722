"""What is left of a defence, and of routing, once the attacker knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks import attack, make
from heatprint.core.classifier import Classifier
from heatprint.core.lattice import whole_levels
from heatprint.core.protocols import Progress
from heatprint.core.store import Part, Store
from heatprint.core.values import Batch
from heatprint.data.splits import sample
from heatprint.defences.route import ROUTED, Router
from heatprint.detectors.door import Detector
from heatprint.detectors.families import FAMILIES
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.adaptive.guarded import Guarded, study
from heatprint.evaluation.adaptive.table import attacks
from heatprint.evaluation.adaptive.taken_for import TakenFor
from heatprint.evaluation.shares import share
from heatprint.evaluation.straight import stand_in
from heatprint.models.predict import predict
from heatprint.study.corpus import Trial, run_trial
from heatprint.study.progress import Watch

VERSION = 2
STRONG, SETTINGS = "ensemble", {"eps": 2 / 255, "effort": "quick"}  # what stands beside every defence
EVADED = 40  # images by which routing is attacked
AGAINST_ROUTING = ("joint", "joint, eps 4", "taken for a benign change")


def attacked_anew(
    models: Mapping[str, Classifier],
    router: Router,
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
    Routing is shown everything that was found against any of the models.

    Args:
        models: Name to model, all of equal classes and size.
        router: What sends images to them.
        test: Images that nothing was learned from or chosen by.
        trials: The attacks at hand.
        store: The run folder.
        images: How many images.
        seed: Of the attacks.
        watch: Shows progress.

    Returns:
        Model, and ``"routed"``, to ``"clean"``, ``"attacks"`` (name to what stands) and ``"worst"``, what stands after
        every one of them; ``"past gradients"`` says whether gradients had to be led past a part of it.
    """
    batch = test.take(sample(test, images))
    hits = [*trials, None]
    told = {}
    routed_clean = (router.answer(batch.pixels).labels == batch.labels).numpy()
    routed = {_name(trial): routed_clean for trial in hits}
    for name, model in models.items():
        straight = stand_in(model, batch)
        clean = (predict(model, batch.pixels).argmax(1) == batch.labels).numpy()
        stood = {}
        for trial in hits:
            with watch.step(f"{_name(trial)} against {name}") as progress:
                pixels = _found(store, name, model, straight or model, batch, trial, seed, progress)
                stood[_name(trial)] = clean & (predict(model, pixels).argmax(1) == batch.labels).numpy()
                routed[_name(trial)] = routed[_name(trial)] & (router.answer(pixels).labels == batch.labels).numpy()
        told[name] = _standing(clean, stood) | {"past gradients": straight is not None}
    told[ROUTED] = _standing(routed_clean, routed) | {"past gradients": False}
    return told


def _name(trial: Trial | None) -> str:
    return STRONG if trial is None else trial.name


def _standing(clean: np.ndarray, stood: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts of what is answered rightly, and still is after each attack and after all."""
    total = len(clean)
    return {
        "clean": share(int(clean.sum()), total),
        "attacks": {name: share(int(stands.sum()), total) for name, stands in stood.items()},
        "worst": share(int(np.all([*stood.values()], axis=0).sum()), total),
    }


def _found(
    store: Store,
    name: str,
    model: Classifier,
    asked: Classifier,
    batch: Batch,
    trial: Trial | None,
    seed: int,
    progress: Progress,
) -> Tensor:
    """The images as one attack leaves them, uint8 [N, 3, H, W]; None is the ensemble."""

    def compute() -> Part:
        if trial is None:
            hit = attack(asked, batch, make(STRONG, **SETTINGS), seed=seed, progress=progress)
        else:
            hit = run_trial(asked, batch, trial, seed)
        return Part(arrays={"pixels": hit.adversarial.pixels.numpy()})

    folder = STRONG if trial is None else f"trial-{trial.folder}"
    key = (VERSION, model.digest, SETTINGS if trial is None else trial, batch.ids, batch.pixels, batch.labels, seed)
    return torch.from_numpy(store.memo(f"defence/anew/{name}/{folder}", 0, key, compute).arrays["pixels"])


def evaded(
    router: Router,
    detector: Detector,
    identifier: FittedIdentifier,
    test: Batch,
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
        test: Images that nothing was learned from.
        store: The run folder.
        seed: Of everything random.
        watch: Shows progress.

    Returns:
        Attack to ``"levels"``, ``"fooled"`` (the undefended classifier is wrong), ``"right"``, ``"rejected"`` and
        ``"wrong"`` of routing, and ``"alone"``: what each single remedy answers rightly of the same images.
    """
    batch = test.take(sample(test, EVADED))
    batch = batch.take((predict(router.classifier, batch.pixels).argmax(1) == batch.labels).nonzero().squeeze(1))
    usual = detector.score(router.classifier, batch.pixels)
    about = (VERSION, router.classifier.digest, detector.learned, dict(detector.thresholds), identifier.learner,
             identifier.temperature, identifier.names, batch.ids, batch.pixels, batch.labels, seed)  # fmt: skip
    families = {FAMILIES[name] for name in identifier.names}
    told: dict[str, Any] = {}
    guarded: list[Guarded] = []  # what the attacker learns first, once and only if something is computed
    for name, one in attacks().items():
        if name not in AGAINST_ROUTING or (isinstance(one, TakenFor) and one.family not in families):
            continue
        with watch.step(f"routing against {name}") as progress:

            def compute(one: Any = one, progress: Progress = progress) -> Part:
                if not guarded:
                    guarded.append(study(router.classifier, detector, batch, identifier=identifier,
                                         enough=float(np.median(usual)), seed=seed))  # fmt: skip
                return Part(
                    arrays={"pixels": one.perturb(guarded[0], batch, seed=seed, progress=progress).pixels.numpy()}
                )

            part = store.memo(f"defence/evaded/{name.replace(', ', '-').replace(' ', '-')}", 0, (about, one), compute)
        told[name] = _judged(router, batch, torch.from_numpy(part.arrays["pixels"])) | {"levels": whole_levels(one.eps)}
    return told


def _judged(router: Router, batch: Batch, pixels: Tensor) -> dict[str, Any]:
    """Counts of what routing and each remedy answer."""
    labels, total = router.answer(pixels).labels, len(batch)
    right, rejected = labels == batch.labels, labels < 0
    return {
        "fooled": share((predict(router.classifier, pixels).argmax(1) != batch.labels).sum(), total),
        "right": share(right.sum(), total),
        "rejected": share(rejected.sum(), total),
        "wrong": share((~right & ~rejected).sum(), total),
        "alone": {name: share((remedy(pixels) == batch.labels).sum(), total)
                  for name, remedy in router.remedies.items()},
    }  # fmt: skip
