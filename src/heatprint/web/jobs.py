"""Work that takes seconds: started by one request, asked about by others, one at a time."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from heatprint.core.errors import HeatprintError, InvalidInput

KEPT = 32  # jobs whose result is remembered
MOST = 4  # jobs that wait or run
log = logging.getLogger("heatprint.web")


class Stopped(Exception):
    """The job was asked to end."""


@dataclass(eq=False)
class Job:
    """One piece of work.

    Attributes:
        name: By which it is asked about.
        state: ``"waiting"``, ``"running"``, ``"done"``, ``"failed"`` or ``"stopped"``.
        done: Steps done, of `of`.
        of: Steps in all, 0 where that is not known.
        note: What there is to say about it.
        result: When done.
    """

    name: str
    state: str = "waiting"
    done: int = 0
    of: int = 0
    note: str = ""
    result: dict[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: int, of: int, note: str = "") -> None:
        """Told by the work how far it is.

        Raises:
            Stopped: Somebody asked for it.
        """
        if self.stop.is_set():
            raise Stopped
        self.done, self.of, self.note = done, of, note

    def told(self) -> dict[str, Any]:
        """For an answer; a job that was stopped before its turn came says so at once."""
        state = "stopped" if self.state == "waiting" and self.stop.is_set() else self.state
        return {"job": self.name, "state": state, "done": self.done, "of": self.of, "note": self.note,
                "result": self.result}  # fmt: skip


class Busy(HeatprintError):
    """More is waiting than can be done soon."""


class Jobs:
    """All of them; one works at a time, since the cores are the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")

    def start(self, work: Callable[[Job], dict[str, Any]]) -> Job:
        """Hand in work.

        Raises:
            Busy: Too much is waiting.
        """
        job = Job(name=secrets.token_hex(8))
        with self._lock:
            if sum(one.state in ("waiting", "running") for one in self._known.values()) >= MOST:
                raise Busy(f"{MOST} searches are waiting already. Wait for one to end, or stop one.")
            self._known[job.name] = job
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._worker.submit(self._run, job, work)
        return job

    def get(self, name: str) -> Job:
        """The job of that name.

        Raises:
            InvalidInput: There is none, or it is long past.
        """
        with self._lock:
            if name not in self._known:
                raise InvalidInput("there is no such search; start it again.")
            return self._known[name]

    def close(self) -> None:
        """Ask all to end."""
        with self._lock:
            for job in self._known.values():
                job.stop.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        try:
            job.progress(0, 0)
            job.state = "running"
            job.result = work(job)
            job.state = "done"
        except Stopped:
            job.state = "stopped"
        except HeatprintError as error:
            job.state, job.note = "failed", str(error)
        except Exception:  # the thread has no caller: tell the log all of it, and the page that there is a log
            log.exception("a search failed")
            job.state, job.note = "failed", "The search failed; the server's log says why."
