"""The rows of a run's map, and which of them belong together: all that is read before the map is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heatprint.runs.attempts import at, matched
from heatprint.runs.card import unfinished
from heatprint.runs.finished import CLEAN
from heatprint.runs.originals import Originals
from heatprint.runs.parts import NOWHERE, Rows, Step

PLACES, IMAGES = "global", "atlas/images"
POINT = {
    "id": pa.string(), "label": pa.string(), "kind": pa.string(), "predicted": pa.string(), "success": pa.bool_(),
    "x": pa.float64(), "y": pa.float64(), "px": pa.float64(), "py": pa.float64(), "preserved": pa.float64(),
}  # fmt: skip
IMAGE = {"id": pa.string(), "strategy": pa.string()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Charted:
    """The rows of a map.

    Attributes:
        step: Where the map is stored.
        points: Its rows: `POINT`.
        ids: Source image of each.
        kinds: ``"clean"``, then the attacks by name.
        kind: Of each row its place in `kinds`, int16.
        rows_of: Kind to its rows.
        pair: See `_pairs`.
        images: Where the images of the atlas are stored.
        atlas: Their rows: `IMAGE`.
        own: Of each image of the atlas its row on the map, or `NOWHERE`.
        originals: The clean images as the study keeps them; None in runs of before.
        kept: Of each row of the map its row there, or `NOWHERE`.
    """

    step: Step
    points: Rows
    ids: pa.Array
    kinds: Sequence[str]
    kind: np.ndarray
    rows_of: Mapping[str, np.ndarray]
    pair: np.ndarray
    images: Step
    atlas: Rows
    own: np.ndarray
    originals: Originals | None
    kept: np.ndarray

    def of(self, kind: str) -> pa.Array:
        """Ids of the rows of a kind."""
        return self.ids.take(pa.array(self.rows_of[kind]))

    @property
    def pictured(self) -> np.ndarray:
        """Of each row whether the run has a picture, uint8; a copy's is stored with the attack."""
        there = (self.kind > 0) | (self.kept != NOWHERE)
        there[self.own[self.own != NOWHERE]] = True
        return np.asarray(there, dtype="u1")


def read_charted(run: Path) -> Charted:
    """Read the map.

    Raises:
        StoreError: A step is not done, or damaged.
    """
    step, images = Step.open(run, PLACES), Step.open(run, IMAGES)
    for one in (step, images):
        if not one.digests:
            raise unfinished(run, f"step {one.name!r} is not marked done")
    points = step.rows(POINT, needed=tuple(name for name in POINT if name != "preserved"))
    ids, words = points.text("id"), points.text("kind")
    kinds = [CLEAN, *sorted({str(kind) for kind in pc.unique(words).to_pylist()} - {CLEAN})]
    kind = codes(words, kinds)
    rows_of = {name: np.flatnonzero(kind == code) for code, name in enumerate(kinds)}
    clean, originals = ids.take(pa.array(rows_of[CLEAN])), Originals.open(run)
    atlas = images.rows(IMAGE, needed=tuple(IMAGE))
    kept = np.full(len(ids), NOWHERE, np.int64)
    if originals is not None:
        kept[rows_of[CLEAN]] = matched(clean, originals.ids)
    return Charted(
        step=step, points=points, ids=ids, kinds=kinds, kind=kind, rows_of=rows_of, pair=_pairs(ids, rows_of),
        images=images, atlas=atlas, own=at(rows_of[CLEAN], matched(atlas.text("id"), clean)), originals=originals,
        kept=kept,
    )  # fmt: skip


def _pairs(ids: pa.Array, rows_of: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of an attacked copy the row of its original; of an original the row of its first attacked copy; else -1."""
    pair = np.full(len(ids), NOWHERE, dtype="<i4")
    clean = rows_of[CLEAN]
    own = ids.take(pa.array(clean))
    attacked = [rows for name, rows in rows_of.items() if name != CLEAN]
    for rows in attacked:
        pair[rows] = at(clean, matched(ids.take(pa.array(rows)), own))
    copies = np.sort(np.concatenate([np.empty(0, np.int64), *attacked]))[::-1]
    copies = copies[pair[copies] != NOWHERE]
    pair[pair[copies]] = copies  # of several the first, which is written last
    return pair


def codes(values: pa.Array, names: Sequence[str]) -> np.ndarray:
    """Of each text its place among some names, int16; `NOWHERE` for others and for none."""
    places = pc.index_in(values, value_set=pa.array(list(names), pa.string()), skip_nulls=True)
    return np.asarray(places.fill_null(NOWHERE).to_numpy(zero_copy_only=False)).astype("<i2")
