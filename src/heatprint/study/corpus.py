"""Images of known history, for detectors to learn from and to be judged by: which attacks, with what settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heatprint.attacks import attack, make
from heatprint.attacks.vulnerability import pixel_reach
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, UnknownName
from heatprint.core.goals import Criterion
from heatprint.core.protocols import Progress, silent
from heatprint.core.reading import parse_toml, read_toml
from heatprint.core.registry import validated
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch
from heatprint.data.splits import sample
from heatprint.detectors.families import BENIGN, FAMILIES
from heatprint.study.attacking import Fallen
from heatprint.study.engines import Task
from heatprint.study.parts import Piece, Workshop, rows_of
from heatprint.study.progress import Watch
from heatprint.study.records import from_part, join_attacked, joined, take_attacked, to_part

VERSION = 2  # raise it when a trial's result changes for equal settings
PART = 64  # images a crash may cost


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way in which images are attacked, or changed without aim.

    Attributes:
        name: How tables call it, e.g. ``"pgd, confident"``; file name of its parts.
        algorithm: What an identifier is to say of it, in `detectors.families.FAMILIES`.
        method: Name in the room of attacks.
        settings: Of the attack.
        images: How many source images, chosen by hash of their id; None for all.
        margin: How sure of its mistake the classifier must be, in logits.
        ladder: Radii in 8-bit levels, tried in this order until an image falls; its step is a quarter of each.
        screened: Attack the images first that a single pixel can turn to first order, since a search for few pixels
            spends most of its time on those that none can; which images are attacked is then no random choice.
        unseen: Never learned from: it stands for attacks nobody thought of.
    """

    name: str
    algorithm: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    margin: float = 0.0
    ladder: tuple[int, ...] = ()
    screened: bool = False
    unseen: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in FAMILIES:
            raise UnknownName(f"trial {self.name!r}: the algorithm", self.algorithm, FAMILIES)
        if self.images is not None and self.images < 1:
            raise InvalidInput(f"trial {self.name!r}: images = {self.images} must be 1 or more; leave it out for all.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9 ,-]*", self.name):
            raise InvalidInput(f"trial: name = {self.name!r} names a folder; write small letters, digits and blanks.")
        first = {"eps": self.ladder[0] / 255, "step": self.ladder[0] / 1020} if self.ladder else {}
        make(self.method, **first, **self.settings)  # a mistake is met now, not after an hour

    @property
    def folder(self) -> str:
        """Its name without blanks."""
        return self.name.replace(", ", "-").replace(" ", "-")

    @property
    def is_attack(self) -> bool:
        """Whether it has an aim."""
        return FAMILIES[self.algorithm] not in BENIGN


def read_trials(path: Path | None = None) -> tuple[Trial, ...]:
    """The trials of a TOML file, by default heatprint's own.

    Raises:
        InvalidInput: It cannot be read, names one twice, or a trial has a field or a value that is not valid.
    """
    source = path or resources.files("heatprint.study") / "trials.toml"
    try:
        content = read_toml(path) if path else parse_toml(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"trials: {source} cannot be read ({error}).") from error
    tables = content.get("trials", [])
    if not isinstance(tables, list) or not tables:
        raise InvalidInput(f"trials: {source} has no [[trials]]. Write one table for each attack.")
    trials = tuple(validated(f"trials: {number + 1}", Trial, table) for number, table in enumerate(tables))
    folders = [trial.folder for trial in trials]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    if twice:
        raise InvalidInput(f"trials: {', '.join(twice)} is there more than once. Give each trial a name of its own.")
    return trials


def gather(
    classifier: Classifier, batch: Batch, trial: Trial, workshop: Workshop, *, seed: int, watch: Watch
) -> Attacked:
    """A trial on its source images, in parts that survive a crash.

    Args:
        classifier: The victim.
        batch: Images it did not learn from; of these the trial chooses its own.
        trial: What to do with them.
        workshop: The run folder and its engine.
        seed: Of the attack.
        watch: Shows progress.
    """
    chosen = batch.take(_chosen(classifier, batch, trial))
    cuts = rows_of(len(chosen), PART)
    about = (VERSION, classifier.digest, trial.method, trial.settings, trial.margin, trial.ladder, seed)
    pieces = [
        Piece(
            key=(*about, *chosen.identity_of(rows)),
            images=len(rows),
            task=lambda rows=rows: Task(  # type: ignore[misc]
                function=trial_part, arguments={"piece": chosen.take(rows), "trial": trial, "seed": seed}
            ),
        )
        for rows in cuts
    ]
    with watch.step(trial.name) as progress:
        parts = workshop.parts(f"forensics/images/{trial.folder}", classifier, pieces, progress, Fallen())
        return joined(chosen, (from_part(part, chosen.take(rows)) for part, rows in zip(parts, cuts, strict=True)))


def trial_part(classifier: Classifier, piece: Batch, trial: Trial, seed: int, progress: Progress = silent) -> Part:
    """One part of a trial."""
    del progress
    return to_part(run_trial(classifier, piece, trial, seed), classifier.classes)


def _chosen(classifier: Classifier, batch: Batch, trial: Trial) -> Tensor:
    if not trial.screened:
        return sample(batch, trial.images)
    reach = pixel_reach(classifier, batch)
    reach[~reach.isfinite()] = 0  # wrong already
    return reach.argsort(descending=True, stable=True)[: trial.images]  # in this order: more images keep their parts


def run_trial(classifier: Classifier, piece: Batch, trial: Trial, seed: int) -> Attacked:
    """One attack; or the smallest radius of a ladder at which it succeeds, the largest where none does."""
    criterion = Criterion(margin=trial.margin)
    if not trial.ladder:
        return attack(classifier, piece, make(trial.method, **trial.settings), criterion=criterion, seed=seed)
    standing, fallen = piece, []
    for level in trial.ladder:
        method = make(trial.method, eps=level / 255, step=level / 4 / 255, **trial.settings)
        tried = attack(classifier, standing, method, criterion=criterion, seed=seed)
        last = level == trial.ladder[-1]
        ended = torch.arange(len(standing)) if last else (tried.success | tried.skipped).nonzero().squeeze(1)
        fallen.append(take_attacked(tried, ended))
        standing = standing.take([row for row in range(len(standing)) if row not in set(ended.tolist())])
        if not len(standing):
            break
    whole = join_attacked(fallen)
    place = {name: row for row, name in enumerate(whole.clean.ids)}
    return take_attacked(whole, torch.tensor([place[name] for name in piece.ids]))
