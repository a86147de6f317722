"""Parts on a Ray cluster: two nodes, workers and whole nodes that die, and the same bytes as ever."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import cloudpickle
import pytest

from heatprint.attacks import make
from heatprint.core.errors import EngineError, InvalidInput
from heatprint.core.protocols import silent
from heatprint.core.store import Part, Store
from heatprint.study import attacking, engines
from heatprint.study.attacking import Assault, attacked
from heatprint.study.engines import Limits, Local, Task
from heatprint.study.parts import Workshop
from heatprint.testing import labelled_batch

ray = pytest.importorskip("ray", reason="needs the extra [ray]")
cluster_utils = pytest.importorskip("ray.cluster_utils")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes cannot import a module of tests


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


def computed(address, classifier, tasks):
    with closing(engines.make(address)) as engine:
        pending = [(number, lambda task=task: task) for number, task in enumerate(tasks)]
        return dict(engine.compute(classifier, pending, Limits(), lambda _: silent))


def test_an_attack_on_two_nodes_writes_the_bytes_that_one_process_writes(cluster, small, tmp_path, monkeypatch):
    monkeypatch.setitem(attacking.PART, "score", 8)
    batch = labelled_batch(small, 29, wrong=5)
    how = Assault(method=make("one-pixel", population=20, generations=3), seed=3)
    written = []
    for name, engine in (("here", Local(1)), ("there", engines.make(cluster.address))):
        store = Store(tmp_path / name)
        with store.writing(), closing(engine):
            attacked(Workshop(store=store, engine=engine), "attacks/x", small, batch, how)
        files = sorted(p for p in (tmp_path / name / "attacks").rglob("*") if p.is_file())
        written.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert len(written[0]) == 3 * 4
    assert written[0] == written[1]


def where(classifier, progress=silent) -> Part:
    """A part that takes a moment and says on which node it was computed."""
    del classifier, progress
    time.sleep(0.3)
    return Part(rows={"node": [ray.get_runtime_context().get_node_id()]})


@pytest.mark.slow
def test_both_nodes_work(cluster, small):
    parts = computed(cluster.address, small, [Task(function=where)] * 8)
    assert len({part.rows["node"][0] for part in parts.values()}) == 2


def dying(classifier, marker: str, number: int, progress=silent) -> Part:
    """A part whose worker is killed the first time it is tried."""
    del classifier, progress
    path = Path(marker)
    if number == 2 and not path.exists():
        path.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return Part(rows={"number": [number]})


def test_parts_of_a_worker_that_dies_are_computed_elsewhere(cluster, small, tmp_path):
    tasks = [Task(function=dying, arguments={"marker": str(tmp_path / "died"), "number": n}) for n in range(6)]
    parts = computed(cluster.address, small, tasks)
    assert (tmp_path / "died").exists()
    assert {n: part.rows["number"] for n, part in parts.items()} == {n: [n] for n in range(6)}


def waiting(classifier, folder: str, number: int, progress=silent) -> Part:
    """A part that says it has begun, and takes a while."""
    del classifier, progress
    (Path(folder) / f"{number}.{ray.get_runtime_context().get_node_id()}").write_text("")
    time.sleep(0.5)
    return Part(rows={"number": [number]})


@pytest.mark.slow
def test_parts_of_a_node_that_dies_are_computed_on_another(cluster, small, tmp_path):
    doomed = cluster.add_node(num_cpus=1)
    tasks = [Task(function=waiting, arguments={"folder": str(tmp_path), "number": n}) for n in range(12)]
    found, killed = {}, False
    with closing(engines.make(cluster.address)) as engine:
        pending = [(number, lambda task=task: task) for number, task in enumerate(tasks)]
        for number, part in engine.compute(small, pending, Limits(), lambda _: silent):
            found[number] = part.rows["number"]
            if not killed and any(p.name.endswith(doomed.node_id) for p in tmp_path.iterdir()):
                cluster.remove_node(doomed, allow_graceful=False)
                killed = True
    assert killed, "the third node computed a part before it died"
    assert found == {n: [n] for n in range(12)}


def failing(classifier, progress=silent) -> Part:
    """A part with a mistake in it."""
    del classifier, progress
    raise InvalidInput("the mistake")


def test_an_error_in_a_part_comes_through_as_it_is(cluster, small):
    with pytest.raises(InvalidInput, match="the mistake"):
        computed(cluster.address, small, [Task(function=failing)] * 2)


def deadly(classifier, progress=silent) -> Part:
    """A part that kills whoever computes it."""
    del classifier, progress
    os.kill(os.getpid(), signal.SIGKILL)
    return Part()


@pytest.mark.slow
def test_work_that_kills_every_worker_is_given_up_with_a_word(cluster, small):
    with pytest.raises(EngineError, match="the workers at part 0 died 4 times"):
        computed(cluster.address, small, [Task(function=deadly)])


def test_a_worker_that_fits_on_no_machine_is_refused(cluster, small):
    """Ray would wait for such a machine for ever."""
    for limits in (Limits(threads=64), Limits(gpus=1.0)):
        with closing(engines.make(cluster.address)) as engine, pytest.raises(EngineError, match="no machine of the"):
            list(engine.compute(small, [(0, lambda: Task(function=where))], limits, lambda _: silent))


def test_a_cluster_that_is_not_there_is_named(small):
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(EngineError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 .*ray start --head"):
        computed("127.0.0.1:1", small, [Task(function=where)])
    with pytest.raises(EngineError, match="is no address"):
        computed("ray://nowhere", small, [Task(function=where)])
