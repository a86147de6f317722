"""The door of the room: a run folder in, a folder for another tool out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from heatprint.core.errors import InvalidInput, StoreError, UnknownName
from heatprint.core.reading import fitting_together
from heatprint.core.store import in_the_way
from heatprint.export.csv import write_csv
from heatprint.export.huggingface import write_huggingface
from heatprint.export.virelay import write_virelay
from heatprint.runs.finished import Finished, read_finished

TARGETS: dict[str, Callable[[Finished, Path], None]] = {
    "csv": write_csv,
    "huggingface": write_huggingface,
    "virelay": write_virelay,
}


def export(run: Path, to: str, out: Path) -> Path:
    """Write a run's atlas in the form of another tool.

    The folder is written under a temporary name beside `out` and renamed when it is complete, so that `out` holds
    all of it or does not exist.

    Args:
        run: The folder that `heatprint study --out` wrote.
        to: ``"csv"``, ``"huggingface"`` or ``"virelay"``.
        out: A new or empty folder.

    Returns:
        The absolute path of `out`.

    Raises:
        UnknownName: There is no such target.
        InvalidInput: `out` is not empty, lies in the run folder, or below a file.
        StoreError: The run has no atlas, or is damaged.
        MissingExtra: ``"virelay"`` needs h5py.
    """
    if to not in TARGETS:
        raise UnknownName("export: the target", to, TARGETS)
    _check_place(run, out)
    with _whole(run):
        finished = read_finished(run)
    out = out.resolve()
    torn = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    torn.mkdir(parents=True)
    try:
        with _whole(run):
            TARGETS[to](finished, torn)
        torn.replace(out)
    finally:
        shutil.rmtree(torn, ignore_errors=True)  # gone already where the rename worked
    return out


def _whole(run: Path) -> AbstractContextManager[None]:
    """What is raised, inside, where columns of a run are missing or of another kind, as a `StoreError`."""
    return fitting_together(
        lambda what: StoreError(
            f"export: what {run} holds does not fit together ({what}). Run again: heatprint study --out {run}"
        ),
        pa.ArrowException,
    )


def _check_place(run: Path, out: Path) -> None:
    """Refuse what cannot be written to, by the name the caller gave it."""
    blocked = in_the_way(out.resolve())
    if blocked:
        raise InvalidInput(f"export: {out} cannot be made, since {blocked} is a file. Name a new folder.")
    if out.resolve().is_relative_to(run.resolve()):
        raise InvalidInput(f"export: {out} lies in the run folder {run}, which is the study's own. Name another place.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidInput(f"export: {out} is not an empty folder. Name a new one.")
