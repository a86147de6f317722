"""A whole study on every engine: the numbers do not show who computed them, in which order, or who died meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from pathlib import Path

import pytest

from heatprint.study import attacking, engines, explaining, load_recipe, study
from heatprint.study.engines import Local

pytestmark = pytest.mark.slow


class Shuffled:
    """An engine that takes the parts in an order of its own."""

    def __init__(self, inner):
        self.inner = inner

    def compute(self, classifier, pending, limits, within):
        mixed = list(pending)
        random.Random(7).shuffle(mixed)
        yield from self.inner.compute(classifier, mixed, limits, within)

    def close(self):
        self.inner.close()


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """Parts of a few images, so that every step has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacking, "PART", dict.fromkeys(attacking.PART, 5))
        patch.setattr(explaining, "PART", 5)
        patch.setattr(explaining, "PAIRS", 5)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    study(load_recipe("tiny"), out, engine=Local(1))
    assert len(list((out / "attacks/clear/fgsm/test/_done").iterdir())) == 7
    return out


def files(out: Path) -> dict[str, bytes]:
    """All of a run but its journal, its lock and the times in it."""
    left_out = {"events.jsonl", ".lock", ".verified.json"}
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*"))
            if p.is_file() and p.name not in left_out}  # fmt: skip


def begun(alone: Path, out: Path) -> Path:
    """A run folder with the images and models of another, which one process reads and trains whatever the engine."""
    for name in ("images", "models"):
        shutil.copytree(alone / name, out / name)
    for name in ("schema.json", "recipe.json"):
        shutil.copy(alone / name, out / name)
    return out


@pytest.mark.parametrize("workers", [2, 4])
def test_processes_beside_this_one_in_any_order(alone, tmp_path, workers):
    out = begun(alone, tmp_path / "run")
    study(load_recipe("tiny"), out, engine=Shuffled(Local(workers)))
    assert (out / "metrics.json").read_bytes() == (alone / "metrics.json").read_bytes()
    assert files(out) == files(alone)


def killed_one_by_one(name: str, out: Path, done: threading.Event, count: int) -> list[int]:
    """Kill processes of a name, one whenever some more parts are finished, until the study is done."""
    killed: list[int] = []

    def hunt():
        before = 0
        while not done.wait(0.1) and len(killed) < count:
            finished = len(list(out.rglob("_done/part-*.json")))
            worker = finished >= before + 3 and worker_of(name)
            if worker:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                before = finished

    threading.Thread(target=hunt, daemon=True).start()
    return killed


def worker_of(name: str) -> int | None:
    """A process below this one with this in its command line; Ray's are told by the session that was begun here."""
    for pid in below(os.getpid()):
        try:
            told = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name in told:
            return pid
    return None


def below(pid: int) -> list[int]:
    """Processes that a process began, and theirs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found += [int(folder.name), *below(int(folder.name))]
    return found


@pytest.mark.parametrize(("engine", "name"), [("local", "loky.backend.popen_loky"), ("ray", "ray::_compute")])
def test_workers_that_are_killed_in_the_middle(alone, tmp_path, engine, name):
    if engine == "ray":
        pytest.importorskip("ray")
    out, done = begun(alone, tmp_path / "run"), threading.Event()
    killed = killed_one_by_one(name, out, done, count=3)
    try:
        study(load_recipe("tiny"), out, engine=engines.make(engine, workers=2))
    finally:
        done.set()
    assert killed
    assert files(out) == files(alone)
