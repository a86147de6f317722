"""One writer at a time on a store: a lease that its holder renews, and that is dead when nobody has for a while."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from heatprint.core.errors import StoreError
from heatprint.core.store import as_json
from heatprint.study.remote.objects import Objects

NAME = ".lease.json"
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps


class Lease:
    """The right to write below an address.

    Args:
        objects: The address.
        every: Seconds between renewals.
        dead: Seconds without one after which nobody holds it.
        settle: Seconds after which two who took it in the same moment see who of them was last.
    """

    def __init__(self, objects: Objects, *, every: float = 20.0, dead: float = 90.0, settle: float = 1.0) -> None:
        self._objects, self._every, self._dead, self._settle = objects, every, dead, settle
        self._me = {"owner": uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        self._renewed, self._lost = 0.0, ""
        self._end = threading.Event()

    @contextmanager
    def held(self, beat: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Hold it.

        Args:
            beat: Called after each renewal.

        Raises:
            StoreError: Another study does.
        """
        self._take()
        thread = threading.Thread(target=self._renew, args=(beat,), name="heatprint lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            if not self._lost and self._is_mine(self._read()):
                self._objects.remove(NAME)

    def check(self) -> None:
        """Refuse to go on without it.

        Raises:
            StoreError: It could not be renewed in time, or another study has taken it.
        """
        if self._lost or time.clock_gettime(CLOCK) - self._renewed > self._dead:
            raise StoreError(
                f"remote: this study no longer holds {self._objects.address} "
                f"({self._lost or f'it could not say for {self._dead:g} s that it is alive'}). Nothing that was "
                "computed is lost: the same command again goes on, unless another study has."
            )

    def _take(self) -> None:
        known = self._read()
        if known is not None:
            age = time.time() - known["time"]
            if age < self._dead:
                raise self._refusal(known, f"If that one is dead, write this again in {self._dead - age:.0f} s")
            time.sleep(1.25 * self._every)  # its clock may be wrong: whoever is alive renews it meanwhile
            if self._read() != known:
                raise self._refusal(known, "Its clock, or the one here, is wrong")
        self._write()
        time.sleep(self._settle)
        seen = self._read()
        if not self._is_mine(seen):
            raise self._refusal(seen or self._me, "It came in the same moment")

    def _refusal(self, known: dict[str, Any], then: str) -> StoreError:
        return StoreError(
            f"remote: another study is writing to {self._objects.address} ({known.get('host')}, process "
            f"{known.get('process')}). Wait for it, or name another address. {then}."
        )

    def _renew(self, beat: Callable[[], object]) -> None:
        while not self._end.wait(self._every):
            try:
                if not self._is_mine(self._read()):
                    self._lost = "another study has taken it"
                    return
                self._write()
                beat()
            except StoreError:
                continue  # the next try may come in time; `check` knows when it has not

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._objects.read(NAME) or b"null")
            return {**found, "time": float(found["time"])} if found else None
        except (ValueError, KeyError, TypeError):
            return None  # nothing that a lease would be

    def _write(self) -> None:
        now = time.clock_gettime(CLOCK)
        self._objects.write(NAME, as_json({**self._me, "time": round(time.time(), 3)}))
        self._renewed = now

    def _is_mine(self, known: dict[str, Any] | None) -> bool:
        return known is not None and known.get("owner") == self._me["owner"]
