"""An attack on many images, part by part."""

from __future__ import annotations

import time
from dataclasses import dataclass

from heatprint.attacks import attack, attack_every_target
from heatprint.attacks.ledger import UNLIMITED, Budget, Spent, Tally
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import FLIP, Criterion
from heatprint.core.protocols import Attack, Progress, silent
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch
from heatprint.study.engines import Task
from heatprint.study.parts import Piece, Workshop, rows_of
from heatprint.study.records import from_part, joined, to_part

VERSION = 3  # raise it when a part changes for equal settings
PART = {"white box": 256, "none": 256, "score": 32, "label": 32}  # images a crash may cost


@dataclass(frozen=True, kw_only=True)
class Assault:
    """An attack and its rules.

    Attributes:
        method: The attack.
        every_target: Whether each class is aimed at in turn, and the nearest result kept.
        criterion: How sure of its mistake the classifier must be for a success.
        budget: The most the attack may ask about an image.
        seed: Of its random numbers.
    """

    method: Attack
    every_target: bool = False
    criterion: Criterion = FLIP
    budget: Budget = UNLIMITED
    seed: int = 0

    @property
    def part(self) -> int | None:
        """Images of a part; None where one perturbation is made for all of them."""
        taxonomy = self.method.taxonomy
        return PART[taxonomy.knowledge] if taxonomy.scope == "image" else None


def attacked(
    workshop: Workshop, step: str, classifier: Classifier, batch: Batch, how: Assault, progress: Progress = silent
) -> Attacked:
    """The images after the attack; parts that the run folder has are read, the others computed by the engine.

    Args:
        workshop: The run folder and its engine.
        step: Folder of the step.
        classifier: The victim.
        batch: The images.
        how: The attack.
        progress: Told of the images, with a `Tally` as note.

    Raises:
        InvalidInput: There are no images.
    """
    if not len(batch):
        raise InvalidInput("attack: there are no images.")
    pieces, cuts = [], rows_of(len(batch), how.part or max(len(batch), 1))
    for rows in cuts:
        pieces.append(
            Piece(
                key=(VERSION, classifier.digest, how, *batch.identity_of(rows)),
                images=len(rows),
                task=lambda rows=rows: Task(  # type: ignore[misc]
                    function=attacked_part, arguments={"batch": batch.take(rows), "how": how}
                ),
            )
        )
    parts = workshop.parts(step, classifier, pieces, progress, Fallen())
    whole = joined(batch, (from_part(part, batch.take(rows)) for part, rows in zip(parts, cuts, strict=True)))
    progress(len(batch), len(batch), f"{int(whole.success.sum())} successes")
    return whole


def attacked_part(classifier: Classifier, batch: Batch, how: Assault, progress: Progress = silent) -> Part:
    """One part of an attack."""
    run = attack_every_target if how.every_target else attack
    made = run(
        classifier,
        batch,
        how.method,
        seed=how.seed,
        criterion=how.criterion,
        budget=how.budget,
        progress=progress,
    )
    return to_part(made, classifier.classes)


class Fallen:
    """How an attack stands over all its parts; see `heatprint.study.parts.Tally`."""

    def __init__(self) -> None:
        self._finished = Spent()
        self._start = time.monotonic()

    def during(self, note: object, waiting: int) -> object:
        """The tally of the part now worked on, with those before and after it."""
        return note.after(self._finished, waiting=waiting) if isinstance(note, Tally) else note

    def add(self, part: Part, waiting: int) -> Tally:
        """The tally between two parts."""
        rows = part.rows
        self._finished += Spent(
            attempted=rows["skipped"].count(False),
            succeeded=sum(query >= 0 for query in rows["first_hit"]),
            forwards=sum(rows["forwards"]),
            backwards=sum(rows["backwards"]),
        )
        seconds = max(time.monotonic() - self._start, 1e-9)
        idle = Tally(
            attempted=0, active=0, succeeded=0, given_up=0, forwards=0, backwards=0, seconds_left=None,
            per_second=self._finished.forwards / seconds,
        )  # fmt: skip
        return idle.after(self._finished, waiting=waiting)
