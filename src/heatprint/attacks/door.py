"""The door of the room: an attack perturbs, the door judges.

It leaves out images that are misclassified already, hands the attack the access it declared, rounds the result
to 8 bits, sends it through a PNG file, predicts again, measures distances, counts queries and decides success.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.attacks.access import ScoreAccess, WhiteBox
from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.goals import targeted, untargeted
from heatprint.core.lattice import decode_pngs, encode_pngs, to_pixels
from heatprint.core.norms import distances
from heatprint.core.protocols import Attack, Progress, silent
from heatprint.core.streams import Streams
from heatprint.core.values import Attacked, Batch, Perturbed
from heatprint.models.predict import predict


def attack(
    classifier: Classifier,
    batch: Batch,
    method: Attack,
    *,
    targets: Tensor | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Attacked:
    """Attack the images a classifier gets right.

    Args:
        classifier: The victim; bit-identical afterwards.
        batch: Images and true labels; nothing is written into them.
        method: An attack, e.g. ``attacks.make("fgsm")``.
        targets: Classes to reach, int64 [N]; without them any wrong class counts.
        seed: With the image ids it decides every random number the attack draws.
        progress: Told how far it is.

    Returns:
        One row per image, in order; images misclassified before are returned unchanged and marked `skipped`.

    Raises:
        InvalidInput: Image size, labels or targets do not fit the classifier.
        BrokenContract: The attack returned something other than images in [0, 1].
    """
    _check(classifier, batch, method, targets)
    labels = batch.labels
    clean_logits = predict(classifier, batch.pixels)
    skipped = clean_logits.argmax(1) != labels
    rows = (~skipped).nonzero().squeeze(1)
    victims = batch.take(rows)
    goal = untargeted(victims.labels) if targets is None else targeted(victims.labels, targets[rows])
    handle = (WhiteBox if method.taxonomy.knowledge == "white box" else ScoreAccess)(classifier, goal)
    purpose = f"attack:{digest(method, targets is not None)}"
    made = Perturbed(images=victims.images, step=torch.full((len(victims),), -1))
    if len(victims):
        made = method.perturb(
            handle,
            victims.images,
            goal,
            streams=Streams(seed=seed, purpose=purpose, ids=victims.ids),
            progress=progress,
        )
    _check_result(method, made, len(victims), victims.pixels.shape)
    pixels = batch.pixels.clone()
    pixels[rows] = _saved_and_read(to_pixels(made.images.cpu()))
    logits = clean_logits.clone()
    logits[rows] = predict(classifier, pixels[rows])
    success = torch.zeros(len(batch), dtype=torch.bool)
    success[rows] = goal.reached(logits[rows])
    return Attacked(
        clean=batch,
        adversarial=batch.with_pixels(pixels),
        success=success,
        skipped=skipped,
        step=_spread(made.step.cpu(), rows, len(batch), -1),
        distance=distances(batch.pixels, pixels),
        forwards=_spread(handle.forwards, rows, len(batch), 0),
        backwards=_spread(handle.backwards, rows, len(batch), 0),
        clean_logits=clean_logits,
        logits=logits,
        trace={name: _spread(value.cpu(), rows, len(batch), 0) for name, value in made.trace.items()},
    )


def _check(classifier: Classifier, batch: Batch, method: Attack, targets: Tensor | None) -> None:
    side, n, k = batch.pixels.shape[-1], len(batch), len(classifier.classes)
    if batch.pixels.shape[2:] != (classifier.size, classifier.size):
        raise InvalidInput(
            f"attack: images are {batch.pixels.shape[2]}x{side}, {classifier.name!r} takes "
            f"{classifier.size}x{classifier.size}. Load them with size={classifier.size}."
        )
    for name, values in (("labels", batch.labels), ("targets", targets)):
        if values is not None and (len(values) != n or bool(((values < 0) | (values >= k)).any())):
            raise InvalidInput(f"attack: {name} must be {n} class numbers from 0 to {k - 1}.")
    if targets is not None and method.taxonomy.specificity == "untargeted":
        raise InvalidInput(f"attack: {type(method).__name__} cannot aim at a class; leave targets out.")


def _check_result(method: Attack, made: Perturbed, count: int, shape: torch.Size) -> None:
    images = made.images
    if images.shape != shape or made.step.shape != (count,):
        raise BrokenContract(
            f"attack: {type(method).__name__} returned images {list(images.shape)} and steps "
            f"{list(made.step.shape)} for {count} images {list(shape)}."
        )
    if images.numel() and not bool(((images >= -1e-6) & (images <= 1 + 1e-6)).all()):
        raise BrokenContract(f"attack: {type(method).__name__} returned pixels outside [0, 1].")


def _saved_and_read(pixels: Tensor) -> Tensor:
    """What is left of the images after being saved as PNG files and read again."""
    return decode_pngs(encode_pngs(pixels), like=pixels)


def _spread(values: Tensor, rows: Tensor, count: int, fill: int) -> Tensor:
    """Values of the attacked rows, among all rows."""
    out = torch.full((count, *values.shape[1:]), fill, dtype=values.dtype)
    out[rows] = values
    return out
