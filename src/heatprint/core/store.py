"""The cellar: a run folder of write-once parts that survive a kill at any moment.

    RUN/<step>/part-00012.parquet        rows (one per image)
    RUN/<step>/part-00012.safetensors    arrays
    RUN/<step>/_done/part-00012.json     key, digests of the two files, digest of itself

A part is written under a temporary name, synced, renamed, and only then marked done. A part counts as done
when its mark carries the expected key and both files still have the digests in the mark; anything else (a
torn write, an altered file, other settings) is computed again and replaced, and never read. No file but the journal of
progress holds a time: equal inputs give a folder of equal bytes. Nothing here imports torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load, save

from heatprint.core.digest import content_digest, digest
from heatprint.core.errors import StoreError
from heatprint.core.reading import read_json

SCHEMA = 1  # of the run folder; readers refuse a newer one
STAMP, LOCK = "schema.json", ".lock"
_LISTENER: ContextVar[Callable[[Path], object]] = ContextVar("listener", default=lambda path: None)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or the next process after a crash, sees all of it or nothing."""
    with replacing(path) as stream:
        stream.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece; what is at `path` is replaced at the end, when all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), torn.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        torn.replace(path)
    finally:
        torn.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must reach the disk, too
    finally:
        os.close(folder)
    announce(path)


def remove(path: Path) -> None:
    """Take a file away, if it is there."""
    path.unlink(missing_ok=True)
    announce(path)


@contextmanager
def announced_to(listener: Callable[[Path], object]) -> Iterator[None]:
    """Tell somebody of each file that was finished or taken away, inside."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def announce(path: Path) -> None:
    """A file was finished, or taken away."""
    _LISTENER.get()(path)


def sweep(root: Path) -> None:
    """Take away what a process that was killed left half written; nobody may be writing."""
    for torn in list(root.rglob(".*.tmp")):
        if torn.is_dir() and not torn.is_symlink():
            shutil.rmtree(torn)
        else:
            torn.unlink(missing_ok=True)  # gone already with its folder


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing a file say which: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def in_the_way(path: Path) -> Path | None:
    """The file that stands where a folder above `path` would have to be; None where nothing does."""
    return next((above for above in path.parents if above.exists() and not above.is_dir()), None)


def as_json(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; see `as_json`."""
    write_atomic(path, as_json(value))


def write_mark(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that carries its own digest, by which an altered mark is told; see `read_mark`."""
    value = json.loads(as_json(value))  # as it will be read: a tuple is a list then
    write_json(path, {**value, "seal": digest(value)})


def read_mark(path: Path) -> dict[str, Any]:
    """What `write_mark` wrote, to the byte.

    Raises:
        FileNotFoundError: There is none.
        StoreError: It is damaged.
    """
    try:
        found = read_json(path)
        if as_json(found) != path.read_bytes():
            raise ValueError("it is not as it was written")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"store: {path} is damaged ({error}).") from error
    if not isinstance(found, dict) or found.pop("seal", "") != digest(found):
        raise StoreError(f"store: {path} is damaged: it has another digest than it says.")
    return found


@contextmanager
def held(root: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a run folder against a second writer, or with `shared` against any; the lock dies with the process.

    Raises:
        StoreError: Another process is writing here; or reading what must not change meanwhile.
    """
    lock = os.open(root / LOCK, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"store: another process is writing to {root}. Wait for it, or name another folder."
            ) from error
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one step computed for one slice of the images.

    Attributes:
        rows: Columns by name, all of one length.
        arrays: Arrays by name.
    """

    rows: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class Store:
    """One run folder.

    Args:
        root: The folder; made when missing.

    Raises:
        StoreError: It was written by a newer version, or is not a folder of ours.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        stamp = root / STAMP
        if root.exists() and not root.is_dir():
            raise StoreError(f"store: {root} is a file. Name a folder for the run.")
        if stamp.exists():
            _check_schema(stamp)
        elif root.exists() and any(not p.name.startswith((LOCK, f".{STAMP}.")) for p in root.iterdir()):
            raise StoreError(
                f"store: {root} is not empty and was not written by heatprint. Name an empty or new folder."
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder against a second writer; the lock dies with the process.

        Raises:
            StoreError: Another process is writing here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with held(self.root):
            sweep(self.root)
            write_json(self.root / STAMP, {"schema": SCHEMA})
            yield

    def memo(self, step: str, index: int, key: Any, compute: Callable[[], Part]) -> Part:
        """The part of a step: read when it is done under this key, else computed and kept.

        Args:
            step: Folder of the step inside the run, e.g. ``"attacks/fgsm/test"``.
            index: Number of the part.
            key: Everything the result depends on (see `digest`).
            compute: Makes the part; called only when it is missing, damaged or of another key.
        """
        if self.holds(step, index, key):
            with suppress(StoreError):  # damaged: computed again
                return self.read(step, index)
        self.keep(step, index, key, compute())
        return self.read(step, index)

    def holds(self, step: str, index: int, key: Any) -> bool:
        """Whether a part is marked done under this key and its files are there; only reading it finds damage."""
        mark = self._mark(step, index)
        files = mark.get("files")
        return (
            mark.get("key") == digest(SCHEMA, step, index, key)
            and isinstance(files, dict)
            and all((self.root / step / name).is_file() for name in files)
        )

    def keep(self, step: str, index: int, key: Any, part: Part) -> None:
        """Write a part and mark it done under a key; see `memo`."""
        rows, arrays, mark = self._paths(step, index)
        remove(mark)
        files = {}
        if part.rows:
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(dict(part.rows)), sink, compression="zstd")
            content = sink.getvalue().to_pybytes()
            write_atomic(rows, content)
            files[rows.name] = content_digest(content)
        if part.arrays:
            packed = save({k: np.ascontiguousarray(v) for k, v in part.arrays.items()})
            write_atomic(arrays, packed)
            files[arrays.name] = content_digest(packed)
        write_mark(mark, {"key": digest(SCHEMA, step, index, key), "files": files})

    def read(self, step: str, index: int) -> Part:
        """A finished part, rows as lists of Python values.

        Raises:
            StoreError: It is missing, or its files are not those that were written.
        """
        rows, arrays, mark = self._paths(step, index)
        files = self._mark(step, index).get("files")
        if not isinstance(files, dict):
            raise StoreError(f"store: {mark.relative_to(self.root)} is missing; run the study again.")
        content = {name: self._checked(self.root / step / name, expected) for name, expected in files.items()}
        return Part(
            rows=_table(content[rows.name]).to_pydict() if rows.name in content else {},
            arrays=load(content[arrays.name]) if arrays.name in content else {},
        )

    def _checked(self, file: Path, expected: str) -> bytes:
        """The bytes of a part's file, which are those that were written."""
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            content = b""
        if content_digest(content) != expected:
            raise StoreError(f"store: {file.relative_to(self.root)} is damaged; run the study again.")
        return content

    def trim(self, step: str, count: int) -> None:
        """Remove the parts of a step from number `count` on, which an earlier, larger set of images left."""
        folder = self.root / step
        for path in (*(folder / "_done").glob("part-*.json"), *folder.glob("part-*")):  # the marks first
            number = path.stem.removeprefix("part-")
            if number.isdigit() and int(number) >= count:
                remove(path)

    def _paths(self, step: str, index: int) -> tuple[Path, Path, Path]:
        folder, name = self.root / step, f"part-{index:05d}"
        return folder / f"{name}.parquet", folder / f"{name}.safetensors", folder / "_done" / f"{name}.json"

    def _mark(self, step: str, index: int) -> dict[str, Any]:
        """What the mark of a part says; nothing where it is missing or damaged."""
        try:
            return read_mark(self._paths(step, index)[2])
        except (FileNotFoundError, StoreError):
            return {}


def _table(content: bytes) -> pa.Table:
    # without threads: one of Arrow's may let go of the bytes while Python ends, and the process aborts
    return pq.read_table(pa.BufferReader(content), use_threads=False)


def _check_schema(stamp: Path) -> None:
    try:
        version = int(json.loads(stamp.read_bytes())["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"store: {stamp} is damaged ({error}). Name another folder.") from error
    if version > SCHEMA:
        raise StoreError(
            f"store: {stamp.parent} has schema {version}, this heatprint reads up to {SCHEMA}. "
            "Install a newer heatprint or name another folder."
        )
