"""The objects of a run on a store, through fsspec; whatever fails for a moment is tried again."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from heatprint.core.errors import InvalidInput, MissingExtra, StoreError

log = logging.getLogger("heatprint")
PAUSES = (0.2, 1.0, 4.0, 15.0)  # seconds before a further try
WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"}
"""Protocols whose objects appear whole or not at all; others are written beside, and renamed."""

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
AT_ONCE = 500  # small objects that are read together
Result = TypeVar("Result")


class Objects:
    """The objects below an address.

    Args:
        address: Such as ``"s3://bucket/run"``.
        pauses: Seconds before a further try of what failed; as many tries.

    Raises:
        MissingExtra: fsspec is not installed.
        StoreError: The package of this store is not installed.
        InvalidInput: No such kind of store is known.
    """

    def __init__(self, address: str, *, pauses: Sequence[float] = PAUSES) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtra("fsspec", "remote", f"the run folder {address}") from error
        self.address, self._pauses = address.rstrip("/"), pauses
        self._protocol = address.partition("://")[0]
        try:
            found: tuple[Any, str] = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            package = PACKAGES.get(self._protocol)
            told = f"python -m pip install {package}" if package else str(error)
            raise StoreError(f"remote: {address} needs a package that is not installed. Write: {told}") from error
        except ValueError as error:
            raise InvalidInput(
                f"remote: {address} is of no kind that fsspec knows ({error}). Write s3://..., gs://..., or a path."
            ) from error
        self._files, root = found
        self._root = root.rstrip("/")

    def names(self) -> dict[str, int]:
        """Path below the address to size in bytes."""

        def listed() -> dict[str, int]:
            self._files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
            return {path.removeprefix(self._root).lstrip("/"): int(one["size"] or 0) for path, one in found.items()}

        return self._tried(f"list {self.address}", listed) or {}

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""

        def got() -> bytes:
            self._files.invalidate_cache()
            content: bytes = self._files.cat_file(self._path(name))
            return content

        return self._tried(f"read {name}", got)

    def read_many(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Small objects, many at a time."""
        for start in range(0, len(names), AT_ONCE):
            wanted = {self._path(name): name for name in names[start : start + AT_ONCE]}
            found: dict[str, bytes | Exception] = self._files.cat(list(wanted), on_error="return")
            for path, content in found.items():
                again = content if isinstance(content, bytes) else self.read(wanted[path])
                if again is not None:
                    yield wanted[path], again

    def write(self, name: str, content: bytes) -> None:
        """Write a small object."""
        if not self._put(name, lambda path: self._files.pipe_file(path, content)):
            raise self._nowhere()

    def send(self, file: Path, name: str) -> None:
        """Write a file; nothing where it has gone meanwhile."""
        if not self._put(name, lambda path: self._files.put_file(str(file), path)) and file.exists():
            raise self._nowhere()

    def fetch(self, name: str, to: Path) -> None:
        """Read an object into a file, which appears whole.

        Raises:
            StoreError: It is not there any more.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        torn = to.with_name(f".{to.name}.{os.getpid()}.tmp")

        def got() -> bool:
            self._files.get_file(self._path(name), str(torn))
            torn.replace(to)
            return True

        try:
            if not self._tried(f"read {name}", got):
                raise StoreError(f"remote: {self.address}/{name} has gone while it was read. Write the command again.")
        finally:
            torn.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Take an object away, if it is there."""
        self._tried(f"remove {name}", lambda: self._files.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _nowhere(self) -> StoreError:
        return StoreError(f"remote: {self.address} cannot be written to: there is no such place. Make the bucket.")

    def _put(self, name: str, put: Callable[[str], object]) -> bool:
        path = self._path(name)

        def done() -> bool:
            if self._protocol in WHOLE:
                put(path)
                return True
            folder, _, last = path.rpartition("/")
            self._files.makedirs(folder, exist_ok=True)
            torn = f"{folder}/.{last}.{uuid4().hex}.tmp"
            put(torn)
            self._files.mv(torn, path)
            return True

        return bool(self._tried(f"write {name}", done))

    def _tried(self, what: str, action: Callable[[], Result]) -> Result | None:
        """Do something, again where it fails; None where the thing is not there.

        Raises:
            StoreError: It failed every time.
        """
        for pause in (*self._pauses, None):
            try:
                return action()
            except FileNotFoundError:
                return None
            except _troubles() as error:
                if pause is None or isinstance(error, PermissionError):
                    raise StoreError(
                        f"remote: cannot {what} at {self.address} ({type(error).__name__}: {error}). Nothing that was "
                        "computed is lost: the same command again goes on."
                    ) from error
                log.info("cannot %s at %s (%s): trying again in %g s", what, self.address, error, pause)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")


def _troubles() -> tuple[type[Exception], ...]:
    """What Python and the stores' packages, as far as they are used, raise where a store cannot be reached."""
    known = (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"), ("gcsfs.retry", "HttpError"),
             ("azure.core.exceptions", "AzureError"))  # fmt: skip
    return OSError, *(getattr(sys.modules[module], name) for module, name in known if module in sys.modules)
