"""Defences that train more than one network: a file for each training, and one progress for all."""

from __future__ import annotations

from pathlib import Path

from heatprint.core.protocols import Progress
from heatprint.models.resume import stage_file


def files(checkpoint: Path | None, *names: str) -> list[Path | None]:
    """Where each of several trainings keeps its state, beside `checkpoint`; whoever removes that removes them, too."""
    return [checkpoint and stage_file(checkpoint, name) for name in names]


def stage(progress: Progress, number: int, of: int, name: str) -> Progress:
    """A progress for one of several steps of equal length, numbered from 0."""

    def told(done: int, total: int, note: object = "") -> None:
        progress(number * total + done, of * total, f"{name}, {note}" if note else name)

    return told
