"""A study that is killed at any moment, again and again, ends with the bytes of one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Command, first_difference, marks, members, study, temporary

from heatprint.study.engines.local import AHEAD

KILLS = 50
SHARE = 0.6  # of an undisturbed study, within which a kill comes: so that each takes several

pytestmark = pytest.mark.slow


def noted(begun: Path) -> int:
    """How many parts were begun since the last time that somebody asked."""
    count = begun.stat().st_size if begun.exists() else 0
    begun.unlink(missing_ok=True)
    return count


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_fifty_kills_at_random_moments_change_no_byte(undisturbed, tmp_path):
    """Of the process that leads, whose workers must go with it; with one worker and with two in turn."""
    rng, begun, kills, runs = random.Random(50), tmp_path / "begun", 0, 0
    lost: dict[int, Counter[int]] = {1: Counter(), 2: Counter()}
    start = time.monotonic()
    assert study(tmp_path / "timed").end() == 0
    whole, start = time.monotonic() - start, time.monotonic()
    while kills < KILLS:
        out, ended, killed = tmp_path / f"run-{runs}", False, 0
        while not ended:
            workers, before = 1 + kills % 2, marks(out)
            work = study(out, workers=workers, begun=begun)
            ended = not work.until(after(rng.uniform(0, SHARE * whole) if kills < KILLS else float("inf")))
            if not ended:
                os.kill(work.process.pid, signal.SIGKILL)
                kills, killed = kills + 1, killed + 1
            assert work.end() == (0 if ended else -signal.SIGKILL), work.said
            again = noted(begun) - (marks(out) - before)
            assert 0 <= again <= (0 if ended else 1 if workers == 1 else AHEAD * workers)
            lost[workers][again] += not ended
        assert first_difference(undisturbed, out) is None
        assert temporary(out) == []
        shutil.rmtree(out)
        runs += 1
        print(f"run {runs}: {killed} kills, equal bytes; {kills} kills in {time.monotonic() - start:.0f} s", flush=True)
    for workers, counts in lost.items():
        print(f"{workers} workers: parts computed again per kill: {dict(sorted(counts.items()))}")


def working(command: Command) -> list[int]:
    """Its workers."""
    return [number for number, line in members(command.process.pid).items() if "--process-name" in line]


def test_killed_workers_change_no_byte(undisturbed, tmp_path):
    rng, out = random.Random(5), tmp_path / "run"
    work = study(out, workers=2)
    for there in ("attacks/clear/fgsm/test", "attacks/clear/pgd", "attacks/fgsm_immune/one-pixel", "pairs/fgsm"):
        assert work.until(lambda there=there: (out / there / "_done").exists() or (out / there / "test/_done").exists())
        assert work.until(lambda: bool(working(work)))
        os.kill(rng.choice(working(work)), signal.SIGKILL)
    assert work.end() == 0, work.said
    assert first_difference(undisturbed, out) is None


def test_a_whole_study_killed_at_every_write_changes_no_byte(ask):
    found = ask(chain=1)
    print(found)
    assert found == {"end": 0, "kills": found["kills"], "differs": None, "left": []}
    assert found["kills"] > 100
