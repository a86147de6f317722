"""The files of a run folder, sorted by what they can be held against."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heatprint.core.errors import StoreError
from heatprint.core.inventory import (
    CARD,
    DONE,
    IMAGES,
    MODELS,
    OWNERS,
    WEIGHTS,
    Inventory,
    owner_of,
    path_of,
    read_inventory,
)
from heatprint.core.store import LOCK

DATA, MARK = re.compile(r"(part-\d{5,})\.(parquet|safetensors)"), re.compile(r"(part-\d{5,})\.json")
ROOT = {"schema.json", "recipe.json", "run.json", "metrics.json", "report.html", "forensics.json", "defence.json",
        "defence.html"}  # fmt: skip
UNCHECKED = {LOCK, ".verified.json", "events.jsonl"}  # no result depends on what they say
UNFINISHED = "unfinished.safetensors"  # state of a training
PICTURES = {f"images/{split}.{kind}" for split in ("train", "test") for kind in ("npy", "parquet")} | {IMAGES}


@dataclass(kw_only=True)
class Layout:
    """A run folder.

    Attributes:
        root: The folder.
        inventories: Command to what it left; a command that has not ended, or whose inventory is damaged, is not there.
        torn: Commands whose inventory is damaged.
        parts: Step to number of a part, as in file names, to the names of its files; the mark's with ``_done/``.
        loose: Paths of files that no part's mark knows.
        models: Names of models.
        temporary: Paths left by a process that was killed.
        strange: Paths that heatprint does not write.
        size: Of all files, in bytes.
    """

    root: Path
    inventories: dict[str, Inventory] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    parts: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    models: dict[str, list[str]] = field(default_factory=dict)
    temporary: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    size: int = 0

    @classmethod
    def of(cls, root: Path) -> Layout:
        """Walk a folder."""
        layout = cls(root=root)
        for name in OWNERS:
            try:
                layout.inventories[name] = read_inventory(root, name)
            except FileNotFoundError:
                continue
            except StoreError:
                layout.torn.append(name)
        for folder, below, names in os.walk(root):
            below.sort()
            inside = Path(folder).relative_to(root)
            for name in [one for one in below if _is_temporary(one)]:
                layout.temporary.append((inside / name).as_posix())
                below.remove(name)
            for name in sorted(names):
                layout._sort(inside, name)
        return layout

    @property
    def digests(self) -> Mapping[str, str]:
        """Path to digest, of all files that an inventory knows."""
        return {path: known for one in self.inventories.values() for path, known in one.files.items()}

    def owner(self, path: str) -> str:
        """Whose a file is."""
        return next((name for name, one in self.inventories.items() if path in one.files), owner_of(path))

    def _sort(self, folder: Path, name: str) -> None:
        path, step = (folder / name).as_posix(), folder.parent if folder.name == DONE else folder
        if _is_temporary(name):
            self.temporary.append(path)
            return
        self.size += (self.root / path).lstat().st_size
        found = (MARK if folder.name == DONE else DATA).fullmatch(name)
        if path in UNCHECKED or path in (path_of(Path(), one).as_posix() for one in OWNERS):
            return
        if path in ROOT or path in PICTURES or folder.as_posix() in ("forensics/fitted", "defence/fitted"):
            self.loose.append(path)
        elif folder.parent.as_posix() == MODELS and name in (CARD, WEIGHTS, UNFINISHED):
            self.models.setdefault(folder.name, []).append(name)
        elif found:
            of_step = self.parts.setdefault(step.as_posix(), {})
            of_step.setdefault(found[1], []).append(f"{DONE}/{name}" if folder.name == DONE else name)
        else:
            self.strange.append(path)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")
