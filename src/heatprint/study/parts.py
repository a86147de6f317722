"""The parts of a step: those that are missing are computed by the engine, then all are read in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.store import Part, Store
from heatprint.models.footprint import fitting
from heatprint.study.engines import Engine, Limits, Task
from heatprint.study.engines.task import run


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """The images of one part.

    Attributes:
        key: Everything that its result depends on.
        images: How many they are.
        task: Makes what is to be computed.
    """

    key: Any
    images: int
    task: Callable[[], Task]


class Tally(Protocol):
    """Says how a step stands, from what its parts say; see `heatprint.study.attacking.Fallen`."""

    def during(self, note: object, waiting: int) -> object:
        """The step, from what the part now worked on says of itself, while so many images wait for their turn."""
        ...

    def add(self, part: Part, waiting: int) -> object:
        """Note what a finished part brought; the step, while so many images wait."""
        ...


class Untold:
    """Says nothing but what the part says."""

    def during(self, note: object, waiting: int) -> object:
        """What the part says."""
        del waiting
        return note

    def add(self, part: Part, waiting: int) -> object:
        """Nothing."""
        del part, waiting
        return ""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A run folder and who computes its parts.

    Attributes:
        store: The run folder.
        engine: Computes what is missing.
        threads: Of a worker.
        memory: ``"auto"``, or what a worker may use, such as ``"2 GiB"``.
        gpus: A worker's share of a GPU.
    """

    store: Store
    engine: Engine
    threads: int = 1
    memory: str = "auto"
    gpus: float = 0.0

    def limits(self, classifier: Classifier) -> Limits:
        """Of a part of a step about this classifier."""
        images = fitting(classifier, self.memory)
        return Limits(threads=self.threads, images=images, memory=self.memory, gpus=self.gpus)

    def parts(
        self,
        step: str,
        classifier: Classifier,
        pieces: Sequence[Piece],
        progress: Progress = silent,
        tally: Tally | None = None,
    ) -> Iterator[Part]:
        """The parts of a step in order: what is done is read, what is missing or damaged is computed, kept and read.

        Args:
            step: Folder of the step inside the run.
            classifier: What all its parts are about.
            pieces: Its parts.
            progress: Told of the images that are done.
            tally: What the progress says of them.
        """
        tally, limits = tally or Untold(), self.limits(classifier)
        missing = [number for number, piece in enumerate(pieces) if not self.store.holds(step, number, piece.key)]
        whole = sum(piece.images for piece in pieces)
        left = sum(pieces[number].images for number in missing)

        def within(number: int) -> Progress:
            own, start = pieces[number].images, whole - left

            def shown(done: int, total: int, note: object = "") -> None:
                progress(start + own * done // max(total, 1), whole, tally.during(note, whole - start - own))

            return shown

        pending = [(number, pieces[number].task) for number in missing]
        with closing(self.engine.compute(classifier, pending, limits, within)) as ready:
            for number, part in ready:
                self.store.keep(step, number, pieces[number].key, part)
                left -= pieces[number].images
                progress(whole - left, whole, tally.add(part, left))
        self.store.trim(step, len(pieces))
        for number, piece in enumerate(pieces):

            def again(piece: Piece = piece) -> Part:
                return run(piece.task(), classifier, limits)

            yield self.store.memo(step, number, piece.key, again)


def rows_of(count: int, size: int) -> list[Tensor]:
    """Rows 0 to `count`, cut into parts of at most `size`."""
    return list(torch.split(torch.arange(count), size)) if count else []
