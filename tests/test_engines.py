"""Who computes a part must not show in the result: any engine, any number of workers, any order, any death."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import cloudpickle
import pytest
import torch

from heatprint.attacks import attack, make
from heatprint.core.errors import EngineError, InvalidInput, MissingExtra, UnknownName
from heatprint.core.limits import images_at_a_time
from heatprint.core.protocols import silent
from heatprint.core.store import Part, Store
from heatprint.models.footprint import fitting, footprint
from heatprint.models.predict import BATCH, batch_size
from heatprint.study import attacking, engines
from heatprint.study.attacking import Assault, attacked
from heatprint.study.engines import Limits, Local, Task
from heatprint.study.engines.task import run
from heatprint.study.parts import Piece, Workshop, rows_of
from heatprint.testing import labelled_batch

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes cannot import a module of tests
HOW = Assault(method=make("one-pixel", population=20, generations=3), seed=3)


@pytest.fixture
def eight(monkeypatch):
    """Parts of eight images."""
    monkeypatch.setitem(attacking.PART, "score", 8)


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


def made(root: Path, classifier, batch, engine, progress=silent) -> dict[str, bytes]:
    """Every file of an attack computed by an engine."""
    store = Store(root)
    with store.writing(), closing(engine):
        attacked(Workshop(store=store, engine=engine), "attacks/x", classifier, batch, HOW, progress)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted((root / "attacks").rglob("*")) if p.is_file()}


def test_any_number_of_workers_and_any_order_write_the_same_bytes(small, tmp_path, eight, caplog):
    batch = labelled_batch(small, 29, wrong=5)
    alone = made(tmp_path / "1", small, batch, Local(1))
    assert len(alone) == 3 * 4, "rows, arrays and mark of four parts"
    assert made(tmp_path / "mixed", small, batch, Shuffled(Local(1))) == alone
    assert made(tmp_path / "2", small, batch, Shuffled(Local(2))) == alone
    assert "computing in this one" not in caplog.text


def test_parts_say_what_the_whole_says(small, tmp_path, eight):
    """The images of all parts together are those of one call of the door; only how logits round may differ."""
    batch = labelled_batch(small, 29, wrong=5)
    store = Store(tmp_path)
    with store.writing():
        whole = attacked(Workshop(store=store, engine=Local(1)), "x", small, batch, HOW)
    once = attack(small, batch, HOW.method, seed=HOW.seed)
    assert torch.equal(whole.adversarial.pixels, once.adversarial.pixels)
    assert torch.equal(whole.success, once.success)
    assert torch.equal(whole.forwards, once.forwards)
    torch.testing.assert_close(whole.logits, once.logits)


def test_what_is_there_is_not_computed_again(small, tmp_path, eight):
    batch = labelled_batch(small, 29, wrong=5)
    files = made(tmp_path, small, batch, Local(1))
    torn = tmp_path / "attacks/x/part-00002.parquet"
    content = torn.read_bytes()
    torn.write_bytes(content[:-9])
    (tmp_path / "attacks/x/_done/part-00001.json").unlink()
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("part-*")}
    told = []
    assert made(tmp_path, small, batch, Local(1), lambda *v: told.append(v)) == files
    again = {p.name.split(".")[0] for p in tmp_path.rglob("part-*") if times.get(p) != p.stat().st_mtime_ns}
    assert again == {"part-00001", "part-00002"}
    assert told[0][0] >= 21, "the images of the parts that are there count as done"
    assert told[-1][:2] == (29, 29)


def test_progress_counts_over_all_parts(small, tmp_path, eight):
    batch = labelled_batch(small, 29, wrong=5)
    for workers in (1, 2):
        told = []
        made(tmp_path / str(workers), small, batch, Local(workers), lambda *v, told=told: told.append(v))
        counts = [done for done, _, _ in told]
        assert counts == sorted(counts)
        assert {total for _, total, _ in told} == {29}
        tally = [note for _, _, note in told if not isinstance(note, str)][-1]
        spent = [Store(tmp_path / str(workers)).read("attacks/x", n).rows["forwards"] for n in range(4)]
        assert (tally.active, tally.attempted) == (0, 24)
        assert tally.forwards == sum(map(sum, spent)) > 0


def dying(classifier, marker: str, number: int, progress=silent) -> Part:
    """A part whose worker is killed the first time it is tried."""
    del classifier, progress
    path = Path(marker)
    if number == 2 and not path.exists():
        path.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return Part(rows={"number": [number]})


def deadly(classifier, progress=silent) -> Part:
    """A part that kills whoever computes it."""
    del classifier, progress
    os.kill(os.getpid(), signal.SIGKILL)
    return Part()


def computed(engine, classifier, tasks):
    with closing(engine):
        pending = [(number, lambda task=task: task) for number, task in enumerate(tasks)]
        return dict(engine.compute(classifier, pending, Limits(), lambda _: silent))


def test_parts_of_a_worker_that_dies_are_computed_again(small, tmp_path):
    tasks = [Task(function=dying, arguments={"marker": str(tmp_path / "died"), "number": n}) for n in range(6)]
    parts = computed(Local(2), small, tasks)
    assert (tmp_path / "died").exists()
    assert {n: part.rows["number"] for n, part in parts.items()} == {n: [n] for n in range(6)}


def test_work_that_kills_every_worker_is_given_up_with_a_word(small):
    with pytest.raises(EngineError, match=r"workers died 3 times at parts 0, 1.*fewer --workers"):
        computed(Local(2), small, [Task(function=deadly)] * 2)


def hungry(classifier, taken: str, progress=silent) -> Part:
    """A part for which more than ten images at a time are too many."""
    del progress
    size = batch_size(classifier)
    with Path(taken).open("a") as log:
        log.write(f"{size}\n")
    if size > 10:
        raise MemoryError
    return Part(rows={"size": [size]})


def test_where_memory_runs_out_fewer_images_go_at_once(small, tmp_path):
    log = tmp_path / "log"
    part = run(Task(function=hungry, arguments={"taken": str(log)}), small, Limits(images=BATCH))
    assert part.rows["size"] == [8]
    assert log.read_text().split() == ["64", "32", "16", "8"]
    assert images_at_a_time(64) == 64, "the limit ends with the part"


def failing(classifier, progress=silent) -> Part:
    """A part that can never fit."""
    del classifier, progress
    raise MemoryError("no")


def test_what_does_not_fit_one_at_a_time_is_an_error(small):
    with pytest.raises(MemoryError, match="no"):
        run(Task(function=failing), small, Limits(images=4))


def mistaken(classifier, progress=silent) -> Part:
    """A part that needs what is not installed."""
    del classifier, progress
    raise MissingExtra("art", "bench", "this attack")


def test_an_error_in_a_part_comes_through_as_it_is(small):
    for workers in (1, 2):
        with pytest.raises(MissingExtra, match=r"this attack needs the package 'art'.*heatprint\[bench\]"):
            computed(Local(workers), small, [Task(function=mistaken)] * 2)


@pytest.mark.parametrize("error", [MissingExtra("art", "bench", "this"), UnknownName("the name", "a", ["b"])])
def test_errors_travel(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def threaded(classifier, progress=silent) -> Part:
    """A part that says how many threads it has."""
    del classifier, progress
    return Part(rows={"threads": [torch.get_num_threads()]})


@pytest.mark.parametrize("workers", [1, 2])
def test_every_part_has_as_many_threads_as_the_recipe_says(small, workers):
    before = torch.get_num_threads()
    engine = Local(workers)
    with closing(engine):
        pending = [(n, lambda: Task(function=threaded)) for n in range(2)]
        parts = dict(engine.compute(small, pending, Limits(threads=3), lambda _: silent))
    assert [part.rows["threads"] for part in parts.values()] == [[3], [3]]
    assert torch.get_num_threads() == before


def test_a_bound_on_memory_decides_how_many_images_go_at_once(small):
    one = footprint(small)
    assert one >= 4 * 3 * 4, "at least what the first layer returns"
    assert fitting(small, f"{3 * one * 5} ") == 5
    assert fitting(small, "1 KB") == 1
    assert fitting(small, "auto") == BATCH
    with pytest.raises(InvalidInput, match="'2 GiB'"):
        fitting(small, "much")


def test_no_more_parts_are_in_memory_than_are_worked_on(small):
    made_so_far, finished = set(), set()

    def make_task(number):
        made_so_far.add(number)
        assert len(made_so_far) - len(finished) <= 4
        return Task(function=threaded)

    engine = Local(2)
    with closing(engine):
        pending = [(n, lambda n=n: make_task(n)) for n in range(20)]
        for number, _ in engine.compute(small, pending, Limits(), lambda _: silent):
            finished.add(number)
    assert finished == set(range(20))


def test_rows_are_cut_without_gaps():
    assert [rows.tolist() for rows in rows_of(5, 2)] == [[0, 1], [2, 3], [4]]
    assert rows_of(0, 2) == []


def test_engines_are_made_by_name():
    assert isinstance(engines.make(), Local)
    with pytest.raises(InvalidInput, match="Write 'local', 'ray'"):
        engines.make("spark")
    with pytest.raises(InvalidInput, match="1 or more"):
        engines.make(workers=0)


def test_parts_of_an_earlier_larger_step_are_removed(small, tmp_path):
    store = Store(tmp_path)
    pieces = [Piece(key=n, images=1, task=lambda: Task(function=threaded)) for n in range(4)]
    with store.writing():
        shop = Workshop(store=store, engine=Local(1))
        assert len(list(shop.parts("s", small, pieces))) == 4
        assert len(list(shop.parts("s", small, pieces[:2]))) == 2
    assert sorted(p.stem for p in (tmp_path / "s/_done").iterdir()) == ["part-00000", "part-00001"]


def test_what_cannot_travel_is_computed_here_and_said(small, caplog):
    """A method that holds a lock, say, cannot be sent to another process."""
    lock = threading.Lock()
    tasks = [Task(function=locked, arguments={"lock": lock})] * 2
    with caplog.at_level("WARNING", logger="heatprint"):
        parts = computed(Local(2), small, tasks)
    assert "computing in this one" in caplog.text
    assert [part.rows["pid"] for part in parts.values()] == [[os.getpid()]] * 2


def locked(classifier, lock, progress=silent) -> Part:
    """A part that says who computes it."""
    del classifier, lock, progress
    return Part(rows={"pid": [os.getpid()]})


def test_no_images_are_no_attack(small, tmp_path):
    with pytest.raises(InvalidInput, match="there are no images"):
        made(tmp_path, small, labelled_batch(small, 4).take([]), Local(1))


def test_what_umap_starts_does_not_change_the_threads_that_sums_depend_on():
    """In a process of its own, since Numba starts once in each."""
    code = """
import numpy, torch, umap
from heatprint.core.limits import share_threads
torch.set_num_threads(1)
share_threads()
umap.UMAP(n_neighbors=3, n_epochs=2, init="random", random_state=0, n_jobs=1).fit(numpy.random.rand(20, 5))
print(torch.get_num_threads())
"""
    environment = os.environ | {"NUMBA_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split()[-1] == "1"
