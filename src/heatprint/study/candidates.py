"""Defences to choose from: read from a file, made once, kept in the run folder as models."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput, UnknownName, Unsupported
from heatprint.core.protocols import Defence
from heatprint.core.registry import validated
from heatprint.core.store import Store
from heatprint.core.values import Batch
from heatprint.defences import DEFENCES, defend
from heatprint.models import load, save
from heatprint.models.checkpoint import CARD
from heatprint.study.progress import Watch

VERSION = 1  # raise it when a defence's result changes for equal settings
MODELS, CLEAR = "models", "clear"
NOTE = "candidate"  # under which a model's card keeps what it was made from


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A defence that needs no attacked images.

    Attributes:
        name: Of the model in the run folder, and in tables.
        method: In the room of defences.
        settings: Of it.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) or self.name == CLEAR:
            raise InvalidInput(f"candidate: name = {self.name!r} names a folder beside {CLEAR!r}; write another.")
        if getattr(self.make(), "attacks", ()):
            raise InvalidInput(
                f"candidate {self.name!r}: {self.method} learns from attacks, which a study makes; write it into a "
                "recipe, whose models are compared here, too."
            )

    def make(self) -> Defence:
        """The defence."""
        return DEFENCES.make(self.method, **self.settings)


def read_candidates(path: Path | None = None, only: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """The candidates of a TOML file, by default heatprint's own.

    Args:
        path: The file.
        only: Names to take; all without any.

    Raises:
        InvalidInput: It cannot be read, names one twice, or a candidate has a field or value that is not valid.
        UnknownName: A name in `only` that the file does not have.
    """
    source = path or resources.files("heatprint.study") / "candidates.toml"
    try:
        tables = tomllib.loads(source.read_text(encoding="utf-8")).get("candidates", [])
    except (OSError, ValueError) as error:
        raise InvalidInput(f"candidates: {source} cannot be read ({error}).") from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidInput(f"candidates: {source} must have one table [[candidates]] for each defence.")
    found = {one.name: one for number, table in enumerate(tables)
             for one in [validated(f"candidates: {number + 1}", Candidate, table)]}  # fmt: skip
    if len(found) != len(tables):
        raise InvalidInput(f"candidates: {source} names one twice. Give each a name of its own.")
    for name in only:
        if name not in found:
            raise UnknownName("candidates: the defence", name, sorted(found))
    return tuple(one for one in found.values() if not only or one.name in only)


def made(
    classifier: Classifier,
    train: Batch,
    candidates: Sequence[Candidate],
    store: Store,
    *,
    seed: int,
    watch: Watch,
) -> tuple[dict[str, Classifier], dict[str, str]]:
    """All defended classifiers of the run folder: its own, and the candidates, which are made if they are not there.

    Returns:
        Name to classifier, and name to why one is left out: a defence this network cannot have, or a model of the
        folder that has other classes.
    """
    defended, left_out = {}, {}
    for one in candidates:
        folder = store.root / MODELS / one.name
        key = digest(VERSION, classifier.digest, one.make(), seed, train.ids, train.pixels, train.labels)
        with watch.step(f"defence {one.name}") as progress:
            if _noted(folder) in (key, None) and (folder / CARD).exists():
                continue  # made before, or somebody's own of that name
            try:
                safe = defend(
                    classifier, train, one.make(), name=one.name, seed=seed, progress=progress,
                    checkpoint=folder / "unfinished.safetensors",
                )  # fmt: skip
            except (InvalidInput, Unsupported) as error:  # not for this network
                left_out[one.name] = str(error)
                continue
            save(safe, folder, notes={NOTE: key})
    for folder in sorted((store.root / MODELS).iterdir()):
        if folder.name == CLEAR or folder.name in left_out or not (folder / CARD).exists():
            continue
        found = load(folder, name=folder.name).to(classifier.device)
        if (found.classes, found.size) == (classifier.classes, classifier.size):
            defended[folder.name] = found
        else:
            left_out[folder.name] = "it has other classes or another image size"
    return defended, left_out


def _noted(folder: Path) -> str | None:
    """What a model was made from as a candidate; None where it is none, or somebody else's."""
    try:
        noted = json.loads((folder / CARD).read_bytes()).get("notes", {}).get(NOTE)
    except (OSError, ValueError, AttributeError):
        return None
    return str(noted) if noted is not None else None
