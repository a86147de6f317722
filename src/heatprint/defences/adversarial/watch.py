"""Watching an adversarial training: accuracy of held-out images after each epoch, and the alarm when it collapses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks import attack
from heatprint.attacks.pgd import PGD
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.data.splits import sample
from heatprint.defences.adversarial.inner import InnerNorm, attackable, usual_step
from heatprint.models.lesson import Objective, Validation
from heatprint.models.train import Training, train

SHARE, LEAST, MOST = 0.05, 64, 256
Balls = tuple[tuple[InnerNorm, float], ...]


class CollapseWarning(UserWarning):
    """A training ended because its network withstands single steps and nothing else, or is of no use."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a training is watched, which epoch of it is kept, and what ends it early.

    Of the training images 5 % are held out, in equal shares of the classes, chosen by hash of id: at least 64, at
    most 256, never more than half. After each epoch they are classified clean, after one step of `eps` (FGSM) and
    after PGD, as 8-bit images.

    The alarm is for catastrophic overfitting (Wong, Rice and Kolter 2020): within an epoch a network
    learns to withstand single steps, and PGD takes all of it. A plain network, too, falls to PGD far more often than
    to one step, and on its way to a good one the gap may widen for a while. So the gap counts as far as it has grown
    since before the training, and where PGD accuracy is no better than it was.

    A network that gives one answer to everything stands every attack on the images of that class. Such an epoch is
    never the best one while there is another, and if it is all there is, that is told.

    Attributes:
        steps: Iterations of the PGD that watches.
        score: What decides which epoch's weights are kept: accuracy after ``"pgd"``, the ``"mean"`` of that and clean
            accuracy, or ``"last"``, the last epoch whatever it is worth.
        patience: Epochs without a better score after which the training ends; 0 for never.
        alarm: Whether a collapse ends the training.
        gap: Alarm where FGSM accuracy has moved away from PGD accuracy by more than this share.
        fall: Alarm where PGD accuracy is below its best so far by more than this share.
    """

    steps: int = 10
    score: Literal["pgd", "mean", "last"] = "pgd"
    patience: int = 3
    alarm: bool = True
    gap: float = 0.2
    fall: float = 0.2

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise InvalidInput(f"Watch: steps = {self.steps} must be 2 or more: one step is FGSM, watched beside it.")
        if self.score not in ("pgd", "mean", "last"):
            raise InvalidInput(f"Watch: score = {self.score!r} must be 'pgd', 'mean' or 'last'.")
        if self.patience < 0:
            raise InvalidInput(f"Watch: patience = {self.patience} must be 0 (never) or a number of epochs.")
        for name in ("gap", "fall"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInput(f"Watch: {name} = {getattr(self, name)} must be a share in (0, 1], e.g. 0.2.")

    def parts(self, data: Batch) -> tuple[Batch, Batch]:
        """Images to learn from and images held out.

        Raises:
            InvalidInput: There are too few to hold any out.
        """
        if len(data) < 4:
            raise InvalidInput(f"Watch: {len(data)} training images are too few to hold some out; give 4 or more.")
        count = min(max(LEAST, min(MOST, int(SHARE * len(data)))), len(data) // 2)
        held = sample(data, count)
        learnt = torch.ones(len(data), dtype=torch.bool)
        learnt[held] = False
        return data.take(learnt.nonzero().squeeze(1)), data.take(held)

    def measure(self, classifier: Classifier, held: Batch, balls: Balls, seed: int) -> dict[str, float]:
        """Accuracy of held-out images, shares in [0, 1].

        Returns:
            ``"clean"``; ``"fgsm"`` and ``"pgd"``, where an image counts that stands in every one of the balls; how
            many classes are among the ``"answers"`` to clean images; and the ``"score"``, 0 where that is one.
        """
        stood: dict[str, Tensor] = {}
        for norm, eps in balls:
            tried = {
                "fgsm": PGD(eps=eps, norm=norm, step=eps, steps=1, random_start=False),
                "pgd": PGD(eps=eps, norm=norm, step=usual_step(eps, self.steps), steps=self.steps),
            }
            for name, method in tried.items():
                with attackable(classifier.network):
                    made = attack(classifier, held, method, seed=seed)
                stood["clean"] = ~made.skipped
                stood[name] = stood.get(name, stood["clean"]) & stood["clean"] & ~made.success
        found = {name: round(float(right.double().mean()), 6) for name, right in stood.items()}
        answers = len(set(made.clean_logits.argmax(1).tolist()))
        score = found["pgd"] if self.score == "pgd" else (found["clean"] + found["pgd"]) / 2
        return found | {"answers": answers, "score": round(score, 6) if answers > 1 else 0.0}

    def collapse(self, history: Sequence[Mapping[str, float]], before: Mapping[str, float] | None = None) -> str:
        """Why the training must end after the last epoch of `history`; empty if it need not.

        Args:
            history: What was measured after each epoch.
            before: What was measured before the first.
        """
        now = history[-1]
        earlier = [epoch["pgd"] for epoch in history[:-1] if epoch["answers"] > 1]
        known = [*earlier, before["pgd"]] if before and before["answers"] > 1 else earlier
        grown = now["fgsm"] - now["pgd"] - (before["fgsm"] - before["pgd"] if before else 0)
        if grown > self.gap and not (known and now["pgd"] > max(known)):
            return f"accuracy is {now['fgsm']:.1%} after one step and {now['pgd']:.1%} after PGD"
        if earlier and max(earlier) - now["pgd"] > self.fall:
            return f"accuracy after PGD fell from {max(earlier):.1%} to {now['pgd']:.1%}"
        return ""


def watched(
    classifier: Classifier,
    data: Batch,
    held: Batch,
    training: Training,
    objective: Objective | None,
    watch: Watch,
    balls: Balls,
    *,
    seed: int,
    checkpoint: Path | None,
    progress: Progress,
) -> Classifier:
    """Train, watched: `heatprint.models.train` with a validation, whose numbers the progress notes tell.

    Args:
        classifier: Where training starts.
        data: Images to learn from.
        held: Images held out, of the classifier's size.
        training: The recipe; it must end at the classifier's image size, or the radius would mean something else.
        objective: What is minimised.
        watch: How it is watched.
        balls: Norms and radii of the attacks that watch.
        seed: Of everything random.
        checkpoint: A file from which the training resumes.
        progress: Told of every step, and of the accuracies after each epoch.

    Raises:
        InvalidInput: Images or the recipe's last stage are of another size than the classifier's.
    """
    _check_sizes(classifier, held, training)
    teller = _Teller(progress, len(held))
    before = watch.measure(classifier, held, balls, seed)
    teller.tell("before training", before)

    def measure(now: Classifier) -> Mapping[str, float]:
        found = watch.measure(now, held, balls, seed)
        teller.tell("", found)
        return found

    validation = Validation(
        measure=measure,
        score="" if watch.score == "last" else "score",
        patience=watch.patience,
        alarm=(lambda history: watch.collapse(history, before)) if watch.alarm else None,
        key=(watch, balls, held.ids, held.pixels, held.labels),
    )
    safe, epochs = train(
        classifier, data, training, objective=objective, validation=validation, seed=seed, checkpoint=checkpoint,
        progress=teller,
    )  # fmt: skip
    _warn([epoch.measured for epoch in epochs], watch, before, len(held), teller)
    return safe


def _warn(
    history: Sequence[Mapping[str, float]], watch: Watch, before: Mapping[str, float], held: int, teller: _Teller
) -> None:
    """Say that a training collapsed, or that what is left of it answers one class only."""
    scores = [epoch["score"] for epoch in history]
    kept = len(history) - 1 if watch.score == "last" else scores.index(max(scores))
    left = f"The weights after epoch {kept + 1} are kept ({_spelled(history[kept])})."
    advice = "Take a smaller eps, a smaller learning rate or more steps per attack."
    said = watch.collapse(history, before) if watch.alarm else ""
    if said:
        said = f"the training collapsed in epoch {len(history)} and was ended: of {held} held-out images {said}. {left}"
    elif history[kept]["answers"] == 1:
        said = f"the network answers the same class to all {held} held-out images; what stands is of that class. {left}"
    if said:
        teller.end(said)
        warnings.warn(f"{said} {advice}", CollapseWarning, stacklevel=2)


def _check_sizes(classifier: Classifier, held: Batch, training: Training) -> None:
    size, images, last = classifier.size, tuple(held.pixels.shape[2:]), training.stages[-1]
    if images != (size, size):
        raise InvalidInput(
            f"adversarial training: images are {images[0]}x{images[1]}, {classifier.name!r} takes {size}x{size}. "
            f"Load them with size={size}."
        )
    if (last[1] or size) != size:
        raise InvalidInput(
            f"adversarial training: the training ends at {last[1]} px, {classifier.name!r} takes {size}; a radius in "
            f"resampled images is another one. Write stages ending in ({last[0]}, 0)."
        )


def _spelled(found: Mapping[str, float]) -> str:
    return f"clean {found['clean']:.1%}, FGSM {found['fgsm']:.1%}, PGD {found['pgd']:.1%}"


class _Teller:
    """A progress whose notes also tell what was measured last."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress, self._count = progress, count
        self._done, self._total, self._note, self._said = 0, 1, "", ""

    def __call__(self, done: int, total: int, note: object = "") -> None:
        self._done, self._total, self._note = done, total, str(note)
        self._progress(done, total, self._note + self._said)

    def tell(self, when: str, found: Mapping[str, float]) -> None:
        """Tell what was found: before training, or after the epoch that the last note named."""
        when = when or f"after {self._note}"
        self._said = f" ({when}: {_spelled(found)} of {self._count} held-out images)"
        self._progress(self._done, self._total, self._note + self._said)

    def end(self, said: str) -> None:
        """Tell how it ended."""
        self._progress(self._done, self._total, said)
