"""The door of the room: an attack perturbs, the door judges.

It leaves out images that are misclassified already, hands the attack the access it declared, rounds the result
to 8 bits, sends it through a PNG file, predicts again, measures distances, counts queries and decides success.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.attacks.access import HANDLES
from heatprint.attacks.ledger import UNLIMITED, Budget, Clock, Ledger
from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.goals import FLIP, Criterion, Goal, targeted, untargeted
from heatprint.core.lattice import decode_pngs, encode_pngs, to_pixels
from heatprint.core.norms import distances
from heatprint.core.protocols import Attack, Progress, silent
from heatprint.core.streams import Streams
from heatprint.core.values import Attacked, Batch, Perturbed
from heatprint.models.predict import predict

STREAM = 1024  # images held as floats at one time


def attack(
    classifier: Classifier,
    batch: Batch,
    method: Attack,
    *,
    targets: Tensor | None = None,
    criterion: Criterion = FLIP,
    budget: Budget = UNLIMITED,
    seed: int = 0,
    progress: Progress = silent,
) -> Attacked:
    """Attack the images a classifier gets right.

    Images go through the attack in streams of 1024, so that memory stays bounded however many there are.

    Args:
        classifier: The victim; bit-identical afterwards.
        batch: Images and true labels; nothing is written into them.
        method: An attack, e.g. ``attacks.make("fgsm")``.
        targets: Classes to reach, int64 [N]; without them any wrong class counts.
        criterion: How sure of its mistake the classifier must be for a success.
        budget: The most queries the attack may spend on an image.
        seed: With the image ids it decides every random number the attack draws.
        progress: Told how far it is; the note is a `heatprint.attacks.ledger.Tally`.

    Returns:
        One row per image, in order; images misclassified before are returned unchanged and marked `skipped`.

    Raises:
        InvalidInput: Image size, labels or targets do not fit the classifier.
        BrokenContract: The attack returned something other than images in [0, 1], or asked for what it may not see.
    """
    _check(classifier, batch, method, targets)
    clean_logits = predict(classifier, batch.pixels)
    skipped = clean_logits.argmax(1) != batch.labels
    victims = (~skipped).nonzero().squeeze(1)
    judged = _Judged(batch, clean_logits)
    clock = Clock(len(victims))
    stream = STREAM if method.taxonomy.scope == "image" else max(len(victims), 1)
    for rows in torch.split(victims, stream) if len(victims) else ():
        some = batch.take(rows)
        goal = (
            untargeted(some.labels, criterion) if targets is None else targeted(some.labels, targets[rows], criterion)
        )
        made, ledger = _run(classifier, some, method, goal, budget, seed, clock, progress)
        judged.add(rows, made, ledger, classifier, goal)
    return Attacked(
        clean=batch,
        adversarial=batch.with_pixels(judged.pixels),
        skipped=skipped,
        distance=distances(batch.pixels, judged.pixels),
        clean_logits=clean_logits,
        logits=judged.logits,
        trace=judged.trace,
        **judged.columns,
    )


def _run(
    classifier: Classifier,
    batch: Batch,
    method: Attack,
    goal: Goal,
    budget: Budget,
    seed: int,
    clock: Clock,
    progress: Progress,
) -> tuple[Perturbed, Ledger]:
    """One stream of images through the attack, with a handle of its own."""
    images, finished = batch.images, clock.done

    def told() -> None:
        if clock.due():
            tally = clock.tally(handle.ledger)
            progress(tally.attempted - tally.active, tally.attempted, tally)

    def shifted(done: int, total: int, note: object = "") -> None:
        del total, note
        clock.done = finished + done
        told()

    handle = HANDLES[method.taxonomy.knowledge](classifier, goal, images, budget=budget, told=told)
    streams = Streams(seed=seed, purpose=f"attack:{digest(method, goal.targeted)}", ids=batch.ids)
    made = method.perturb(handle, images, goal, streams=streams, progress=shifted)
    handle.release()
    _check_result(method, made, len(batch), batch.pixels.shape)
    clock.done = finished + len(batch)
    clock.close(handle.ledger)
    tally = clock.tally()
    progress(tally.attempted - tally.active, tally.attempted, tally)
    return made, handle.ledger


class _Judged:
    """The result, filled stream by stream: rounded, saved and read again, predicted and decided."""

    def __init__(self, batch: Batch, clean_logits: Tensor) -> None:
        count = len(batch)
        self.pixels, self.logits = batch.pixels.clone(), clean_logits.clone()
        self.columns = {
            "success": torch.zeros(count, dtype=torch.bool),
            "step": torch.full((count,), -1),
            "forwards": torch.zeros(count, dtype=torch.long),
            "backwards": torch.zeros(count, dtype=torch.long),
            "first_hit": torch.full((count,), -1),
        }
        self.trace: dict[str, Tensor] = {}

    def add(self, rows: Tensor, made: Perturbed, ledger: Ledger, classifier: Classifier, goal: Goal) -> None:
        """Judge one stream."""
        pixels = to_pixels(made.images.cpu())
        self.pixels[rows] = decode_pngs(encode_pngs(pixels), like=pixels)  # what is left after being saved
        self.logits[rows] = predict(classifier, self.pixels[rows])
        found = {
            "success": goal.reached(self.logits[rows]),
            "step": made.step.cpu(),
            "forwards": ledger.forwards,
            "backwards": ledger.backwards,
            "first_hit": ledger.first_hit,
        }
        for name, values in found.items():
            self.columns[name][rows] = values
        for name, values in made.trace.items():
            shape = (len(self.pixels), *values.shape[1:])
            self.trace.setdefault(name, torch.zeros(shape, dtype=values.dtype))[rows] = values.cpu()


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
