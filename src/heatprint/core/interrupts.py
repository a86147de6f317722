"""Ctrl-C at the command line: the first asks the work to end, and the next ends the process where it stands.

What is on disk is whole at any moment, so that to end at once costs no more than a kill. While modules are imported it
is the only way to end well: what Ctrl-C raises there, libraries turn into errors of their own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 130  # of a command that Ctrl-C ended: 128 + SIGINT
STOPPED = "Stopped."
AGAIN = 0.5  # seconds, below which a second signal is the first once more, e.g. passed on by whoever started us
SHOW_CURSOR = "\x1b[?25h"  # which a progress bar hides

Handler = Callable[[int, FrameType | None], None]


def ends(message: str = STOPPED) -> Handler:
    """A handler of SIGINT that ends the process, with one line or none."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        cursor = SHOW_CURSOR if sys.stderr and sys.stderr.isatty() else ""
        os.write(2, (cursor + (f"\n{message}\n" if message else "")).encode())
        os._exit(STATUS)

    return end


class Stops:
    """A handler of SIGINT that raises KeyboardInterrupt, and when it is heard again ends the process.

    Attributes:
        heard: When it was first heard, in seconds of a clock that nobody sets; None before.
    """

    def __init__(self, message: str = STOPPED) -> None:
        self.heard: float | None = None
        self._end = ends(message)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal."""
        now = time.monotonic()
        if self.heard is None:
            self.heard = now
            raise KeyboardInterrupt
        if now - self.heard > AGAIN:
            self._end(number, frame)


@contextmanager
def on_ctrl_c(handler: Handler) -> Iterator[None]:
    """Let a handler hear Ctrl-C, inside."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Let Ctrl-C end what is inside, and after it the process, with one line.

    Raises:
        SystemExit: With `STATUS`, after Ctrl-C.
    """
    stops = Stops(message)
    try:
        with on_ctrl_c(stops):
            yield
    except (KeyboardInterrupt, Exception) as error:  # what an import makes of it, too
        if stops.heard is None and not isinstance(error, KeyboardInterrupt):
            raise
        print(f"\n{message}", flush=True)
        raise SystemExit(STATUS) from None
