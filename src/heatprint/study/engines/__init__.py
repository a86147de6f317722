"""Who computes the parts of a study: this process, processes beside it, or a Ray cluster; nobody else."""

from __future__ import annotations

from heatprint.core.errors import InvalidInput
from heatprint.study.engines.local import Local
from heatprint.study.engines.task import Engine, Limits, Task

__all__ = ["Engine", "Limits", "Local", "Task", "make"]


def make(name: str = "local", *, workers: int | None = None) -> Engine:
    """An engine by name.

    Args:
        name: ``"local"``; ``"ray"`` for a cluster that is running on this machine, else one that is started for the
            study; or the address of a cluster: ``"ray://HOST:10001"``, ``"HOST:6379"``.
        workers: How many parts are worked on at a time; by default one for each core of the machine or of the cluster.

    Raises:
        InvalidInput: There is no such engine, or no worker.
        MissingExtra: Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise InvalidInput(f"engine: workers = {workers} must be 1 or more; leave it out for one on each core.")
    if name == "local":
        return Local(workers)
    if name == "ray" or ":" in name:
        from heatprint.study.engines.ray import Ray

        return Ray(None if name == "ray" else name, workers)
    raise InvalidInput(f"engine: {name!r} is not known. Write 'local', 'ray', 'ray://HOST:10001' or 'HOST:6379'.")
