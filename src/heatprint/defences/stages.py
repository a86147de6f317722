"""Defences that train more than one network: a file for each training, and one progress for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heatprint.core.protocols import Progress


@contextmanager
def files(checkpoint: Path | None, *names: str) -> Iterator[list[Path | None]]:
    """Where each of several trainings keeps its state, beside `checkpoint`.

    They go away when all is done, and stay when it is interrupted, so that a later call resumes.
    """
    made = [checkpoint and checkpoint.with_stem(f"{checkpoint.stem}.{name}") for name in names]
    yield made
    for file in made:
        if file is not None:
            file.unlink(missing_ok=True)


def stage(progress: Progress, number: int, of: int, name: str) -> Progress:
    """A progress for one of several steps of equal length, numbered from 0."""

    def told(done: int, total: int, note: object = "") -> None:
        progress(number * total + done, of * total, f"{name}, {note}" if note else name)

    return told
