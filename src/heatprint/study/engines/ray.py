"""Parts as tasks of a Ray cluster, on one machine or on many."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from heatprint.core.classifier import Classifier
from heatprint.core.errors import EngineError, MissingExtra
from heatprint.core.protocols import Progress
from heatprint.core.store import Part
from heatprint.models.footprint import fitting
from heatprint.study.engines.task import Limits, Pending, Task, run

log = logging.getLogger("heatprint")
AHEAD = 2  # parts handed out for each core, so that none waits for its next
KNOCK = 10.0  # seconds to wait for an answer
RETRIES = 3  # of a part whose worker or machine died


class Ray:
    """Computes parts as Ray tasks; the parts come back here and are written here, so the machines share no disk.

    A part whose worker, or whose machine, died is computed again elsewhere. heatprint must be installed on every
    machine, in the same versions.

    Args:
        address: Of a cluster; None for the one this machine is in, else one is started here and ended with `close`.
        workers: Parts worked on at a time; by default one for each core of the cluster, or each GPU asked for.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("ray", "ray", "engine: 'ray'") from error
        self._ray: Any = ray
        self._address, self._workers = address, workers
        self._joined = self._began = False

    def compute(
        self, classifier: Classifier, pending: Sequence[Pending], limits: Limits, within: Callable[[int], Progress]
    ) -> Generator[tuple[int, Part], None, None]:
        """See `heatprint.study.engines.task.Engine`."""
        del within
        if not pending:
            return
        self._join(limits)
        self._check_room(limits)
        if classifier.device.type == "cuda" and not limits.gpus:
            log.warning("the workers on Ray compute on CPUs: write gpus = 1 under [resources] in the recipe")
        ray = self._ray
        remote = ray.remote(num_cpus=limits.threads, num_gpus=limits.gpus, max_retries=RETRIES)(_compute)
        token, parcel = uuid4().hex, [ray.put(classifier.to("cpu"))]  # in a list: fetched when it is asked for
        waiting, flying = deque(pending), dict[Any, int]()
        try:
            while waiting or flying:
                while waiting and len(flying) < self._places(limits):
                    index, make = waiting.popleft()
                    flying[remote.remote(token, parcel, make(), limits)] = index
                (ready, *_), _ = ray.wait(list(flying), num_returns=1)
                index = flying.pop(ready)
                yield index, self._fetched(ready, index)
        finally:
            for left in flying if ray.is_initialized() else ():
                ray.cancel(left, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._joined:
            self._ray.shutdown()
            self._joined = self._began = False

    def _join(self, limits: Limits) -> None:
        if self._ray.is_initialized():
            return
        if self._address:
            _check_answers(self._address)
        told = {"log_to_driver": False, "logging_level": "error"}
        try:
            self._ray.init(address=self._address or "auto", **({} if _is_client(self._address) else told))
        except ConnectionError as error:
            if self._address:
                raise _unreachable(self._address, error) from error
            self._ray.init(num_cpus=self._workers and self._workers * limits.threads, include_dashboard=False, **told)
            self._began = True
        self._joined = True

    def _places(self, limits: Limits) -> int:
        if self._workers:
            return AHEAD * self._workers if self._began else self._workers  # one that was begun here has no more cores
        has = self._ray.cluster_resources()
        most = has.get("GPU", 0) / limits.gpus if limits.gpus else has.get("CPU", 1) / limits.threads
        return AHEAD * max(1, int(most))

    def _check_room(self, limits: Limits) -> None:
        """See that a worker fits on some machine: Ray would wait for one for ever."""
        has = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(one.get("CPU", 0) >= limits.threads and one.get("GPU", 0) >= limits.gpus for one in has):
            raise EngineError(
                f"engine: no machine of the cluster has the {limits.threads} cores and {limits.gpus:g} GPUs that a "
                "worker takes. Write smaller threads and gpus under [resources] in the recipe, or add a machine."
            )

    def _fetched(self, ready: Any, index: int) -> Part:
        errors = self._ray.exceptions
        try:
            part: Part = self._ray.get(ready)
        except errors.RayTaskError as error:
            raise error.cause from error  # what the part's own code raised
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise EngineError(
                f"engine: the workers at part {index} died {RETRIES + 1} times ({error}). Write a smaller memory under "
                "[resources] in the recipe, or give the machines more."
            ) from error
        except errors.RayError as error:
            raise EngineError(f"engine: part {index} did not come back from the cluster: {error}") from error
        return part


def _is_client(address: str | None) -> bool:
    """Whether an address is that of a cluster's server for clients, which takes fewer options."""
    return bool(address and address.startswith("ray://"))


def _check_answers(address: str) -> None:
    """Knock before Ray does, which would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise EngineError(f"engine: {address!r} is no address. Write 'HOST:6379' or 'ray://HOST:10001'.")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> EngineError:
    return EngineError(f"engine: no Ray cluster answers at {address} ({error}). Start one: ray start --head")


def _compute(token: str, parcel: list[Any], task: Task, limits: Limits) -> Part:
    classifier = _unpacked(token, parcel, gpu=limits.gpus > 0)
    if limits.gpus:
        limits = replace(limits, images=fitting(classifier, limits.memory))  # on this machine's GPU
    return run(task, classifier, limits)


_HELD: dict[str, Classifier] = {}
"""The classifier this worker is at, by token."""


def _unpacked(token: str, parcel: list[Any], *, gpu: bool) -> Classifier:
    if token not in _HELD:
        import ray

        classifier: Classifier = ray.get(parcel[0])
        _HELD.clear()
        _HELD[token] = classifier.to("cuda" if gpu else "cpu")
    return _HELD[token]
