"""What a finished run says of itself: `run.json` and `metrics.json`, with the keys that everybody reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatprint.core.errors import StoreError
from heatprint.core.reading import read_json
from heatprint.core.store import Store

RUN_KEYS = ("recipe_name", "seed", "data")
ATLAS_KEYS = ("classes", "cards", "flows")


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """A finished run with an atlas, without its images.

    Attributes:
        store: The run folder.
        settings: ``run.json``.
        metrics: ``metrics.json``; its key ``"atlas"`` is there.
    """

    store: Store
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return [str(name) for name in self.metrics["classes"]]

    @property
    def atlas(self) -> Mapping[str, Any]:
        """The numbers of the atlas."""
        found: Mapping[str, Any] = self.metrics["atlas"]
        return found

    @property
    def name(self) -> str:
        """What was studied, for titles: printable characters only, which YAML takes as they are."""
        data = self.settings["data"]
        name = f"{data.get('name') or data.get('source') or 'images'}, {self.settings['recipe_name']}"
        return "".join(c if c.isprintable() else "?" for c in name)

    @property
    def architecture(self) -> str:
        """The network that was studied."""
        return str((self.settings.get("models") or {}).get("clear", {}).get("architecture") or "network")


def read_card(run: Path) -> Card:
    """Read the two files.

    Raises:
        StoreError: It is not a finished run, has no atlas, or is damaged.
    """
    if not run.is_dir():
        raise StoreError(f"run: {run} is not a folder. Make the run: heatprint study --out {run}")
    store = Store(run)
    settings, metrics = read_keys(run, "run.json", RUN_KEYS), read_keys(run, "metrics.json", ("classes",))
    if not metrics.get("atlas"):
        raise StoreError(
            f"run: {run} has no atlas: an older heatprint wrote it, or its recipe has none. "
            f"Run the study again: heatprint study --out {run}"
        )
    _check_keys(run, "the atlas in metrics.json", metrics["atlas"], ATLAS_KEYS)
    return Card(store=store, settings=settings, metrics=metrics)


def read_keys(run: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """One of the two JSON files, with the keys it must have.

    Raises:
        StoreError: It cannot be read, or has not these keys.
    """
    try:
        found = read_json(run / name)
    except (OSError, ValueError) as error:
        raise unfinished(run, f"{name} cannot be read ({error})") from error
    _check_keys(run, name, found, keys)
    return dict(found)


def unfinished(run: Path, what: str) -> StoreError:
    """The error that a folder is not a finished run, because of something."""
    return StoreError(f"run: {run} is not a finished run: {what}. Run again: heatprint study --out {run}")


def _check_keys(run: Path, what: str, found: Any, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise unfinished(run, f"{what} has no {', '.join(missing)}")
