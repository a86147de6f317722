"""Parts of a run folder by columns: only what is asked for is read, and no row becomes an object of Python.

The digests in the marks are compared for pictures, when they are shown (`pictures.py`); of everything else by
`heatprint.core.store.Store.read` and ``heatprint doctor RUN`` alone: to digest a million images before the first is
seen would take longer than to read all that a map needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from heatprint.core.digest import content_digest
from heatprint.core.errors import StoreError
from heatprint.core.reading import read_json

NOWHERE = -1  # in columns of row numbers, places and codes
READERS, FILES = 4, 32  # threads that read, and files that each is given at a time
PIECE = 2**24  # bytes of an array that are read at a time
UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException, SafetensorError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows of all parts of a step, in their order.

    Attributes:
        table: The columns asked for; null where a part does not have one.
        part: Number of each row's part, int32.
        place: Its row in that part, int32.
    """

    table: pa.Table
    part: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.part)

    def text(self, name: str) -> pa.Array:
        """A column of text in one piece."""
        return self.table[name].combine_chunks()

    def numbers(self, name: str, dtype: str) -> np.ndarray:
        """A column of numbers; null is NaN, or 0 where the type has none."""
        column = self.table[name]
        if np.dtype(dtype).kind != "f" and column.null_count:
            column = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
        return np.asarray(column.to_numpy()).astype(dtype)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An array in a file, read in pieces: it may be larger than the memory, and its file may be replaced meanwhile.

    Attributes:
        run: The run folder.
        file: Of the part.
        name: Of the array.
        shape: Its shape.
    """

    run: Path
    file: Path
    name: str
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Some rows.

        Raises:
            StoreError: The file is damaged, or no longer the one that was opened.
        """
        stop = min(stop, len(self))
        try:
            with safe_open(self.file, framework="numpy") as opened:
                found = np.asarray(opened.get_slice(self.name)[start:stop])
        except UNREADABLE as error:
            raise _damaged(self.run, self.file, error) from error
        if found.shape != (stop - start, *self.shape[1:]):
            raise _damaged(self.run, self.file, f"{self.name} has changed its shape")
        return found

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows, some at a time, each with the number of its first."""
        for start in range(0, len(self), self._at_once):
            yield start, self.rows(start, start + self._at_once)

    def take(self, wanted: np.ndarray) -> np.ndarray:
        """These rows, float32 [len(wanted), ...], in this order; what lies between them is not kept."""
        order = np.argsort(wanted, kind="stable")
        ranked = np.asarray(wanted)[order]
        found = np.empty((len(ranked), *self.shape[1:]), np.float32)
        low = 0
        while low < len(ranked):
            start = int(ranked[low])
            high = int(np.searchsorted(ranked, start + self._at_once))
            found[order[low:high]] = self.rows(start, int(ranked[high - 1]) + 1)[ranked[low:high] - start]
            low = high
        return found

    @property
    def _at_once(self) -> int:
        return max(1, PIECE // (4 * int(np.prod(self.shape[1:]))))


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A step of a run folder, and what its marks said when it was opened.

    Attributes:
        run: The run folder.
        name: Of the step, e.g. ``"attacks/clear/fgsm/test"``.
        digests: Of each part that is marked done, from the lowest number: its files and their digests.
    """

    run: Path
    name: str
    digests: Mapping[int, Mapping[str, str]]

    @classmethod
    def open(cls, run: Path, name: str) -> Step:
        """Read the marks; a part with a torn one is not done."""
        marks = (run / name / "_done").glob("part-*.json")
        numbered = sorted((int(mark.stem.removeprefix("part-")), mark) for mark in marks)
        found = {number: _files(mark) for number, mark in numbered}
        done = {number: files for number, files in found.items() if files is not None}
        return cls(run=run, name=name, digests=done)

    def rows(
        self,
        columns: Mapping[str, pa.DataType],
        *,
        needed: tuple[str, ...] = (),
        broken: list[StoreError] | None = None,
    ) -> Rows:
        """Some columns of all parts.

        Args:
            columns: Name to type.
            needed: Those that every part with rows must have.
            broken: Takes the errors of parts that cannot be read, which are then left out.

        Raises:
            StoreError: A file cannot be read, or does not have them, and there is nothing to take that.
        """
        schema = pa.schema(columns.items())
        numbers = [number for number, files in self.digests.items() if _rows(number) in files]

        def read(some: list[int]) -> list[pa.Table]:
            return [self._read(number, schema, needed, broken) for number in some]

        with ThreadPoolExecutor(READERS) as pool:  # a task for each file would cost a tenth of the time
            some = [numbers[start : start + FILES] for start in range(0, len(numbers), FILES)]
            tables = [table for tables in pool.map(read, some) for table in tables]
        counts = np.asarray([len(table) for table in tables], np.int64)
        return Rows(
            table=pa.concat_tables([schema.empty_table(), *tables]),
            part=np.repeat(np.asarray(numbers, np.int32), counts),
            place=(np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)).astype(np.int32),
        )

    def _read(
        self, number: int, schema: pa.Schema, needed: tuple[str, ...], broken: list[StoreError] | None
    ) -> pa.Table:
        file = self.run / self.name / _rows(number)
        try:
            with pq.ParquetFile(file) as opened:
                known = set(opened.schema_arrow.names)
                there = [name for name in schema.names if name in known]
                found = opened.read(columns=there, use_threads=len(self.digests) == 1).select(there)
            missing = [name for name in needed if name not in there]
            if missing and len(found):
                raise ValueError(f"there is no column {', '.join(missing)}")
            if found.schema.equals(schema):
                return found
            absent = {one.name: pa.nulls(len(found), one.type) for one in schema if one.name not in there}
            return pa.table({**{name: found[name] for name in there}, **absent}).select(schema.names).cast(schema)
        except UNREADABLE as error:
            if broken is None:
                raise _damaged(self.run, file, error) from error
            broken.append(_damaged(self.run, file, error))
            return schema.empty_table()

    def checked(self, number: int) -> bytes:
        """The file with the rows of a part, which has the digest that its mark had when the step was opened.

        Raises:
            StoreError: It has another one, or is gone.
        """
        file = self.run / self.name / _rows(number)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise _damaged(self.run, file, error) from error
        if content_digest(content) != self.digests.get(number, {}).get(file.name):
            raise _damaged(self.run, file, "it is not what was written")
        return content

    def arrays(self, number: int = 0) -> dict[str, Stored]:
        """The arrays of a part by name; none where it has none.

        Raises:
            StoreError: The file cannot be read.
        """
        file = self.run / self.name / f"part-{number:05d}.safetensors"
        if file.name not in self.digests.get(number, {}):
            return {}
        try:
            with safe_open(file, framework="numpy") as opened:
                shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except UNREADABLE as error:
            raise _damaged(self.run, file, error) from error
        return {name: Stored(run=self.run, file=file, name=name, shape=shape) for name, shape in shapes.items()}


def _files(mark: Path) -> dict[str, str] | None:
    try:
        return dict(read_json(mark)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rows(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _damaged(run: Path, file: Path, what: object) -> StoreError:
    return StoreError(
        f"store: {file.relative_to(run)} is damaged ({what}). Run again: heatprint study --out {run} makes it anew, "
        "and only it."
    )
