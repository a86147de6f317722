"""The guard behind its queue: what happens when it fails, which heat maps are still known, when it is ready."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import numpy as np

from heatprint.core.errors import BrokenContract
from heatprint.report.pictures import heat_uri, shared_scale
from heatprint.web.guard.answers import Answer
from heatprint.web.guard.batches import Batches, Full
from heatprint.web.guard.metrics import Metrics
from heatprint.web.guard.settings import Settings
from heatprint.web.uploads import read_image

LOG = logging.getLogger("heatprint.guard")
DECODERS = 2  # images decoded at one time, each of which may need room for many more pixels than are kept


class Guarding(Protocol):
    """What is served, e.g. `heatprint.live.Guard`; asked from one thread at a time."""

    @property
    def size(self) -> int:
        """Side of the images it takes, in pixels."""
        ...

    def check(self, pixels: np.ndarray) -> Sequence[object]:
        """Of uint8 [N, 3, H, W], one object per image with the attributes of an `Answer`."""
        ...

    def predict(self, pixels: np.ndarray) -> Sequence[object]:
        """The same without checking, for ``fail = "open"``."""
        ...

    def heat(self, pixels: np.ndarray) -> np.ndarray:
        """Signed relevance, float32 [N, H, W]."""
        ...


class Service:
    """A guard, its queues and its threads.

    Args:
        guard: What is served.
        settings: How.
    """

    def __init__(self, guard: Guarding, settings: Settings) -> None:
        self.guard, self.settings = guard, settings
        self.draining, self.running = False, False
        self.metrics = Metrics(lambda: self.checks.depth)
        self._thread = ThreadPoolExecutor(1, "guard")
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.checks: Batches[Answer | None] = Batches(
            self._checked, pool=self._thread, batch=settings.batch, wait_s=settings.wait_ms / 1000,
            most=settings.queue, seen=self.metrics.batches.observe,
        )  # fmt: skip
        self.heats: Batches[np.ndarray | None] = Batches(
            self._heated, pool=self._thread, batch=4, wait_s=0.0, most=max(1, settings.queue // 8)
        )
        self._recent: OrderedDict[str, np.ndarray] = OrderedDict()
        self._held = 0

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """While the application lives; on leaving, everything asked is answered first."""
        workers = [asyncio.create_task(queue.work()) for queue in (self.checks, self.heats)]
        self.running = True
        try:
            yield
        finally:
            self.draining = True
            await asyncio.gather(self.checks.emptied(), self.heats.emptied())
            for worker in workers:
                worker.cancel()
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._thread.shutdown(wait=False, cancel_futures=True)

    def leave(self) -> None:
        """From now on it is not ready."""
        self.draining = True

    @property
    def state(self) -> str:
        """``"ready"``, or why it is not."""
        if self.draining:
            return "draining"
        if not self.running:
            return "starting"
        stuck = any(queue.stuck(self.settings.limit_s) for queue in (self.checks, self.heats))
        return "stuck" if stuck else "ready"

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Room for the bytes of a request until it is answered.

        What a request announces takes no room, or a few that send nothing could shut out all others.

        Yields:
            Takes room for so many bytes that have arrived, or raises `Full`.

        Raises:
            Full: The queue has no room.
        """
        self.checks.check_room(1)
        own = 0

        def arrived(count: int) -> None:
            nonlocal own
            if self._held + count > self.settings.most_held:
                raise Full
            own += count
            self._held += count

        try:
            yield arrived
        finally:
            self._held -= own

    async def decoded(self, content: bytes) -> np.ndarray:
        """An image file as uint8 [3, H, W]; errors as in `read_image`."""
        most = self.settings

        def read() -> np.ndarray:
            return read_image(content, self.guard.size, most_bytes=most.most_bytes, most_pixels=most.most_pixels)

        return await asyncio.get_running_loop().run_in_executor(self._decoders, read)

    def remember(self, image: np.ndarray) -> str:
        """Keep an image for its heat map; a name that cannot be guessed."""
        name = secrets.token_hex(16)
        self._recent[name] = image
        while len(self._recent) > self.settings.recent:
            self._recent.popitem(last=False)
        return name

    async def heat_png(self, name: str) -> bytes | None:
        """The heat map of a recent image as a PNG file; None where the guard failed.

        Raises:
            KeyError: There is no such image, or no longer.
            Full: Too many wait.
        """
        image = self._recent[name]
        self._recent.move_to_end(name)
        heat = (await self.heats.ask([image]))[0]
        return None if heat is None else await asyncio.to_thread(drawn, heat)

    def _checked(self, pixels: np.ndarray) -> list[Answer | None]:
        """An answer per image; None where there is none to give."""
        try:
            return answers_of(self.guard.check(pixels), len(pixels))
        except Exception as error:  # whatever it is must neither reach the client nor stop the service
            if len(pixels) > 1:  # one image must not spoil the answers to others
                return [answer for image in pixels for answer in self._checked(image[None])]
            self.metrics.failures.inc()
            LOG.error("the guard failed to check an image", exc_info=error)
        if self.settings.fail == "closed":
            return [None]
        try:
            return answers_of(self.guard.predict(pixels), len(pixels))
        except Exception as error:
            LOG.error("the guard failed to answer an image", exc_info=error)
            return [None]

    def _heated(self, pixels: np.ndarray) -> list[np.ndarray | None]:
        try:
            return list(self.guard.heat(pixels))
        except Exception as error:
            if len(pixels) > 1:
                return [heat for image in pixels for heat in self._heated(image[None])]
            LOG.error("the guard failed to draw a heat map", exc_info=error)
            return [None]


def answers_of(told: Sequence[object], count: int) -> list[Answer | None]:
    """What a guard says, checked.

    Raises:
        BrokenContract: Not one answer per image.
        ValidationError: Attributes are missing, or numbers are not finite.
    """
    if len(told) != count:
        raise BrokenContract(f"guard: {len(told)} answers to {count} images.")
    return [Answer.model_validate(one) for one in told]


def drawn(heat: np.ndarray) -> bytes:
    """A heat map [H, W] as a PNG file in the report's colours: white is zero, red speaks for the answer."""
    return base64.b64decode(heat_uri(heat, shared_scale([heat])).partition(",")[2])
