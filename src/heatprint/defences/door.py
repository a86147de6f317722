"""The door of the room: a defence makes a new classifier; the old one stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.protocols import Defence, Progress, silent
from heatprint.core.values import Attacked, Batch
from heatprint.models.resume import discard


def defend(
    classifier: Classifier,
    train: Batch,
    method: Defence,
    *,
    attacked: Mapping[str, Attacked] | None = None,
    name: str = "defended",
    seed: int = 0,
    checkpoint: Path | None = None,
    keep_checkpoint: bool = False,
    progress: Progress = silent,
) -> Classifier:
    """Apply a defence.

    Args:
        classifier: What is to be defended; bit-identical afterwards.
        train: Clean training images.
        method: A defence, e.g. ``defences.make("retrain", attacks=["fgsm"])``.
        attacked: Attacks on training images by name, for defences that learn from them.
        name: Name of the result.
        seed: Of everything random.
        checkpoint: A file from which a long training resumes; gone when it is done.
        keep_checkpoint: Whether it stays all the same, because the result is not safe before it is saved; see
            `heatprint.models.resume.discard`.
        progress: Told how far it is.

    Raises:
        InvalidInput: An attack the defence needs is not there.
        BrokenContract: The result has other classes or another image size, or the argument is not what it was.
    """
    before = fingerprints(classifier)
    needed = getattr(method, "attacks", ())
    missing = [a for a in needed if a not in (attacked or {})]
    if missing:
        raise InvalidInput(
            f"defend: {type(method).__name__} learns from {', '.join(missing)}, which was not given; "
            f"given: {', '.join(attacked or {}) or 'none'}. Attack training images with it first."
        )
    safe = method.protect(classifier, train, attacked or {}, seed=seed, checkpoint=checkpoint, progress=progress)
    if (safe.classes, safe.size) != (classifier.classes, classifier.size):
        raise BrokenContract(f"defend: {type(method).__name__} changed the classes or the image size.")
    if fingerprints(classifier) != before:
        raise BrokenContract(f"defend: {type(method).__name__} changed its argument. Let it change a copy.")
    if checkpoint is not None and not keep_checkpoint:
        discard(checkpoint)
    return safe.named(name)


def fingerprints(classifier: Classifier) -> tuple[object, ...]:
    """What must not change of a classifier: both of its networks, as they are now (its digest is remembered)."""
    both = classifier, replace(classifier, network=classifier.trainable)
    return tuple(one.fingerprint() for one in both)
