"""What the inspector shows of a run: columns of all images, clean and attacked, and where each image is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from heatprint.core.store import Store
from heatprint.runs.finished import CLEAN, Finished, read_finished

SCORES, FLOWS = "forensics/scores", "atlas/flows"
NOWHERE = -1  # in columns of row numbers and of steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A run as columns, one row for each point of its map: clean images first, then attacked copies.

    Attributes:
        name: Of the run, for titles.
        facts: Name to value, what stands beside the title.
        classes: Names, in the order of the logits.
        kinds: ``"clean"`` and the attacks, by the names of the run.
        titles: Kind to its name in print.
        strategies: Names of the strategies of the atlas.
        ids: Source image of each row.
        columns: Name to an array with one entry per row; see `columns`.
        images: PNG of each row, by `image`.
        signatures: float32 [rows, D], what neighbours are told by.
        maps: float32 [rows, side, side], pooled heat maps; NaN where none is stored.
    """

    name: str
    facts: Mapping[str, str]
    classes: Sequence[str]
    kinds: Sequence[str]
    titles: Mapping[str, str]
    strategies: Sequence[str]
    ids: Sequence[str]
    columns: Mapping[str, np.ndarray]
    images: Sequence[bytes] = field(repr=False)
    signatures: np.ndarray = field(repr=False)
    maps: np.ndarray = field(repr=False)

    def take(self, rows: Sequence[int]) -> Shown:
        """These rows, in this order; a partner that is not among them is forgotten."""
        index = np.asarray(rows, dtype=np.int64)
        where = np.full(len(self), NOWHERE, dtype="<i4")
        where[index] = np.arange(len(index))
        columns = {name: values[index] for name, values in self.columns.items()}
        pair = columns["pair"]
        columns["pair"] = np.where(pair >= 0, where[pair], NOWHERE).astype("<i4")
        return replace(
            self, ids=[self.ids[row] for row in index], columns=columns, images=[self.images[row] for row in index],
            signatures=self.signatures[index], maps=self.maps[index],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    def neighbours(self, row: int, count: int) -> list[tuple[int, float]]:
        """The rows nearest in signature space, other than itself, and their distances."""
        away = np.linalg.norm(self.signatures - self.signatures[row], axis=1)
        away[row] = np.inf
        count = min(count, len(away) - 1)
        near = np.argpartition(away, count - 1)[:count] if count > 0 else np.empty(0, int)
        return [(int(other), float(away[other])) for other in near[np.argsort(away[near], kind="stable")]]


def read_shown(folder: Path) -> Shown:
    """Read a run folder for the inspector.

    Raises:
        StoreError: It is not a finished run with an atlas, or damaged.
    """
    run = read_finished(folder)
    points, pictures = run.points, run.point_images()
    kinds = [CLEAN, *sorted(set(points["kind"]) - {CLEAN})]
    images = [one["image"] for one in pictures]
    own = dict(zip(run.images["id"], _sure(run.logits), strict=True))
    sure = [one.get("confidence", own.get(name, np.nan)) for one, name in zip(pictures, points["id"], strict=True)]
    signatures = _signatures(run.store, len(images))
    strategies = sorted({str(name) for name in run.images["strategy"] if name is not None})
    of_image = {name: str(strategy) for name, strategy in zip(run.images["id"], run.images["strategy"], strict=True)}
    pair = _pairs(points["id"], points["kind"])
    columns = {
        "umap": np.stack([points["x"], points["y"]], 1).astype("<f4") if images else np.zeros((0, 2), "<f4"),
        "pca": np.stack([points["px"], points["py"]], 1).astype("<f4") if images else np.zeros((0, 2), "<f4"),
        "pair": pair,
        "kind": _places(points["kind"], kinds),
        "label": _places(points["label"], run.classes),
        "predicted": _places(points["predicted"], run.classes),
        "strategy": _places([of_image.get(name) for name in points["id"]], strategies),
        "success": np.asarray(points["success"], dtype="u1"),
        "confidence": np.asarray(sure, dtype="<f4"),
        "gain": np.asarray([one.get("step", NOWHERE) for one in pictures], dtype="<i2"),
        "l0": np.asarray([one.get("l0", 0) for one in pictures], dtype="<i4"),
        "l2": np.asarray([one.get("l2", 0.0) for one in pictures], dtype="<f4"),
        "linf": np.asarray([one.get("linf", 0.0) for one in pictures], dtype="<f4"),
        "preserved": np.asarray(points.get("preserved") or [np.nan] * len(images), dtype="<f4"),
        "moved": _moved(signatures, pair),
    }
    scores = _scores(run.store, len(images))
    titles = {kind: str(run.settings.get("attacks", {}).get(kind, {}).get("title") or kind) for kind in kinds}
    return Shown(
        name=run.name, facts=_facts(run), classes=run.classes, kinds=kinds, titles=titles, strategies=strategies,
        ids=list(points["id"]), columns=columns | scores, images=images, signatures=signatures,
        maps=_maps(run),
    )  # fmt: skip


def _facts(run: Finished) -> dict[str, str]:
    data = run.settings["data"]
    return {
        "data": str(data.get("name") or data.get("source") or "unnamed"),
        "network": run.architecture,
        "recipe": str(run.settings["recipe_name"]),
        "seed": str(run.settings["seed"]),
    }


def _sure(logits: np.ndarray) -> list[float]:
    """Probability of the likeliest class of each image, from logits [N, K]."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return list((powers.max(1) / powers.sum(1)).astype(float))


def _signatures(store: Store, count: int) -> np.ndarray:
    found = store.read("global", 0).arrays.get("signatures") if count else None
    if found is None or len(found) != count:
        return np.zeros((count, 1), np.float32)
    return np.asarray(found, np.float32)


def _maps(run: Finished) -> np.ndarray:
    """Pooled heat maps of all points, those of attacked copies from where the atlas followed them."""
    side = run.maps.shape[1] if len(run.maps) else 1
    stored: dict[tuple[str, str], np.ndarray] = {
        (CLEAN, name): one for name, one in zip(run.images["id"], run.maps, strict=True)
    }
    for attack in set(run.points["kind"]) - {CLEAN}:
        if (run.store.root / FLOWS / attack).is_dir():
            part = run.store.read(f"{FLOWS}/{attack}", 0)
            if "moved" in part.arrays:  # not in runs of before
                stored |= {(attack, name): one for name, one in zip(part.rows["id"], part.arrays["moved"], strict=True)}
    none = np.full((side, side), np.nan, np.float32)
    found = [stored.get(key, none) for key in zip(run.points["kind"], run.points["id"], strict=True)]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, side, side), np.float32)


def _scores(store: Store, count: int) -> dict[str, np.ndarray]:
    """What the run's detector says of each point, where `heatprint detect --benchmark` has run."""
    if not (store.root / SCORES).is_dir():
        return {}
    found = store.read(SCORES, 0).arrays["scores"]
    return {"score": found.astype("<f4")} if len(found) == count else {}  # of an earlier map


def _pairs(ids: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    """Of an attacked copy the row of its original; of an original the row of its first attacked copy; else -1."""
    clean = {name: row for row, (name, kind) in enumerate(zip(ids, kinds, strict=True)) if kind == CLEAN}
    pair = np.full(len(ids), NOWHERE, dtype="<i4")
    for row, (name, kind) in enumerate(zip(ids, kinds, strict=True)):
        if kind != CLEAN and name in clean:
            pair[row] = clean[name]
            if pair[clean[name]] == NOWHERE:
                pair[clean[name]] = row
    return pair


def _places(values: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
    where = {name: place for place, name in enumerate(names)}
    return np.asarray([where.get(str(value), NOWHERE) for value in values], dtype="<i2")


def _moved(signatures: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Distance between the signatures of a pair, float32 [rows]; NaN without a partner."""
    moved = np.full(len(pair), np.nan, dtype="<f4")
    rows = np.flatnonzero(pair >= 0)
    moved[rows] = np.linalg.norm(signatures[rows] - signatures[pair[rows]], axis=1)
    return moved
