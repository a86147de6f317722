"""The points of Figures 4 to 6: all of them, or of a large map a random sample of images with all their copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from heatprint.core.errors import StoreError
from heatprint.core.reading import parse_json
from heatprint.runs.parts import Rows, Step

STEP = "global"
COLUMNS = {
    "id": pa.string(), "label": pa.string(), "kind": pa.string(), "predicted": pa.string(), "x": pa.float64(),
    "y": pa.float64(), "px": pa.float64(), "py": pa.float64(), "success": pa.bool_(),
}  # fmt: skip
MOST = 20_000  # points of one page: more would be megabytes that a browser draws for minutes


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Points of the map, one row per clean or attacked image.

    Attributes:
        columns: See `COLUMNS`.
        left: How many points of the run are not among them.
        contours: Density of each class: class, x, y, value (1 at its highest) and levels; none in old runs.
    """

    columns: Mapping[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    left: int = 0
    contours: Sequence[Mapping[str, Any]] = ()


def read_points(folder: Path) -> Points:
    """Read the map of a run folder.

    Raises:
        StoreError: It is missing or damaged.
    """
    step = Step.open(folder, STEP)
    if not step.digests:
        raise StoreError(f"step {STEP!r} is not marked done")
    rows = step.rows(COLUMNS, needed=tuple(COLUMNS))
    table = rows.table.take(pa.array(_sample(rows)))
    contours = step.arrays().get("contours")
    return Points(
        columns=table.to_pydict(),
        left=len(rows) - len(table),
        contours=tuple(parse_json(contours.rows(0, len(contours)).tobytes())) if contours else (),
    )


def _sample(rows: Rows) -> np.ndarray:
    """Rows of images with at most `MOST` points together; an image without its copies would look as if it had held."""
    if len(rows) <= MOST:
        return np.arange(len(rows))
    image = np.asarray(rows.text("id").dictionary_encode().indices)
    points = np.bincount(image)
    order = np.random.default_rng(0).permutation(len(points))
    taken = np.zeros(len(points), bool)
    taken[order[points[order].cumsum() <= MOST]] = True
    return np.flatnonzero(taken[image])
