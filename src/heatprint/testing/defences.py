"""The contract of defences."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import torch

from heatprint.attacks import attack
from heatprint.attacks.pgd import PGD
from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, HeatprintError, InvalidInput
from heatprint.core.protocols import Defence
from heatprint.core.values import Attacked, Batch
from heatprint.data.sources import draw_batch
from heatprint.defences import defend
from heatprint.defences.door import fingerprints
from heatprint.models import load, predict
from heatprint.models.checkpoint import save
from heatprint.testing.promises import require, said
from heatprint.testing.victims import labelled_batch


def check_defence(method: Defence, classifier: Classifier | None = None, train: Batch | None = None) -> None:
    """Check what every defence must keep: its argument untouched, seeds, a saved result, files, progress, settings.

    It protects four times, so give it little to learn. A number among its settings that is below 0 or NaN must be
    refused by `InvalidInput`.

    Args:
        method: The defence.
        classifier: What it defends; a small untrained network by default. One of the zoo is also saved and loaded.
        train: Images to learn from; by default sixteen drawn animals, or random images as a classifier given labels
            them. If it learns from attacks it is given PGD on them under each of the names.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    start = classifier or load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)
    drawn = labelled_batch(start, 16) if classifier else draw_batch(16, "training_set", size=start.size, seed=0)
    images = train or drawn
    attacked = dict.fromkeys(getattr(method, "attacks", ()), attack(start, images, PGD(eps=16 / 255, steps=3), seed=0))
    _check_settings(method)
    before, pixels, labels = fingerprints(start), images.pixels.clone(), images.labels.clone()
    changed = {name: one.adversarial.pixels.clone() for name, one in attacked.items()}
    told: list[tuple[float, int, int]] = []
    first = defend(
        start, images, method, attacked=attacked, seed=3,
        progress=lambda done, total, note="": told.append((done / total, done, total)),
    )  # fmt: skip
    require(fingerprints(start) == before, method, "leaves the classifier bit-identical, without hooks and gradients")
    same = torch.equal(images.pixels, pixels) and torch.equal(images.labels, labels)
    same &= all(torch.equal(attacked[name].adversarial.pixels, old) for name, old in changed.items())
    require(same, method, "writes nothing into the images it learns from")
    shares = [share for share, _, _ in told]
    require(bool(told) and told[-1][1] == told[-1][2], method, "tells its progress up to the total")
    require(all(one <= two + 1e-9 for one, two in pairwise(shares)), method, "never goes back in its progress")
    _check_result(method, first, start, pixels)
    _check_repeated(method, first, start, images, attacked)
    _check_stacked(method, first, images, attacked)


def _check_result(method: Defence, safe: Classifier, start: Classifier, pixels: torch.Tensor) -> None:
    """A classifier like any other: of the same classes and size, finite, frozen, and the same from a folder."""
    require((safe.classes, safe.size) == (start.classes, start.size), method, "keeps the classes and the image size")
    logits = predict(safe, pixels)
    promise = "returns finite logits [N, K]"
    require(logits.shape == (len(pixels), len(start.classes)) and logits.isfinite().all(), method, promise)
    for network in (safe.network, safe.trainable):
        still = not any(module.training for module in network.modules())
        frozen = not any(p.requires_grad or p.grad is not None for p in network.parameters())
        require(still and frozen, method, "returns a network in evaluation mode, frozen and without gradients")
    if start.architecture:
        promise = "returns what can be saved, and answers the same when it is loaded"
        with tempfile.TemporaryDirectory() as folder:
            try:
                save(safe, folder)
                again = load(folder).to(safe.device)
            except HeatprintError as error:
                raise BrokenContract(said(method, promise)) from error
        require(torch.equal(predict(again, pixels), logits), method, promise)


def _check_repeated(
    method: Defence, first: Classifier, start: Classifier, images: Batch, attacked: Mapping[str, Attacked]
) -> None:
    """Equal bits from equal seeds, with a checkpoint as without, and nothing left of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "unfinished.safetensors"
        again = defend(start, images, method, attacked=attacked, seed=3, checkpoint=file)
        left = sorted(path.name for path in Path(folder).iterdir())
    require(not left, method, f"leaves no file behind when it is done (left: {', '.join(left)})")
    equal = again.digest == first.digest and torch.equal(predict(again, images.pixels), predict(first, images.pixels))
    require(equal, method, "repeats itself bit for bit with equal seeds, with a checkpoint or without")


def _check_stacked(method: Defence, first: Classifier, images: Batch, attacked: Mapping[str, Attacked]) -> None:
    """On a defended classifier it is a defence, too, or says clearly why it is none."""
    promise = "stands on a defended classifier, or raises one of heatprint's errors"
    try:
        twice = defend(first, images, method, attacked=attacked, seed=3)
    except BrokenContract:
        raise
    except HeatprintError:
        return
    except Exception as error:
        raise BrokenContract(said(method, promise)) from error
    _check_result(method, twice, first, images.pixels)


def _check_settings(method: Defence) -> None:
    """Numbers that cannot be meant are refused when the method is made."""
    for setting in fields(method):  # type: ignore[arg-type]
        value = getattr(method, setting.name)
        if not setting.init or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for wrong in (-1,) if isinstance(value, int) else (-1.0, math.nan):
            try:
                replace(method, **{setting.name: wrong})  # type: ignore[type-var]
            except InvalidInput:
                continue
            except Exception as error:
                raise BrokenContract(said(method, f"refuses {setting.name} = {wrong} by InvalidInput")) from error
            require(False, method, f"refuses {setting.name} = {wrong} by InvalidInput")
