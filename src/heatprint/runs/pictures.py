"""The pictures of a run's map, read when they are shown: checked, and kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from heatprint.core.errors import StoreError
from heatprint.core.reading import fitting_together
from heatprint.runs.parts import NOWHERE, Step

KEPT = 64 * 2**20  # bytes of pictures of a step that stay in memory; the part read last stays whatever it has


class Source(Protocol):
    """Holds pictures."""

    def png(self, part: int, place: int) -> bytes:
        """A picture, by part and row.

        Raises:
            StoreError: It cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class InParts:
    """Pictures in the rows of a step, read a part at a time.

    Attributes:
        step: The step.
    """

    step: Step
    _kept: OrderedDict[int, pa.ChunkedArray] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def png(self, part: int, place: int) -> bytes:
        """See `Source`."""
        where = f"{self.step.name}, part {part}"
        with fitting_together(lambda what: StoreError(f"{where} is damaged ({what})."), OSError, pa.ArrowException):
            found = self._part(part)[place].as_py()
            if found is None:
                raise StoreError(f"{where}, row {place}: there is no picture in this row.")
            return bytes(found)

    def _part(self, part: int) -> pa.ChunkedArray:
        with self._lock:
            if part in self._kept:
                self._kept.move_to_end(part)
                return self._kept[part]
        content = self.step.checked(part)  # before anything in it is decoded
        # without threads: one that lets go of our bytes while Python ends would abort the process
        table = pq.ParquetFile(pa.BufferReader(content)).read(columns=["image.bytes"], use_threads=False)
        read = pc.struct_field(table["image"], "bytes")
        with self._lock:
            self._kept[part] = read
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
        return read


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """Where the picture of each row is.

    Attributes:
        sources: What holds pictures.
        source: Of each row a place in `sources`, or `NOWHERE`.
        part: Of each row the part, int32.
        place: Of each row its row in the part, int32.
        broken: Why some pictures could not be located.
    """

    sources: Sequence[Source]
    source: np.ndarray
    part: np.ndarray
    place: np.ndarray
    broken: Sequence[StoreError] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures(Sequence[bytes]):
    """PNG of each row of the map.

    Attributes:
        rows: How many there are.
        located: Where they are; asked for with the first picture.
    """

    rows: int
    located: Callable[[], Located]

    def __len__(self) -> int:
        return self.rows

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        """The picture of a row.

        Raises:
            StoreError: The run holds none, or what holds it is damaged.
        """
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        at = self.located()
        if at.source[row] == NOWHERE and at.broken:
            raise StoreError(f"The picture of this image is not found. {at.broken[0]}")
        if at.source[row] == NOWHERE:
            raise StoreError(
                "This run holds no picture of this image: older versions kept only the clean images of the atlas. Run "
                "the study again with this version, in a new folder."
            )
        return at.sources[int(at.source[row])].png(int(at.part[row]), int(at.place[row]))

    def take(self, rows: np.ndarray) -> Pictures:
        """Those of these rows, in this order."""
        at = self.located()
        some = replace(at, source=at.source[rows], part=at.part[rows], place=at.place[rows])
        return Pictures(rows=len(rows), located=lambda: some)
