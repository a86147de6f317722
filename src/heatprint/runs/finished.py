"""What a finished run holds for others: the images of its atlas, their places on the map, and the attacked copies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError

from heatprint.core.errors import StoreError
from heatprint.core.store import Part, Store

IMAGE_COLUMNS = ("id", "label", "predicted", "strategy", "image")
POINT_COLUMNS = ("id", "label", "kind", "predicted", "success", "x", "y", "px", "py")
RUN_KEYS = ("recipe_name", "seed", "data")
ATLAS_KEYS = ("classes", "cards", "flows")
CLEAN = "clean"  # the kind of an image that nobody attacked
TOLD = ("confidence", "step", "l0", "l2", "linf")  # what is known of a single attacked copy
ATTACKED = "attacks/clear"  # the atlas is about the undefended model


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A finished run with an atlas.

    Attributes:
        store: The run folder.
        settings: ``run.json``.
        metrics: ``metrics.json``; its key ``"atlas"`` is there.
        images: Columns of the atlas' clean images, one row per image: `IMAGE_COLUMNS`, the image as
            ``{"bytes": PNG, "path": name}``.
        maps: Their sum-pooled heat maps, float32 [N, side, side].
        logits: Of the clean images, float32 [N, K].
        spectral: Their places among the eigenvectors of their class, float32 [N, E], 0 beyond those there are.
        points: Columns of the map: `POINT_COLUMNS` and what else the run wrote; empty lists without a map.
    """

    store: Store
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    images: Mapping[str, list[Any]]
    maps: np.ndarray
    logits: np.ndarray
    spectral: np.ndarray
    points: Mapping[str, list[Any]]

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

    def places(self) -> dict[tuple[str, str], dict[str, float]]:
        """``(id, kind)`` to the coordinates ``x, y`` (UMAP) and ``px, py`` (PCA)."""
        names = ("x", "y", "px", "py")
        coordinates = zip(*(self.points[name] for name in names), strict=True)
        keys = zip(self.points["id"], self.points["kind"], strict=True)
        return {key: dict(zip(names, place, strict=True)) for key, place in zip(keys, coordinates, strict=True)}

    def point_images(self) -> list[Mapping[str, Any]]:
        """Of every point of the map its ``"image"`` (PNG bytes), and of attacked copies `TOLD`.

        Raises:
            StoreError: A point has no image.
        """
        clean = {name: row for row, name in enumerate(self.images["id"])}
        copies: dict[tuple[str, str], Mapping[str, Any]] = {}
        for attack, rows in self.attacked():
            for row, name in enumerate(rows["id"]):
                if rows["success"][row] and rows["image"][row]:
                    more = {key: rows[key][row] for key in TOLD if key in rows}
                    copies[attack, name] = {"image": rows["image"][row]["bytes"], **more}
        found: list[Mapping[str, Any]] = []
        for name, kind in zip(self.points["id"], self.points["kind"], strict=True):
            if kind == CLEAN and name in clean:
                found.append({"image": self.images["image"][clean[name]]["bytes"]})
            elif (kind, name) in copies:
                found.append(copies[kind, name])
            else:
                raise _broken(self.store.root, f"{name} ({kind}) is on the map, but there is no image of it")
        return found

    def attacked(self) -> Iterator[tuple[str, Mapping[str, list[Any]]]]:
        """Attack and columns of each part of its attacked test images, in a fixed order; skipped images included."""
        for folder in sorted((self.store.root / ATTACKED).glob("*/test")):
            step = folder.relative_to(self.store.root).as_posix()
            for mark in sorted((folder / "_done").glob("part-*.json")):
                number = int(mark.stem.removeprefix("part-"))
                yield folder.parent.name, _part(self.store, step, ("id", "image", "success", "skipped"), number).rows


def has_atlas(run: Path) -> bool:
    """Whether a folder holds a finished run with an atlas and its images, so that `read_finished` can read it."""
    kept = (run / "metrics.json").is_file() and (run / "atlas" / "images" / "_done").is_dir()
    return kept and bool(_json(run, "metrics.json", ("classes",)).get("atlas"))


def read_finished(run: Path) -> Finished:
    """Read the run folder.

    Raises:
        StoreError: It is not a finished run, has no atlas, or is damaged.
    """
    if not run.is_dir():
        raise StoreError(f"export: {run} is not a folder. Make the run: heatprint study --out {run}")
    store = Store(run)
    settings, metrics = _json(run, "run.json", RUN_KEYS), _json(run, "metrics.json", ("classes",))
    if not metrics.get("atlas"):
        raise StoreError(
            f"export: {run} has no atlas: an older heatprint wrote it, or its recipe has none. "
            f"Run the study again: heatprint study --out {run}"
        )
    _check_keys(run, "the atlas in metrics.json", metrics["atlas"], ATLAS_KEYS)
    images = _part(store, "atlas/images", IMAGE_COLUMNS)
    points = _part(store, "global", POINT_COLUMNS)
    return Finished(
        store=store,
        settings=settings,
        metrics=metrics,
        images=images.rows,
        maps=_array(store, images, "maps", 3),
        logits=_array(store, images, "logits", 2),
        spectral=_array(store, images, "spectral", 2),
        points=points.rows,
    )


def _json(run: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """One of the two JSON files, with the keys it must have."""
    try:
        found = json.loads((run / name).read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(run, f"{name} cannot be read ({error})") from error
    _check_keys(run, name, found, keys)
    return dict(found)


def _check_keys(run: Path, what: str, found: Any, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise _broken(run, f"{what} has no {', '.join(missing)}")


def _part(store: Store, step: str, columns: tuple[str, ...], index: int = 0) -> Part:
    """A part with the columns it must have; one without rows reads as empty columns."""
    try:
        part = store.read(step, index)
    except (StoreError, OSError, ValueError, KeyError, pa.ArrowException, SafetensorError) as error:
        raise _broken(store.root, f"step {step!r} cannot be read ({error})") from error
    if not part.rows:
        return Part(rows={name: [] for name in columns}, arrays=part.arrays)
    missing = [name for name in columns if name not in part.rows]
    if missing:
        raise _broken(store.root, f"step {step!r} has no column {', '.join(missing)}")
    return part


def _array(store: Store, part: Part, name: str, dimensions: int) -> np.ndarray:
    """An array with one row for each image, as float32."""
    if name not in part.arrays and not part.rows["id"]:
        return np.zeros((0,) + (1,) * (dimensions - 1), np.float32)
    found = part.arrays.get(name, np.empty(0))
    if found.ndim != dimensions or len(found) != len(part.rows["id"]):
        raise _broken(store.root, f"step 'atlas/images' has no {name} for each image")
    return np.asarray(found, np.float32)


def _broken(run: Path, what: str) -> StoreError:
    return StoreError(f"export: {run} is not a finished run: {what}. Run again: heatprint study --out {run}")
