"""A part to be computed, as it travels: what to call, with what, and within which limits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.limits import at_most, is_out_of_memory, threads
from heatprint.core.protocols import Progress, silent
from heatprint.core.store import Part
from heatprint.models.predict import BATCH

log = logging.getLogger("heatprint")


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One part to be computed.

    Attributes:
        function: Called with the classifier, the arguments and ``progress``; a function of a module, so that another
            process finds it by its name.
        arguments: The rest of what it needs.
    """

    function: Callable[..., Part]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one part may take, wherever it is computed; it may decide the last bit of a result, so it is the recipe's.

    Attributes:
        threads: Of one worker.
        images: That go through the network at once; None for what is usual on the device.
        memory: What that follows from on a worker with a device of its own; see `heatprint.models.footprint.fitting`.
        gpus: A worker's share of a GPU on Ray, e.g. 0.5; 0 for workers that compute on CPUs.
    """

    threads: int = 1
    images: int | None = None
    memory: str = "auto"
    gpus: float = 0.0


Pending = tuple[int, Callable[[], Task]]
"""Number of a part, and how to make its task; made when its turn comes, so that only those in work are in memory."""


class Engine(Protocol):
    """Computes parts."""

    def compute(
        self, classifier: Classifier, pending: Sequence[Pending], limits: Limits, within: Callable[[int], Progress]
    ) -> Generator[tuple[int, Part], None, None]:
        """The parts with their numbers, in the order in which they get ready.

        Args:
            classifier: The victim, the same for all.
            pending: What to compute.
            limits: For each part.
            within: Progress inside the part of a number, where the engine can tell.

        Raises:
            EngineError: Workers died again and again.
        """
        ...

    def close(self) -> None:
        """Let the workers go; the engine can be used again."""
        ...


def run(task: Task, classifier: Classifier, limits: Limits, progress: Progress = silent) -> Part:
    """Compute a part within its limits; where the memory does not do, with half as many images at a time, and again."""
    images = limits.images
    torch.backends.cudnn.deterministic = True  # equal seeds must give equal numbers
    while True:
        try:
            with threads(limits.threads), at_most(images):
                return task.function(classifier, **task.arguments, progress=progress)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or images == 1:
                raise
            images = max(1, (images or 4 * BATCH) // 2)
            log.warning("out of memory: going on with %d images at a time", images)
        if classifier.device.type == "cuda":
            torch.cuda.empty_cache()
