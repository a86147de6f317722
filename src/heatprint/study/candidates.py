"""Defences to choose from: read from a file, made once, kept in the run folder as models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput, ModelMismatch, UnknownName, UnreadableData, Unsupported
from heatprint.core.protocols import Defence
from heatprint.core.reading import parse_toml, read_json, read_toml
from heatprint.core.registry import validated
from heatprint.core.store import Store
from heatprint.core.values import Batch
from heatprint.defences import DEFENCES, defend
from heatprint.defences.route import REJECTED, RESTORED, ROUTED
from heatprint.models import load, save
from heatprint.models.checkpoint import CARD
from heatprint.models.resume import UNFINISHED, discard
from heatprint.study.artefact import CARRIERS
from heatprint.study.progress import Watch

VERSION = 1  # raise it when a defence's result changes for equal settings
MODELS, CLEAR, CONTROL = "models", "clear", "clean_control"
NOTE = "candidate"  # under which a model's card keeps what it was made from
RESERVED = (CLEAR, *CARRIERS, RESTORED, RESTORED.replace(" ", "-"), REJECTED, ROUTED)  # no defences, or no models


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
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) or self.name in (*RESERVED, CONTROL):
            raise InvalidInput(
                f"candidate: name = {self.name!r} names a folder: write small letters, digits, - and _, and none of "
                f"{', '.join((*RESERVED, CONTROL))}."
            )
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
        content = read_toml(path) if path else parse_toml(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"candidates: {source} cannot be read ({error}).") from error
    tables = content.get("candidates")
    if set(content) != {"candidates"} or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise InvalidInput(f"candidates: {source} must have one table [[candidates]] for each defence and no others.")
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
    left_out: dict[str, str] = {}
    for one in candidates:
        folder = store.root / MODELS / one.name
        note = {
            "of": classifier.digest,
            "key": digest(VERSION, one.make(), seed, train.ids, train.pixels, train.labels),
        }
        with watch.step(f"defence {one.name}") as progress:
            if (folder / CARD).exists() and _noted(folder) is None:
                left_out[f"{one.name} (asked for)"] = "the run has another model of that name, which is kept"
                continue
            if _noted(folder) == note and _read(folder):
                continue  # made before
            try:
                safe = defend(
                    classifier, train, one.make(), name=one.name, seed=seed, progress=progress,
                    checkpoint=folder / UNFINISHED, keep_checkpoint=True,
                )  # fmt: skip
            except (InvalidInput, Unsupported) as error:  # not for this network
                left_out[one.name] = str(error)
                continue
            save(safe, folder, notes={NOTE: note})
            discard(folder / UNFINISHED)
    defended: dict[str, Classifier] = {}
    for folder in sorted((store.root / MODELS).iterdir()):
        if folder.name in RESERVED or folder.name in left_out or not (folder / CARD).exists():
            continue
        found, noted = _read(folder), _noted(folder)
        if found is None or (found.classes, found.size) != (classifier.classes, classifier.size):
            left_out[folder.name] = "it is damaged" if found is None else "it has other classes or another image size"
        elif noted and noted.get("of") != classifier.digest:
            left_out[folder.name] = "it defends an earlier classifier of this run"
        else:
            defended[folder.name] = found.to(classifier.device)
    return defended, left_out


def _noted(folder: Path) -> dict[str, str] | None:
    """What a model was made from as a candidate; None where it is none, or somebody else's."""
    try:
        noted = read_json(folder / CARD)["notes"][NOTE]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(noted) if isinstance(noted, dict) else {}


def _read(folder: Path) -> Classifier | None:
    """The model, or None where it cannot be read."""
    try:
        return load(folder, name=folder.name)
    except (UnreadableData, ModelMismatch):
        return None
