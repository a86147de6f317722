"""The pictures of a run's map, read when they are shown: a part at a time, checked, and kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from heatprint.core.errors import StoreError
from heatprint.runs.parts import NOWHERE, Step

KEPT = 64 * 2**20  # bytes of pictures that stay in memory; the part read last stays whatever it has


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures(Sequence[bytes]):
    """PNG of each row of the map.

    Attributes:
        steps: Those that hold pictures.
        step: Of each row its step, a place in `steps`, or `NOWHERE` for a row whose picture the run does not hold.
        part: Of each row the part, int32.
        place: Of each row its row in the part, int32.
    """

    steps: Sequence[Step]
    step: np.ndarray
    part: np.ndarray
    place: np.ndarray
    _kept: OrderedDict[tuple[int, int], pa.ChunkedArray] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.step)

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        """The picture of a row.

        Raises:
            StoreError: The run holds none, or the part that has it is damaged.
        """
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        step, part, place = int(self.step[row]), int(self.part[row]), int(self.place[row])
        if step == NOWHERE:
            raise StoreError(
                "This run holds no picture of this image: of clean images it keeps those of its atlas. To keep more, "
                "raise images in [atlas] of the recipe and run the study again."
            )
        found = self._part(step, part)[place].as_py()
        if found is None:
            raise StoreError(f"{self.steps[step].name}, part {part}, row {place}: there is no picture in this row.")
        return bytes(found)

    def take(self, rows: np.ndarray) -> Pictures:
        """Those of these rows, in this order."""
        return replace(self, step=self.step[rows], part=self.part[rows], place=self.place[rows])

    def _part(self, step: int, part: int) -> pa.ChunkedArray:
        """All pictures of a part."""
        with self._lock:
            if (step, part) in self._kept:
                self._kept.move_to_end((step, part))
                return self._kept[step, part]
        read = self._read(step, part)
        with self._lock:
            self._kept[step, part] = read
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
        return read

    def _read(self, step: int, part: int) -> pa.ChunkedArray:
        content = self.steps[step].checked(part)  # before anything in it is decoded
        return pc.struct_field(pq.ParquetFile(pa.BufferReader(content)).read(columns=["image.bytes"])["image"], "bytes")
