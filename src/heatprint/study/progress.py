"""Progress as a person wants it: a bar with rate, successes and time left; plain lines where there is no terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from heatprint.core.protocols import Progress, silent
from heatprint.core.store import naming

EVERY = 15.0  # seconds between plain lines
LOGGED_EVERY = 0.5  # and between logged ones of a step


class Watch(Protocol):
    """Shows the steps of a study."""

    def step(self, title: str) -> AbstractContextManager[Progress]:
        """A context that shows one step and gives its `Progress`."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Do nothing."""
        del title
        yield silent


SILENT = Silent()


class Logged:
    """Writes each step and its progress to a file as one JSON object a line, and shows it elsewhere too.

    A line holds ``time`` (seconds since 1970), ``step``, ``done``, ``total``, and for attacks the fields of
    `heatprint.attacks.ledger.Tally`. Lines of earlier runs of the same folder stay.
    """

    def __init__(self, watch: Watch, path: Path) -> None:
        self._watch = watch
        self._path = path
        with suppress(FileNotFoundError):
            whole = path.read_bytes().rfind(b"\n") + 1
            if whole < path.stat().st_size:  # a line that a full disk, or a kill, cut short
                os.truncate(path, whole)

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show one step, and log its begin, its progress and its end."""
        with self._watch.step(title) as shown:

            def log(**fields: Any) -> None:
                with naming(self._path), self._path.open("a", encoding="utf-8") as sink:
                    sink.write(json.dumps({"time": round(time.time(), 3), "step": title, **fields}) + "\n")

            last = -float("inf")

            def progress(done: int, total: int, note: object = "") -> None:
                nonlocal last
                shown(done, total, note)
                if done < total and time.monotonic() - last < LOGGED_EVERY:
                    return
                last = time.monotonic()
                told = asdict(note) if is_dataclass(note) and not isinstance(note, type) else {}
                log(done=done, total=total, **told)

            log(event="begin")
            yield progress
            log(event="end")


class Shown:
    """Shows steps on a console: live bars on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show one step until it ends, then one line that stays."""
        start = time.monotonic()
        if self._console.is_terminal:
            with self._bar(title) as progress:
                yield progress
        else:
            self._console.print(f"{title} ...", highlight=False, markup=False)
            yield self._lines(title)
        self._console.print(f"[green]done[/] {escape(title)} ({time.monotonic() - start:.0f} s)", highlight=False)

    @contextmanager
    def _bar(self, title: str) -> Iterator[Progress]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=None, note="", rate="")

            def progress(done: int, total: int, note: object = "") -> None:
                speed = bars.tasks[0].speed
                rate = f"{speed:.1f}/s" if speed else ""
                bars.update(task, completed=done, total=total, note=str(note), rate=rate)

            yield progress

    def _lines(self, title: str) -> Progress:
        start = last = time.monotonic()

        def progress(done: int, total: int, note: object = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= EVERY and done:
                last = now
                left = (now - start) / done * (total - done)
                told = f", {note}" if str(note) else ""
                self._console.print(
                    f"  {title}: {done}/{total}{told}, {left:.0f} s left", highlight=False, markup=False
                )

        return progress
