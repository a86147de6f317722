"""Parts computed on this machine: in this process, or in several beside it."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from threading import RLock
from uuid import uuid4

import cloudpickle
from loky import ProcessPoolExecutor
from loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from heatprint.core.classifier import Classifier
from heatprint.core.errors import EngineError
from heatprint.core.protocols import Progress
from heatprint.core.store import Part
from heatprint.study.engines.task import Limits, Pending, Task, run

log = logging.getLogger("heatprint")
AHEAD = 2  # parts handed out for each worker, so that none waits for its next
DEATHS = 3  # of workers while no part gets ready, after which the work itself must be what kills them
IDLE = 120.0  # seconds after which a worker without work goes, e.g. while a model is trained
PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)


class Local:
    """Computes parts here.

    Processes are started when there is more than one part to compute. A worker that dies takes nothing with it but the
    parts it was at, which are computed again. On a GPU there is one worker, this process.

    Args:
        workers: Processes; by default one for each core this process may use.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._threads = 0

    def compute(
        self, classifier: Classifier, pending: Sequence[Pending], limits: Limits, within: Callable[[int], Progress]
    ) -> Generator[tuple[int, Part], None, None]:
        """See `heatprint.study.engines.task.Engine`."""
        workers = self._workers or max(1, cores() // limits.threads)
        beside = classifier.device.type == "cpu" and min(workers, len(pending)) > 1
        if self._workers and self._workers > 1 and classifier.device.type != "cpu":
            log.info("on a GPU one worker computes, this process; several share GPUs on Ray")
        parcel = _packed(classifier, pending[0][1]) if beside else None
        if parcel is not None:
            yield from self._beside(parcel, pending, limits, workers)
            return
        for index, make in pending:
            yield index, run(make(), classifier, limits, within(index))

    def close(self) -> None:
        """Let the workers go."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None

    def _beside(
        self, parcel: bytes, pending: Sequence[Pending], limits: Limits, workers: int
    ) -> Iterator[tuple[int, Part]]:
        token, sent = uuid4().hex, 0
        waiting, flying = deque(pending), dict[Future[Part | None], Pending]()
        deaths, lacking = 0, False
        while waiting or flying:
            try:
                while waiting and len(flying) < AHEAD * workers:
                    task, needed = waiting[0][1](), sent < workers or lacking
                    pool = self._started(workers, limits)
                    with _unheard():
                        future = pool.submit(_compute, token, parcel if needed else None, task, limits)
                    flying[future] = waiting.popleft()
                    sent, lacking = sent + 1, False
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    part = future.result()
                    if part is None:  # a worker that has not had the classifier yet
                        waiting.appendleft(flying.pop(future))
                        lacking = True
                        break
                    yield flying.pop(future)[0], part
                    deaths = 0
            except TerminatedWorkerError as error:
                deaths += 1
                if deaths == DEATHS:
                    numbers = ", ".join(map(str, sorted(index for index, _ in flying.values())))
                    told = str(error).splitlines()[0]
                    raise EngineError(
                        f"engine: workers died {DEATHS} times at parts {numbers}, most likely for want of memory "
                        f"({told}). Write fewer --workers, or a smaller memory under [resources] in the recipe."
                    ) from error
                lost = [one for one in flying if not one.done() or one.exception()]
                waiting.extendleft(flying.pop(one) for one in reversed(lost))
                self.close()

    def _started(self, workers: int, limits: Limits) -> ProcessPoolExecutor:
        if self._pool is None or self._threads != limits.threads:
            self.close()
            self._threads = limits.threads
            resource_tracker.ensure_running()  # which lets SIGINT through again when it is begun
            variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
            self._pool = ProcessPoolExecutor(
                workers, timeout=IDLE, initializer=_begin, initargs=(os.getpid(),),
                env=dict.fromkeys(variables, str(limits.threads)),
            )  # fmt: skip
        return self._pool


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _packed(classifier: Classifier, make: Callable[[], Task]) -> bytes | None:
    """The classifier as it travels from process to process, never to a file; None where it, or the work, cannot."""
    try:
        cloudpickle.dumps(make())
        return bytes(cloudpickle.dumps(classifier))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        log.warning("this classifier or method cannot be sent to other processes (%s): computing in this one", error)
        return None


@contextmanager
def _unheard() -> Iterator[None]:
    """Ctrl-C waits; a process that is begun inside never hears it, not even while it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """A worker leaves Ctrl-C to the process that began it, dies with that, and leaves nothing behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux" and Path("/proc/self").exists():
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)
    tqdm.set_lock(RLock())  # of umap's: else it makes a semaphore, which a worker that dies leaves


def _compute(token: str, parcel: bytes | None, task: Task, limits: Limits) -> Part | None:
    """The part; None where the classifier has not come to this worker yet: it is not sent each time."""
    if token not in _HELD:
        if parcel is None:
            return None
        _HELD.clear()
        _HELD[token] = cloudpickle.loads(parcel)
    return run(task, _HELD[token], limits)


_HELD: dict[str, Classifier] = {}
"""The classifier this worker is at, by token."""
