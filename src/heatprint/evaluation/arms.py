"""One arm of a study: a classifier measured on clean images, on old adversarials, and attacked anew.

The paper's Table 1 is a mixture: clean images and the successful adversarials among them. It is printed as published
and never alone: beside it stand the old adversarials by themselves, the same attack made anew against these weights,
and a strong attack.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    classifier: Classifier
    test: Batch
    old: Mapping[str, Attacked]
    new: Mapping[str, Attacked]
    strong: tuple[str, Attacked] | None


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
            "reattacked": _standing(arm.new.get(name)),
            "success": share(arm.new[name].success.sum(), arm.new[name].attempted) if name in arm.new else None,
        }
        errors[name] = _errors(arm.classifier.classes, labels, both)
    return {
        "name": arm.classifier.name,
        "clean": share((guess == arm.test.labels).sum(), len(arm.test)),
        "attacks": attacks,
        "strong": {"attack": arm.strong[0], "robust": _standing(arm.strong[1])} if arm.strong else None,
        "errors": errors,
    }


def _standing(attacked: Attacked | None) -> dict[str, Any] | None:
    """Images that were classified correctly and still are after the attack, of all images it was run on."""
    if attacked is None:
        return None
    return share((~attacked.skipped & ~attacked.success).sum(), len(attacked.clean))


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
