"""Reading every byte of a run folder."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from heatprint.core.digest import file_digest
from heatprint.core.errors import StoreError
from heatprint.core.inventory import DONE
from heatprint.core.reading import read_json
from heatprint.core.store import LOCK, SCHEMA, STAMP, Store, held
from heatprint.doctor.checks import jobs
from heatprint.doctor.finding import Examined, Finding
from heatprint.doctor.layout import Layout

THREADS = min(16, os.cpu_count() or 1)
AHEAD = 8  # files handed out for each thread


def examine(run: str | Path, *, read: Callable[[int, int], object] = lambda done, whole: None) -> Examined:
    """Hold every file of a run against its digest; nothing is changed, and nobody may write meanwhile.

    Args:
        run: The run folder, finished or not.
        read: Told of the bytes that were read, and of those there are; from any thread.

    Raises:
        StoreError: It is no run folder, of a newer version, or another process is writing to it.
    """
    root = Path(run)
    if not any((root / name).exists() for name in (STAMP, "recipe.json", DONE, "models")):
        raise StoreError(f"doctor: {root} is no run folder. Make one: heatprint study --out {root}")
    with ExitStack() as stack:
        if (root / LOCK).exists():
            stack.enter_context(held(root, shared=True))
        layout = Layout.of(root)
        _check_version(layout)
        tally = _Tally(read, layout.size)
        findings = _checked(layout, tally)
    files = len(layout.loose) + sum(map(len, layout.models.values()))
    files += sum(len(names) for parts in layout.parts.values() for names in parts.values())
    return Examined(
        findings=sorted(findings, key=lambda one: one.file),
        finished="metrics.json" in layout.loose,
        files=files,
        size=layout.size,
    )


def _check_version(layout: Layout) -> None:
    """Refuse the folder of a newer version, but not one whose stamp was altered so that it says so."""
    stamp = layout.root / STAMP
    if stamp.is_file() and layout.digests.get(STAMP) in (None, file_digest(stamp)):
        with suppress(ValueError, KeyError, TypeError, OSError):
            if int(read_json(stamp)["schema"]) > SCHEMA:
                Store(layout.root)


def _checked(layout: Layout, tally: _Tally) -> Sequence[Finding]:
    found: list[Finding] = []
    flying: deque[Future[Sequence[Finding]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for job in jobs(layout):
            flying.append(pool.submit(job, tally.add))
            if len(flying) >= AHEAD * THREADS:
                found += flying.popleft().result()
        while flying:
            found += flying.popleft().result()
    return found


class _Tally:
    """Bytes that were read, by all threads."""

    def __init__(self, told: Callable[[int, int], object], whole: int) -> None:
        self._told, self._whole, self._done, self._lock = told, whole, 0, threading.Lock()

    def add(self, count: int) -> None:
        """So many more were read."""
        with self._lock:
            self._done += count
            self._told(min(self._done, self._whole), self._whole)
