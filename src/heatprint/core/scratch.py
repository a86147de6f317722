"""Room for arrays that may be larger than the memory: on disk, mapped, gone when nobody holds them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

LARGE = 256 << 20  # bytes from which on an array lies on disk
_FOLDER: ContextVar[Path | None] = ContextVar("scratch folder", default=None)


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Put large arrays of this context into a folder, e.g. the run's, where there is room; else into the system's."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def room(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """An array to be filled: in memory, or where it is large in a file without a name.

    The file was unlinked when it was made, so its space is free again when the array goes, and when the process is
    killed; its pages can leave the memory at any time, so a process may fill more of it than it has memory.

    Args:
        shape: Of the array.
        dtype: Of its values, which are not set.

    Raises:
        OSError: There is no room for it on the disk.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=_FOLDER.get()) as file:
        _reserve(file.fileno(), size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def _reserve(descriptor: int, size: int) -> None:
    """Take the space now: where the disk is full that is an error, and later, in a mapped page, the process's end."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.truncate(descriptor, size)  # a file system that cannot reserve
