"""What a finished command leaves in a run folder, so that what is lost or altered later is noticed.

    RUN/_done/study.json       of `heatprint study`
    RUN/_done/forensics.json   of `heatprint detect --benchmark`
    RUN/_done/defence.json     of `heatprint defend --auto`

An inventory is a mark of the whole: the digests of the files that no part's mark knows, and how many parts each step
has. It is taken away when the command begins and written last. Nothing that computes asks it; ``heatprint doctor``
does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heatprint.core.digest import file_digest
from heatprint.core.errors import StoreError
from heatprint.core.store import read_mark, remove, write_mark

STUDY, LABORATORY, LOOP = OWNERS = ("study", "forensics", "defence")
DONE, MODELS, CARD, WEIGHTS = "_done", "models", "card.json", "model.safetensors"
IMAGES = "images/_done/images.json"
LOOSE = {
    STUDY: ("schema.json", "recipe.json", "run.json", "metrics.json", "report.html", IMAGES),
    LABORATORY: ("forensics.json", "forensics/fitted/*"),
    LOOP: ("defence.json", "defence.html", "defence/fitted/*"),
}
ADDED = "candidate"  # note in the card of a model that `heatprint defend` has made


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a command left.

    Attributes:
        files: Path inside the run to the file's digest.
        steps: Step to the number of its parts.
    """

    files: Mapping[str, str]
    steps: Mapping[str, int]


def path_of(root: Path, name: str) -> Path:
    """Where the inventory of a command stands."""
    return root / DONE / f"{name}.json"


def owner_of(path: str) -> str:
    """Whose a path inside the run is, unless an inventory says otherwise."""
    first = path.partition("/")[0].partition(".")[0]
    return first if first in (LABORATORY, LOOP) else STUDY


@contextmanager
def inventoried(root: Path, name: str) -> Iterator[None]:
    """Do what a command does; where that ends well, note what it left."""
    remove(path_of(root, name))
    yield
    files = {path: file_digest(root / path) for path in sorted(_loose(root, name))}
    write_mark(path_of(root, name), {"files": files, "steps": dict(sorted(_steps(root, name)))})


def amend(root: Path, name: str, file: str) -> None:
    """Note that a file of a finished command was written anew, by intention; nothing where it is not finished."""
    try:
        known = read_inventory(root, name)
    except (StoreError, FileNotFoundError):
        return
    files = {**known.files, file: file_digest(root / file)}
    write_mark(path_of(root, name), {"files": dict(sorted(files.items())), "steps": dict(known.steps)})


def read_inventory(root: Path, name: str) -> Inventory:
    """What a command left.

    Raises:
        FileNotFoundError: It has not ended, or an older version wrote the folder.
        StoreError: It is damaged.
    """
    mark = read_mark(path_of(root, name))
    files, steps = mark.get("files"), mark.get("steps")
    if not isinstance(files, dict) or not isinstance(steps, dict):
        raise StoreError(f"store: {path_of(root, name)} is damaged: it is no inventory.")
    return Inventory(files=files, steps=steps)


def _loose(root: Path, name: str) -> Iterator[str]:
    for pattern in LOOSE[name]:
        for path in root.glob(pattern):
            if path.is_file():
                yield path.relative_to(root).as_posix()
    for card in (root / MODELS).glob(f"*/{CARD}"):
        if name == _maker(card):
            for path in (card, card.with_name(WEIGHTS)):
                yield path.relative_to(root).as_posix()


def _maker(card: Path) -> str:
    """The command that made a model."""
    return LOOP if ADDED in json.loads(card.read_bytes()).get("notes", {}) else STUDY


def _steps(root: Path, name: str) -> Iterator[tuple[str, int]]:
    for folder, below, _ in os.walk(root):
        step = Path(folder).relative_to(root).as_posix()
        if DONE in below and owner_of(step) == name:
            parts = sum(entry.name.startswith("part-") for entry in os.scandir(Path(folder, DONE)))
            if parts:
                yield step, parts
