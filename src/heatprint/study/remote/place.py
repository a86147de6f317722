"""Where a study works: in its folder, or for one on an object store in a local folder, which is sent there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput
from heatprint.core.store import Store, announced_to, held
from heatprint.study.remote.fetch import bring
from heatprint.study.remote.lease import Lease
from heatprint.study.remote.mirror import Mirror
from heatprint.study.remote.objects import Objects

log = logging.getLogger("heatprint")


def is_address(out: str | Path) -> bool:
    """Whether a run folder is named by an address, such as ``"s3://bucket/run"``."""
    return "://" in str(out)


@contextmanager
def worked_in(
    out: str | Path, work: str | Path | None = None, *, objects: Objects | None = None, lease: Lease | None = None
) -> Iterator[Path]:
    """The local folder to work in.

    For a run on an object store, it is brought up to date first, and then every file is sent when it is finished; at
    the end all of them are there. Meanwhile a lease keeps other studies out; that of a machine which died ends by
    itself, and the next one goes on with what the store has.

    Args:
        out: The run folder: a path, or an address.
        work: The local folder for an address; by default one in the cache.
        objects: How the address is reached, if not as usual.
        lease: How it is held, if not as usual.

    Raises:
        StoreError: Another study holds the address, or it cannot be reached.
        MissingExtra: An address needs fsspec.
        InvalidInput: A path needs no other folder to work in.
    """
    if not is_address(out):
        if work is not None:
            raise InvalidInput(f"study: {out} is a folder, in which the study works; leave --work out.")
        yield Path(out)
        return
    objects = objects or Objects(str(out))
    lease = lease or Lease(objects)
    root = _made(Path(work) if work is not None else _cache(objects.address))
    mirror = Mirror(root, objects, lease.check)
    try:
        with lease.held(mirror.journal):
            with held(root):
                extra = bring(objects, root, disposable=work is None)
            for name in extra:
                mirror.changed(root / name)
            try:
                with announced_to(mirror.changed):
                    yield root
            finally:
                log.info("sending what is finished to %s", objects.address)
                mirror.flush()  # also what was finished before something went wrong
                mirror.journal()
                mirror.flush()
    finally:
        mirror.close()


def fetched(address: str, folder: Path) -> None:
    """Bring a local copy of a run on an object store up to date.

    Raises:
        StoreError: The folder holds something else, or the store cannot be reached, or has no run there.
    """
    objects = Objects(address)
    if not objects.names():
        raise InvalidInput(f"fetch: there is nothing at {address}. Name the folder of a run.")
    Store(folder)
    with held(_made(folder)):
        bring(objects, folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cache(address: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "heatprint" / "runs" / digest(address)
