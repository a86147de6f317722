"""One arm of a study: a classifier measured on clean images, on old adversarials, and attacked anew.

The paper's Table 1 is a mixture: clean images and the successful adversarials among them. It is printed as published
and never alone: beside it stand the old adversarials by themselves, the same attack made anew against these weights,
a strong attack, the strong attack that knows of parts without a gradient, and the worst case: what stands after every
one of the new attacks, image by image.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.values import Attacked, Batch
from heatprint.evaluation.shares import share
from heatprint.models.predict import predict


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """What an arm is measured with.

    Attributes:
        classifier: The arm's classifier.
        test: All clean test images.
        old: Attack name to the attack on the undefended classifier.
        new: Attack name to the same attack against this classifier.
        strong: The strong attack against this classifier.
        adaptive: The strong attack made against a stand-in whose gradients pass what gives none
            (`evaluation.straight`), on the same images; None where the classifier needs none. What it made is judged
            here, on the classifier itself.
        controls: Those of `new` that only look like attacks: noise that knows nothing of the classifier. They are left
            out of the worst case.
    """

    classifier: Classifier
    test: Batch
    old: Mapping[str, Attacked]
    new: Mapping[str, Attacked]
    strong: tuple[str, Attacked] | None
    adaptive: Attacked | None = None
    controls: Set[str] = frozenset()


def evaluate(arm: Arm) -> dict[str, Any]:
    """The columns of an arm: shares with counts and intervals, and Type I and II errors per class."""
    logits = predict(arm.classifier, arm.test.pixels)
    guess = logits.argmax(1)
    where = {name: row for row, name in enumerate(arm.test.ids)}
    attacks, errors = {}, {"clean": _errors(arm.classifier.classes, arm.test.labels, guess)}
    for name, old in arm.old.items():
        rows = torch.tensor([where[i] for i in old.clean.ids], dtype=torch.long)
        fooled = old.adversarial.take(old.success.nonzero().squeeze(1))
        static = predict(arm.classifier, fooled.pixels).argmax(1)
        labels, both = torch.cat([arm.test.labels[rows], fooled.labels]), torch.cat([guess[rows], static])
        attacks[name] = {
            "mixture": share((labels == both).sum(), len(labels)),
            "static": share((static == fooled.labels).sum(), len(fooled)),
            "reattacked": _share(_stood(arm.new[name])) if name in arm.new else None,
            "success": share(arm.new[name].success.sum(), arm.new[name].attempted) if name in arm.new else None,
        }
        errors[name] = _errors(arm.classifier.classes, labels, both)
    return {
        "name": arm.classifier.name,
        "clean": share((guess == arm.test.labels).sum(), len(arm.test)),
        "attacks": attacks,
        **_beyond(arm),
        "errors": errors,
    }


def _beyond(arm: Arm) -> dict[str, Any]:
    """The columns of all attacks against these very weights: strong, adaptive, and the worst case per image."""
    stood = {name: _stood(hit) for name, hit in arm.new.items() if name not in arm.controls}
    strong: dict[str, Any] | None = None
    adaptive: dict[str, Any] | None = None
    if arm.strong:
        name, hit = arm.strong
        stood[name] = _stood(hit)
        strong = {"attack": name, "robust": _share(stood[name])}
        if arm.adaptive is not None:
            made = arm.adaptive.adversarial
            right = (predict(arm.classifier, made.pixels).argmax(1) == made.labels).tolist()
            stood[name] = {i: stood[name][i] and after for i, after in zip(made.ids, right, strict=True)}
            adaptive = {"attack": name, "standing": _share(stood[name])}
    shared = set.intersection(*map(set, stood.values())) if stood else set()
    worst = _share({i: all(one[i] for one in stood.values()) for i in shared})
    return {
        "strong": strong,
        "adaptive": adaptive,
        "worst": {"attacks": list(stood), "standing": worst} if worst else None,
    }


def _stood(attacked: Attacked) -> dict[str, bool]:
    """Image id to whether the image was classified correctly and still is after the attack."""
    stands = ~attacked.skipped & (attacked.logits.argmax(1) == attacked.clean.labels)
    return dict(zip(attacked.clean.ids, stands.tolist(), strict=True))


def _share(stood: Mapping[str, bool]) -> dict[str, Any] | None:
    return share(sum(stood.values()), len(stood))


def _errors(classes: tuple[str, ...], labels: Tensor, guess: Tensor) -> list[dict[str, Any]]:
    """Type I and II errors, each class in turn taken as the positive one (paper, section 2.1)."""
    table = []
    for number, name in enumerate(classes):
        own = labels == number
        table.append(
            {
                "class": name,
                "false_positives": share((guess[~own] == number).sum(), int((~own).sum())),
                "false_negatives": share((guess[own] != number).sum(), int(own.sum())),
            }
        )
    return table
