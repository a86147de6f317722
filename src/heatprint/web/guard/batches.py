"""A bounded queue of images and one worker that takes them in batches."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Full(Exception):
    """No room for more; `seconds` says when to ask again."""

    def __init__(self, seconds: int = 1) -> None:
        super().__init__(f"The queue is full. Ask again in {seconds} s.")
        self.seconds = seconds


class Batches(Generic[T]):
    """Images one at a time in, batches through a function in a thread, answers out.

    Args:
        run: Answers uint8 [N, 3, H, W], one answer per image.
        pool: The thread it runs in.
        batch: Images per call, at most.
        wait_s: How long to wait for more images when none are waiting.
        most: Images that may wait.
        seen: Told the size of every batch.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Sequence[T]],
        *,
        pool: Executor,
        batch: int,
        wait_s: float,
        most: int,
        seen: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.run, self.pool, self.batch, self.wait_s, self.most, self.seen = run, pool, batch, wait_s, most, seen
        self.since: float | None = None
        self._queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future[T]]] = asyncio.Queue()
        self._pace = 0.0  # seconds per image, lately

    @property
    def depth(self) -> int:
        """Images that wait."""
        return self._queue.qsize()

    def stuck(self, limit_s: float) -> bool:
        """Whether a batch has been at work for longer than this."""
        return self.since is not None and time.monotonic() - self.since > limit_s

    def check_room(self, count: int) -> None:
        """Refuse so many more images where they would not fit.

        Raises:
            Full: They would not.
        """
        if self.depth + count > self.most:
            raise Full(max(1, math.ceil(self.depth * self._pace)))

    async def ask(self, images: Sequence[np.ndarray]) -> list[T]:
        """Answers to some images, each uint8 [3, H, W]; all are taken, or none.

        Raises:
            Full: They do not fit.
            Exception: What the function raised.
        """
        self.check_room(len(images))
        loop = asyncio.get_running_loop()
        waiting = [loop.create_future() for _ in images]
        for image, future in zip(images, waiting, strict=True):
            self._queue.put_nowait((image, future))
        return list(await asyncio.gather(*waiting))

    async def work(self) -> None:
        """Answer for ever."""
        while True:
            jobs = [await self._queue.get()]
            if self.depth < self.batch - 1:
                await asyncio.sleep(self.wait_s)
            while len(jobs) < self.batch and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
            await self._answer([job for job in jobs if not job[1].done()])
            for _ in jobs:
                self._queue.task_done()

    async def emptied(self) -> None:
        """Wait until everything that was asked is answered."""
        await self._queue.join()

    async def _answer(self, jobs: Sequence[tuple[np.ndarray, asyncio.Future[T]]]) -> None:
        if not jobs:
            return  # whoever asked has gone
        self.since = begin = time.monotonic()
        self.seen(len(jobs))
        pixels, futures = np.stack([image for image, _ in jobs]), [future for _, future in jobs]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.pool, self.run, pixels)
            for future, answer in zip(futures, found, strict=True):
                if not future.done():
                    future.set_result(answer)
        except Exception as error:  # handed to whoever asked; the worker goes on
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        finally:
            self.since = None
        own = (time.monotonic() - begin) / len(jobs)
        self._pace = own if not self._pace else 0.8 * self._pace + 0.2 * own
