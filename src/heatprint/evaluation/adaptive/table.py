"""AUROC before and after each attack on the detector, with counts: no silence about zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from heatprint.attacks import attack, make
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import LEVELS, whole_levels
from heatprint.core.norms import distances
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.detectors.door import Detector
from heatprint.detectors.families import FAMILIES
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.adaptive.confident import Confident
from heatprint.evaluation.adaptive.explanation import KeepExplanation
from heatprint.evaluation.adaptive.guarded import Guarded, fools, study
from heatprint.evaluation.adaptive.joint import Joint
from heatprint.evaluation.adaptive.orthogonal import Orthogonal
from heatprint.evaluation.adaptive.taken_for import TakenFor
from heatprint.evaluation.adaptive.undone import Undone
from heatprint.evaluation.adaptive.walk import Adaptive, Evaded, Walk
from heatprint.evaluation.detection import auroc
from heatprint.evaluation.shares import share

DRAWS = 500  # of the bootstrap over attacked images


def attacks(eps: float = 8 / 255) -> dict[str, Adaptive]:
    """The attacks of the table, by name.

    Args:
        eps: Radius in the maximum norm; the joint attack is tried at a half and a quarter of it, too.
    """
    half, quarter = (max(1, whole_levels(eps) // part) / LEVELS for part in (2, 4))
    long = Walk(eps=eps, steps=16, every=4)
    return {
        "joint": Joint(walk=Walk(eps=eps)),
        f"joint, eps {whole_levels(half)}": Joint(walk=Walk(eps=half)),
        f"joint, eps {whole_levels(quarter)}": Joint(walk=Walk(eps=quarter)),
        "selective": Orthogonal(walk=Walk(eps=eps), projected="neither"),
        "orthogonal": Orthogonal(walk=Walk(eps=eps)),
        "explanation kept": KeepExplanation(walk=long),
        "confident carlini-wagner": Confident(eps=eps),
        "against the undo test": Undone(walk=long),
        "against undo and squeezing": Undone(walk=long, families=("undo", "key", "squeezing")),
        "taken for a benign change": TakenFor(walk=Walk(eps=eps)),
        "taken for black-box squares": TakenFor(walk=Walk(eps=eps), family="black-box squares"),
    }


def adaptive(
    classifier: Classifier,
    detector: Detector,
    batch: Batch,
    usual: np.ndarray,
    *,
    identifier: FittedIdentifier | None = None,
    chosen: Mapping[str, Adaptive] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Attack a guarded classifier and count what its guard still sees.

    An image counts as hidden well enough, and is left, once the detector scores it no higher than half of the images
    that nobody attacked: 1/2 is then the AUROC of a detector that is beaten, and less of one whose order is turned.

    Args:
        classifier: The victim.
        detector: Fitted and calibrated for it.
        batch: Images of the test part; those the classifier gets wrong are left out.
        usual: Scores of images that were not attacked, float [N], against which AUROC is taken.
        identifier: Fitted for the classifier; without one, attacks on it are left out.
        chosen: Attacks by name; `attacks()` unless given.
        seed: Of everything random.
        progress: Told how far it is.

    Returns:
        ``"attacks"``: name to ``"eps"`` in levels, ``"before"`` (plain PGD of the same radius) and ``"after"``, each
        with ``"fooled"``, ``"auroc"`` of what fools with its ``"interval"``, the shares found, ``"at 5%"``, and those
        that both fool the classifier and pass the detector, ``"passed at 5%"``, and median sizes; ``"stand-in"``:
        median rank agreement with the detector on images it had not learned from; ``"images"``.

    Raises:
        InvalidInput: No images that the classifier gets right, no scores, or a detector without a threshold.
    """
    right = ~fools(classifier, batch.pixels, batch.labels)
    batch = batch.take(right.nonzero().squeeze(1))
    if not len(batch) or not len(usual) or not detector.thresholds:
        raise InvalidInput(
            f"adaptive: {len(batch)} images that the classifier gets right, {len(usual)} scores of others and "
            f"{len(detector.thresholds)} thresholds; each needs one or more. Call detector.calibrate first."
        )
    made = dict(chosen if chosen is not None else attacks())
    named = set() if identifier is None else {FAMILIES[name] for name in identifier.names}
    made = {name: one for name, one in made.items() if not isinstance(one, TakenFor) or one.family in named}
    steps = (len(made) + 1) * 100
    guarded = study(classifier, detector, batch, identifier=identifier, enough=float(np.median(usual)), seed=seed,
                    progress=lambda done, total, note="": progress(done * 100 // total, steps, note))  # fmt: skip
    judge = _Judge(guarded, batch, usual, seed)
    told: dict[str, Any] = {}
    for number, (name, one) in enumerate(made.items()):

        def shown(done: int, total: int, note: object = "", *, start: int = number + 1, name: str = name) -> None:
            progress(start * 100 + done * 100 // total, steps, f"{name}: {note}")

        told[name] = judge.row(one, one.perturb(guarded, batch, seed=seed, progress=shown))
    agreement = guarded.stand_in.agreement
    return {"images": len(batch), "attacks": told,
            "stand-in": round(float(np.median(agreement)), 4) if agreement else None}  # fmt: skip


class _Judge:
    """Numbers of one attack, with the real detector and identifier."""

    def __init__(self, guarded: Guarded, batch: Batch, usual: np.ndarray, seed: int) -> None:
        self._guarded, self._batch, self._usual, self._seed = guarded, batch, usual, seed
        self._before: dict[int, Evaded] = {}

    def row(self, one: Adaptive, found: Evaded) -> dict[str, Any]:
        """Before, after, and what the attack says of itself."""
        eps = whole_levels(one.eps)
        if eps not in self._before:
            self._before[eps] = self._plain(one.eps)
        plain = self._before[eps]
        sides = {"before": self._detected(plain), "after": self._detected(found)}
        if isinstance(one, TakenFor):
            for side, of in (("before", plain), ("after", found)):
                sides[side] |= self._named(of, one.family)
        return {"eps": eps, **sides, **found.extras}

    def _plain(self, eps: float) -> Evaded:
        method = make("pgd", eps=eps, step=max(eps / 4, 1 / LEVELS))
        made = attack(self._guarded.classifier, self._batch, method, seed=self._seed)
        return Evaded(pixels=made.adversarial.pixels, fooled=made.success)

    def _detected(self, found: Evaded) -> dict[str, Any]:
        fooled = fools(self._guarded.classifier, found.pixels, self._batch.labels)
        pixels, total = found.pixels[fooled], len(self._batch)
        told: dict[str, Any] = {"fooled": share(fooled.sum(), total)}
        scores = self._guarded.detector.score(self._guarded.classifier, pixels)
        told["auroc"] = round(auroc(scores, self._usual), 4) if len(scores) else None
        told["interval"] = self._interval(scores)
        for rate, at in sorted(self._guarded.detector.thresholds.items(), reverse=True):
            told[f"at {rate:.0%}"] = share(int((scores > at).sum()), len(scores))
            told[f"passed at {rate:.0%}"] = share(int((scores <= at).sum()), total)
        size = distances(self._batch.pixels[fooled], pixels)
        told["linf"], told["l2"] = ((round(float(v.double().median()), 4) if len(v) else None)
                                    for v in (size.linf, size.l2))  # fmt: skip
        return told

    def _interval(self, scores: np.ndarray) -> list[float] | None:
        """95 % interval of the AUROC, by drawing attacked images again."""
        if not len(scores):
            return None
        low, high = (np.searchsorted(np.sort(self._usual), scores, side=side) for side in ("left", "right"))
        wins = (low + high) / 2 / len(self._usual)
        rng = stream(self._seed, "evaluation/adaptive")
        drawn = wins[rng.integers(0, len(wins), (DRAWS, len(wins)))].mean(1)
        return [round(float(q), 4) for q in np.quantile(drawn, [0.025, 0.975])]

    def _named(self, found: Evaded, family: str) -> dict[str, Any]:
        identifier, classifier = self._guarded.identifier, self._guarded.classifier
        fooled = fools(classifier, found.pixels, self._batch.labels)
        if identifier is None or not bool(torch.any(fooled)):
            return {}
        answers = identifier.identify(classifier, found.pixels[fooled])
        names, counts = np.unique(np.asarray(answers.family), return_counts=True)
        return {
            "named so": share(answers.family.count(family), len(self._batch)),
            "families": dict(zip(names.tolist(), counts.tolist(), strict=True)),
            "unknown at 5%": share(int(answers.unknown().sum()), int(fooled.sum())),
        }
