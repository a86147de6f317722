"""Every finished file of a run folder, sent to a store while the study goes on: data first, marks after them."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from heatprint.core.inventory import DONE
from heatprint.study.remote.objects import Objects

LANES = 6  # files that are sent at a time
WAITING = 96  # that wait; then the study waits
JOURNAL = "events.jsonl"


def is_sent(name: str) -> bool:
    """Whether a file of a run folder belongs to the run: not the lock, nor what one machine notes for itself."""
    return not any(part.startswith(".") for part in name.split("/"))


class Mirror:
    """Sends what changes in a folder.

    Files of one part, or of one model, are sent one after the other in the order in which they were finished, so that
    a mark never stands on the store before its data. Files at the top of the folder, among them ``metrics.json``, by
    which a run is finished, wait until all before them are there.

    Args:
        root: The folder.
        objects: Where it is sent.
        check: Called before each file; raises where nothing may be sent any more.
    """

    def __init__(self, root: Path, objects: Objects, check: Callable[[], None] = lambda: None) -> None:
        self._root, self._objects, self._check = root, objects, check
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="heatprint mirror") for _ in range(LANES)]
        self._room = threading.BoundedSemaphore(WAITING)
        self._flying: set[Future[None]] = set()
        self._wanted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._failed: BaseException | None = None

    def changed(self, path: Path) -> None:
        """A file was finished, or taken away.

        Raises:
            StoreError: An earlier one could not be sent.
        """
        name = path.relative_to(self._root).as_posix()
        if not is_sent(name):
            return
        self._raise()
        if "/" in name.removeprefix(f"{DONE}/"):
            self._submit(name)
            return
        self.flush()
        self._submit(name)
        self.flush()

    def journal(self) -> None:
        """Send the journal of progress as it is now, if there is room; for any thread."""
        if (self._root / JOURNAL).is_file() and self._room.acquire(blocking=False):
            self._enqueue(JOURNAL)

    def flush(self) -> None:
        """Wait until everything is there.

        Raises:
            StoreError: Something could not be sent.
        """
        with self._lock:
            flying = set(self._flying)
        for failed in (one.exception() for one in wait(flying).done if not one.cancelled()):
            if failed is not None:
                raise failed
        self._raise()

    def close(self) -> None:
        """Let the threads go; what still waits is not sent."""
        for lane in self._lanes:
            lane.shutdown(wait=True, cancel_futures=True)

    def _submit(self, name: str) -> None:
        self._room.acquire()
        self._enqueue(name)

    def _enqueue(self, name: str) -> None:
        with self._lock:
            self._wanted[name] += 1
            future = self._lanes[zlib.crc32(_together(name).encode()) % LANES].submit(self._send, name)
            self._flying.add(future)
        future.add_done_callback(self._landed)

    def _send(self, name: str) -> None:
        with self._lock:
            self._wanted[name] -= 1
            again = self._wanted[name] > 0
            failed = self._failed is not None
        if failed or (again and DONE not in name.split("/")):
            return  # it has changed since, and is sent when that turn comes
        self._check()
        if (self._root / name).is_file():
            self._objects.send(self._root / name, name)
        else:
            self._objects.remove(name)

    def _landed(self, future: Future[None]) -> None:
        self._room.release()
        with self._lock:
            self._flying.discard(future)
            if not future.cancelled() and future.exception() is not None and self._failed is None:
                self._failed = future.exception()

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed


def _together(name: str) -> str:
    """What files are sent in their order: of one part, or of one model, or of all images."""
    folder, _, last = name.replace(f"/{DONE}/", "/").rpartition("/")
    return f"{folder}/{last.partition('.')[0]}" if last.startswith("part-") else folder
