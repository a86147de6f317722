"""The heat maps of a run's map, read when they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from heatprint.runs.parts import Stored


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Pooled heat maps of rows, where some are stored.

    Attributes:
        side: Of the maps.
        stored: Where they are; arrays [n, side, side].
        source: Of each row a place in `stored`, or `NOWHERE`.
        place: Of each row its row there.
    """

    side: int
    stored: Sequence[Stored]
    source: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: np.ndarray) -> Maps:
        """Those of these rows, in this order."""
        return replace(self, source=self.source[rows], place=self.place[rows])

    def read(self) -> np.ndarray:
        """All of them, float32 [rows, side, side]; NaN where none is stored."""
        found = np.full((len(self), self.side, self.side), np.nan, np.float32)
        for number, stored in enumerate(self.stored):
            rows = np.flatnonzero(self.source == number)
            if len(rows):
                found[rows] = stored.take(self.place[rows])
        return found
