"""Pieces of work on a run folder, disturbed at every write: a program, so that what it forks is clean and soon begun.

It reads one order a line and answers with one. ``{"work": name, "fault": kind, "folder": path}`` asks for every write
of the work what came of a fault there, and of the same work done again; a write is whatever changes the folder: a file
opened for writing, synced, renamed, removed; a folder made. ``{"study": clock, "folder": path}`` asks what the small
study made of a run folder, ``{"chain": 1, "folder": path}`` what became of a study that was killed at every write.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import launcher
import pyarrow.dataset  # noqa: F401  what is imported late is imported here, once for all
import torch
import torch._dynamo
import works
from harness import first_difference, temporary

from heatprint.core.errors import HeatprintError
from heatprint.study import study
from heatprint.study.engines import Local

PLACE = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.truncate": 0}  # of the path in its event
FAILED, STOPPED = 20, 21  # how a process ends that an OSError or Ctrl-C ended


class Writes:
    """Notes the writes below a folder, and at some of them, by number and name, lets a fault happen."""

    def __init__(self, root: Path, fault: Fault, when: Callable[[int, str], bool]) -> None:
        self.seen: list[str] = []
        self._root, self._fault, self._when, self._happened, self._sync = f"{root}/", fault, when, False, os.fsync
        os.fsync = self._fsync  # which tells no audit hook
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[0], str) and given[2] & (os.O_WRONLY | os.O_RDWR):
            self._count("open", given[0])
        elif event in PLACE:
            self._count(event.removeprefix("os."), os.fsdecode(given[PLACE[event]]))

    def _fsync(self, descriptor: int) -> None:
        self._count("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink()), descriptor)
        self._sync(descriptor)

    def _count(self, kind: str, path: str, descriptor: int = -1) -> None:
        changes = os.path.lexists(path) != (kind == "mkdir") or kind in ("open", "rename")
        if not path.startswith(self._root) or not changes:
            return
        self.seen.append(re.sub(r"\.\d+\.tmp$", ".tmp", f"{kind} {path.removeprefix(self._root)}"))
        if self._when(len(self.seen) - 1, self.seen[-1]):
            first, self._happened = not self._happened, True
            self._fault(kind, descriptor, first)


Fault = Callable[[str, int, bool], None]
"""What happens at a write of a kind, to a file that is open; and whether it is the first that it happens to."""


def kill(kind: str, descriptor: int, first: bool) -> None:
    """Die of a signal that nobody hears."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(kind: str, descriptor: int, first: bool) -> None:
    """Die with half of what was written: what a machine without current leaves of a file that was not synced."""
    if Path(f"/proc/self/fd/{descriptor}").is_file():
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def fill(kind: str, descriptor: int, first: bool) -> None:
    """Find no room any more; removing and renaming need none."""
    if kind in ("open", "sync", "mkdir"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forbid(kind: str, descriptor: int, first: bool) -> None:
    """Find that the folder can only be read from now on."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def stop(kind: str, descriptor: int, first: bool) -> None:
    """Hear Ctrl-C, once."""
    if first:
        raise KeyboardInterrupt


FAULTS: dict[str, Fault] = {"killed": kill, "torn": tear, "full": fill, "read-only": forbid, "stopped": stop}
HAPPENS = {"torn": ("sync",), "full": ("open", "sync", "mkdir")}  # at which writes; else at all


def forked(action: Callable[[], object]) -> int:
    """How an action ends in a process of its own: 0, `FAILED`, `STOPPED`, or the negative number of a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        action()
        os._exit(0)
    except OSError:
        os._exit(FAILED)
    except KeyboardInterrupt:
        os._exit(STOPPED)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def outcomes(work: str, fault: str, folder: Path) -> Iterator[dict[str, Any]]:
    """For every write that a fault can happen at: what came of it; see `Outcome` in the tests."""
    before, act = works.WORKS[work]
    start, whole, run = folder / "start", folder / "whole", folder / "run"
    log, told = folder / "computed", folder / "writes"

    def done(root: Path, at: float = float("inf")) -> int:
        def disturbed() -> None:
            writes = Writes(root, FAULTS[fault], lambda number, name: number >= at)
            act(root, log)
            told.write_text("\n".join(writes.seen))

        return forked(disturbed)

    def fresh(root: Path) -> Path:
        for old in (root, log):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        if start.exists():
            shutil.copytree(start, root)
        return root

    assert forked(lambda: before(start, log)) == 0
    assert done(fresh(whole)) == 0
    needed, names = works.computed(log), told.read_text().splitlines()
    for at, name in enumerate(names):
        if name.partition(" ")[0] in HAPPENS.get(fault, name):
            ends = [done(fresh(run), at), done(run)]
            twice = works.computed(log) - needed
            yield {"write": name, "ends": ends, "differs": first_difference(whole, run), "twice": twice,
                   "left": temporary(run)}  # fmt: skip


def studied(folder: Path, clock: str) -> dict[str, Any]:
    """The small study of a run folder that may hold one already; with a clock that runs the wrong way, if asked."""
    told = folder.with_name("told")
    told.write_text("")

    def work() -> None:
        if clock == "backwards":
            now, since = time.time, time.monotonic()
            time.time = lambda: now() - 1e8 - 2 * (time.monotonic() - since)
        try:
            study(works.small(), folder, engine=Local(1))
        except HeatprintError as error:
            told.write_text(f"{type(error).__name__}: {error}")

    return {"end": forked(work), "told": told.read_text()}


def chained(folder: Path) -> dict[str, Any]:
    """A whole study, killed at every write once, each time a write further, and begun again; against one left alone."""
    whole, run, told, kills = folder / "whole", folder / "run", folder / "killed at", 0
    told.write_text("")

    def killed() -> None:
        before = set(told.read_text().splitlines())

        def new(number: int, name: str) -> bool:
            if name in before or name.partition(" ")[0] not in ("sync", "remove"):  # between them nothing changes
                return False
            with told.open("a") as file:
                file.write(f"{name}\n")
            return True

        Writes(run, kill, new)
        study(works.short(), run, engine=Local(1))

    assert forked(lambda: study(works.short(), whole, engine=Local(1))) == 0
    while (end := forked(killed)) == -signal.SIGKILL:
        kills += 1
        print(f"{kills} kills, the last at: {told.read_text().splitlines()[-1]}", file=sys.stderr, flush=True)
    return {"end": end, "kills": kills, "differs": first_difference(whole, run), "left": temporary(run)}


def main() -> None:
    """Answer orders until there are none."""
    torch.set_num_threads(1)  # a thread does not live on in a fork
    works.warm()
    launcher.small_parts()
    gc.freeze()  # a collection in a fork would copy all that it looks at
    for line in sys.stdin:
        order = json.loads(line)
        folder = Path(order["folder"])
        if "chain" in order:
            found: Any = chained(folder)
        elif "study" in order:
            found = studied(folder, order["study"])
        else:
            found = list(outcomes(order["work"], order["fault"], folder))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
