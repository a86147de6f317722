"""What a finished run holds for others: the images of its atlas, their places on the map, and the attacked copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError

from heatprint.core.errors import StoreError
from heatprint.core.store import Part, Store
from heatprint.runs.card import Card, read_card, read_keys, unfinished

IMAGE_COLUMNS = ("id", "label", "predicted", "strategy", "image")
POINT_COLUMNS = ("id", "label", "kind", "predicted", "success", "x", "y", "px", "py")
CLEAN = "clean"  # the kind of an image that nobody attacked
ATTACKED = "attacks/clear"  # the atlas is about the undefended model


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished(Card):
    """A finished run with an atlas.

    Attributes:
        images: Columns of the atlas' clean images, one row per image: `IMAGE_COLUMNS`, the image as
            ``{"bytes": PNG, "path": name}``.
        maps: Their sum-pooled heat maps, float32 [N, side, side].
        logits: Of the clean images, float32 [N, K].
        spectral: Their places among the eigenvectors of their class, float32 [N, E], 0 beyond those there are.
        points: Columns of the map: `POINT_COLUMNS` and what else the run wrote; empty lists without a map.
    """

    images: Mapping[str, list[Any]]
    maps: np.ndarray
    logits: np.ndarray
    spectral: np.ndarray
    points: Mapping[str, list[Any]]

    def places(self) -> dict[tuple[str, str], dict[str, float]]:
        """``(id, kind)`` to the coordinates ``x, y`` (UMAP) and ``px, py`` (PCA)."""
        names = ("x", "y", "px", "py")
        coordinates = zip(*(self.points[name] for name in names), strict=True)
        keys = zip(self.points["id"], self.points["kind"], strict=True)
        return {key: dict(zip(names, place, strict=True)) for key, place in zip(keys, coordinates, strict=True)}

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
    return kept and bool(read_keys(run, "metrics.json", ("classes",)).get("atlas"))


def read_finished(run: Path) -> Finished:
    """Read the run folder.

    Raises:
        StoreError: It is not a finished run, has no atlas, or is damaged.
    """
    card = read_card(run)
    store = card.store
    images = _part(store, "atlas/images", IMAGE_COLUMNS)
    points = _part(store, "global", POINT_COLUMNS)
    return Finished(
        store=store,
        settings=card.settings,
        metrics=card.metrics,
        images=images.rows,
        maps=_array(store, images, "maps", 3),
        logits=_array(store, images, "logits", 2),
        spectral=_array(store, images, "spectral", 2),
        points=points.rows,
    )


def _part(store: Store, step: str, columns: tuple[str, ...], index: int = 0) -> Part:
    """A part with the columns it must have; one without rows reads as empty columns."""
    try:
        part = store.read(step, index)
    except (StoreError, OSError, ValueError, KeyError, pa.ArrowException, SafetensorError) as error:
        raise unfinished(store.root, f"step {step!r} cannot be read ({error})") from error
    if not part.rows:
        return Part(rows={name: [] for name in columns}, arrays=part.arrays)
    missing = [name for name in columns if name not in part.rows]
    if missing:
        raise unfinished(store.root, f"step {step!r} has no column {', '.join(missing)}")
    return part


def _array(store: Store, part: Part, name: str, dimensions: int) -> np.ndarray:
    """An array with one row for each image, as float32."""
    if name not in part.arrays and not part.rows["id"]:
        return np.zeros((0,) + (1,) * (dimensions - 1), np.float32)
    found = part.arrays.get(name, np.empty(0))
    if found.ndim != dimensions or len(found) != len(part.rows["id"]):
        raise unfinished(store.root, f"step 'atlas/images' has no {name} for each image")
    return np.asarray(found, np.float32)
