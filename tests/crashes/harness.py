"""What the crash tests share: how a study is begun and disturbed, and whether run folders are equal byte by byte."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
RECIPE, LAUNCHER = HERE / "small.toml", (str(HERE / "launcher.py"),)
UNCOMPARED = ("events.jsonl", ".lock", ".verified.json")
"""The journal, the only file with times; the lock; when the pixels were last read over."""
PATIENCE = 900.0  # seconds, for what must happen


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run folder that must be the same whatever happened on the way."""
    found = sorted(path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.read_bytes() for path in found if path.name not in UNCOMPARED}


def first_difference(expected: Path, found: Path) -> str | None:
    """The first file by which two run folders differ, and how; None where they are equal byte for byte."""
    left, right = contents(expected), contents(found)
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            return f"{name} is missing"
        if name not in left:
            return f"{name} should not be there"
        if left[name] != right[name]:
            at = next((i for i, (a, b) in enumerate(zip(left[name], right[name], strict=False)) if a != b), "the end")
            return f"{name} differs at {at}: {len(left[name])} bytes expected, {len(right[name])} found"
    return None


def temporary(run: Path) -> list[str]:
    """Files that somebody began to write and did not name yet."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(".*.tmp"))


def marks(run: Path) -> int:
    """How many parts that engines compute are marked done."""
    found = [path.relative_to(run).parts for path in run.rglob("_done/part-*.json")]
    return sum(parts[0] in ("attacks", "pairs", "signatures") or "maps" in parts for parts in found)


class Command:
    """A command at work, alone in its session as under a terminal of its own; a thread in every process computes.

    Args:
        words: Of the command, after ``heatprint``.
        log: Where what it says goes.
        begun: Where every part that is begun is noted; see `launcher`.
        program: What Python runs.
    """

    def __init__(self, *words: object, log: Path, begun: Path | None = None, program: Sequence[str] = LAUNCHER) -> None:
        self.log = log
        noted = {"HEATPRINT_BEGUN": str(begun)} if begun else {}
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *program, *map(str, words)], stdout=sink, stderr=subprocess.STDOUT,
                start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | noted,
            )  # fmt: skip

    @property
    def said(self) -> str:
        """What it said so far."""
        return self.log.read_text()

    def until(self, happened: Callable[[], bool]) -> bool:
        """Wait until something happened; whether it did while the command ran."""
        end = time.monotonic() + PATIENCE
        while not happened() and self.process.poll() is None:
            assert time.monotonic() < end, self.said
            time.sleep(0.005)
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to all its processes, as a terminal does for Ctrl-C."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Wait for its end; its status, when nobody of its session is left."""
        status = self.process.wait(PATIENCE)
        end = time.monotonic() + 20
        while left := members(self.process.pid):
            assert time.monotonic() < end, f"left behind: {left}"
            time.sleep(0.02)
        return status


def study(
    out: Path,
    *,
    workers: int = 1,
    log: Path | None = None,
    begun: Path | None = None,
    program: Sequence[str] = LAUNCHER,
) -> Command:
    """The study of the small recipe, at work."""
    words = ("study", "--recipe", RECIPE, "--out", out, "--workers", workers)
    return Command(*words, log=log or out.with_name(f"{out.name}.log"), begun=begun, program=program)


def members(session: int) -> dict[int, str]:
    """Living processes of a session, by number, with their commands."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(rest[2]) == session and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # gone meanwhile
            continue
    return found
