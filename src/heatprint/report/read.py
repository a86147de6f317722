"""What a finished run folder holds, read and checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import UndefinedError
from safetensors import SafetensorError

from heatprint.core.errors import StoreError
from heatprint.core.reading import fitting_together, read_json
from heatprint.core.store import Part, Store
from heatprint.report.points import Points, read_points

RUN_KEYS = ("recipe_name", "seed", "recipe", "versions", "data", "models", "attacks", "explainer")
METRIC_KEYS = ("classes", "table1", "arms", "attacks")
TILE_COLUMNS = (
    *("example", "id", "label", "kind", "model", "predicted", "probability", "step", "pixel_row", "pixel_col"),
)
ARTEFACT_COLUMNS = ("model", "id", "label", "predicted", "probability", "on_artefact", "on_animal")
CARD_COLUMNS = ("name", "medoid_ids")
CARD_ARRAYS = ("mean_map", "mean_image", "region", "medoid_pixels", "medoid_heat")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One image as one model saw it.

    Attributes:
        example: Groups the tiles made from one source image.
        id: Source image.
        label: True class.
        kind: ``"clean"`` or the name of the attack that made the image.
        model: Arm that was asked.
        predicted: Its answer.
        probability: Of that answer, 0 to 1.
        step: Gain or generation of the first success, -1 for none.
        pixel: Row and column of the one changed pixel, or None.
        image: uint8 [H, W, 3].
        heat: Signed relevance, float64 [H, W].
    """

    example: int
    id: str
    label: str
    kind: str
    model: str
    predicted: str
    probability: float
    step: int
    pixel: tuple[int, int] | None
    image: np.ndarray
    heat: np.ndarray

    @property
    def right(self) -> bool:
        """Whether the answer is the true class."""
        return self.predicted == self.label


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        settings: ``run.json``.
        metrics: ``metrics.json``.
        tiles: Images with their heat maps, for Figures 1 to 3.
        map: Points of the map of signatures, for Figures 4 to 6.
        artefact: The step on a planted artefact, where the recipe asks for it.
        atlas: What the cards of the atlas show, in the order of ``metrics["atlas"]["cards"]``; None without an atlas.
    """

    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    tiles: tuple[Tile, ...]
    map: Points = field(default_factory=Points)
    artefact: Part | None = None
    atlas: Part | None = None

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return [str(name) for name in self.metrics["classes"]]

    def arm(self, name: str) -> Mapping[str, Any] | None:
        """The arm of that name, if the run has it."""
        return next((arm for arm in self.metrics["arms"] if arm["name"] == name), None)

    def arm_title(self, name: str) -> str:
        """How an arm is called in print."""
        known = self.settings["models"].get(name) or self.arm(name) or {}
        return str(known.get("title") or name)

    def attack_title(self, name: str) -> str:
        """How an attack is called in print."""
        return str(self.settings["attacks"].get(name, {}).get("title") or name)


def read_run(folder: Path, *, points: bool = True) -> Run:
    """Read a run folder.

    Args:
        folder: The run folder.
        points: Read the map, too, which most sections do not show.

    Raises:
        StoreError: Something is missing, damaged or of another version.
    """
    if not folder.is_dir():
        raise StoreError(f"report: {folder} is not a folder. Make the run: heatprint study --out {folder}")
    settings, metrics = _json(folder, "run.json", RUN_KEYS), _json(folder, "metrics.json", METRIC_KEYS)
    figures = _part(folder, "figures", TILE_COLUMNS)
    try:
        tiles = _tiles(figures)
        drawn = read_points(folder) if points else Points()
    except (KeyError, IndexError, TypeError, ValueError, StoreError) as error:
        raise _broken(folder, f"step 'figures' or 'global' does not fit together ({error})") from error
    planted = _part(folder, "artefact", ARTEFACT_COLUMNS) if metrics.get("artefact") else None
    atlas = _drawn_cards(folder, metrics["atlas"]["cards"]) if metrics.get("atlas") else None
    return Run(
        settings=settings, metrics=metrics, tiles=tiles, map=drawn, artefact=planted, atlas=atlas,
    )  # fmt: skip


def whole(folder: Path) -> AbstractContextManager[None]:
    """What is raised, inside, where numbers of a run are missing or of another kind, as a `StoreError`."""
    return fitting_together(
        lambda what: _broken(folder, f"what it holds does not fit together ({what})"), UndefinedError
    )


def _broken(folder: Path, what: str) -> StoreError:
    return StoreError(f"report: {folder} is not a finished run: {what}. Run again: heatprint study --out {folder}")


def _json(folder: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """One of the two JSON files, with the keys it must have."""
    try:
        value = read_json(folder / name)
    except FileNotFoundError as error:
        raise _broken(folder, f"{name} is missing") from error
    except (OSError, ValueError) as error:
        raise _broken(folder, f"{name} is not JSON ({error})") from error
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise _broken(folder, f"{name} has no {', '.join(missing)}")
    return dict(value)


def _part(folder: Path, step: str, columns: tuple[str, ...]) -> Part:
    """Part 0 of a step; a step without rows reads as empty columns."""
    try:
        part = Store(folder).read(step, 0)
    except (StoreError, OSError, ValueError, KeyError, pa.ArrowException, SafetensorError) as error:
        raise _broken(folder, f"step {step!r} cannot be read ({error})") from error
    if not part.rows:
        return Part(rows={name: [] for name in columns}, arrays=part.arrays)
    missing = [name for name in columns if name not in part.rows]
    if missing:
        raise _broken(folder, f"step {step!r} has no column {', '.join(missing)}")
    return part


def _drawn_cards(folder: Path, cards: Sequence[Mapping[str, Any]]) -> Part:
    """What the cards of the atlas show, one row and one entry of every array per card."""
    part = _part(folder, "atlas/cards", CARD_COLUMNS)
    lengths = {name: len(part.arrays.get(name, ())) for name in CARD_ARRAYS}
    if part.rows["name"] != [card["name"] for card in cards] or set(lengths.values()) - {len(cards)}:
        raise _broken(folder, f"step 'atlas/cards' does not fit together ({len(cards)} cards, {lengths})")
    return part


def _tiles(part: Part) -> tuple[Tile, ...]:
    """Rows and arrays of the step as values, one per tile."""
    rows = part.rows
    if not rows["id"]:
        return ()
    pixels, heat = part.arrays["pixels"], part.arrays["heat"]
    if not len(pixels) == len(heat) == len(rows["id"]):
        raise ValueError(f"{len(rows['id'])} rows, {len(pixels)} images, {len(heat)} heat maps")
    return tuple(
        Tile(
            **{name: rows[name][n] for name in TILE_COLUMNS if not name.startswith("pixel_")},
            pixel=(rows["pixel_row"][n], rows["pixel_col"][n]) if rows["pixel_row"][n] >= 0 else None,
            image=np.ascontiguousarray(pixels[n].transpose(1, 2, 0)),
            heat=np.nan_to_num(heat[n].astype(np.float64), posinf=0.0, neginf=0.0),
        )
        for n in range(len(pixels))
    )
