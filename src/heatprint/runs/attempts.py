"""What attacks tried on the images of a run: for each copy on the map the row that tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heatprint.core.errors import StoreError
from heatprint.runs.parts import NOWHERE, Rows, Step

ATTACKED = "attacks/clear"  # the atlas is about the undefended model
COLUMNS = {
    "id": pa.string(), "success": pa.bool_(), "confidence_before": pa.float64(), "confidence": pa.float64(),
    "step": pa.int64(),
}  # fmt: skip
DISTANCES = {"l0": pa.int64(), "l2": pa.float64(), "linf": pa.int64()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempts:
    """One attack on the undefended model.

    Attributes:
        step: Where it is stored.
        rows: One row for each image it was tried on: `COLUMNS`, and `DISTANCES` where they were asked for.
        clean: Of each of them its row among the clean images, or `NOWHERE`.
        copy: Of each copy on the map its row here, or `NOWHERE`.
        broken: Why some parts could not be read; their rows are missing.
    """

    step: Step
    rows: Rows
    clean: np.ndarray
    copy: np.ndarray
    broken: Sequence[StoreError]


def read_attempts(
    run: Path, clean: pa.Array, copies: Mapping[str, pa.Array], *, distances: bool
) -> Mapping[str, Attempts]:
    """Read the attacks.

    Args:
        run: The run folder.
        clean: Ids of the clean images on the map.
        copies: Attack to the ids of its copies on the map.
        distances: Read how far they went, too.
    """
    return {attack: _read(run, attack, clean, own, distances) for attack, own in copies.items()}


def _read(run: Path, attack: str, clean: pa.Array, copies: pa.Array, distances: bool) -> Attempts:
    step = Step.open(run, f"{ATTACKED}/{attack}/test")
    broken: list[StoreError] = []
    rows = step.rows(COLUMNS | DISTANCES if distances else COLUMNS, needed=("id", "success"), broken=broken)
    ids = rows.text("id")
    won = np.flatnonzero(rows.numbers("success", "bool"))
    found = matched(copies, ids.take(pa.array(won)))
    copy = np.where(found == NOWHERE, NOWHERE, won[found] if len(won) else NOWHERE)
    return Attempts(step=step, rows=rows, clean=matched(ids, clean), copy=copy, broken=tuple(broken))


def matched(wanted: pa.Array, known: pa.Array) -> np.ndarray:
    """Of each text its row among others, int64 [wanted], or `NOWHERE`; each occurs once on either side.

    In most runs the two are the same texts in the same order, which is seen at once; else the smaller is looked up.
    """
    if wanted.equals(known):
        return np.arange(len(wanted))
    if len(known) <= len(wanted):
        return _found(wanted, known)
    back = _found(known, wanted)
    rows = np.full(len(wanted), NOWHERE, np.int64)
    hits = np.flatnonzero(back != NOWHERE)
    rows[back[hits]] = hits
    return rows


def _found(wanted: pa.Array, known: pa.Array) -> np.ndarray:
    places = pc.index_in(wanted, value_set=known).fill_null(NOWHERE)
    return np.asarray(places.to_numpy(zero_copy_only=False), dtype=np.int64)


def at(values: np.ndarray, places: np.ndarray, none: float = NOWHERE) -> np.ndarray:
    """The values at some places, and `none` where a place is `NOWHERE`."""
    if not len(values):
        return np.full(len(places), none, values.dtype)
    return np.where(places == NOWHERE, np.asarray(none, values.dtype), values[places])
