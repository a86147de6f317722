"""Run folders on object stores: the same bytes there as here, whoever dies meanwhile, and one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from heatprint.cli import app
from heatprint.core.errors import HeatprintError, InvalidInput, MissingExtra, StoreError
from heatprint.core.inventory import STUDY, inventoried
from heatprint.core.store import Part, Store, remove, write_json
from heatprint.doctor import examine
from heatprint.models import load, save
from heatprint.study.images import read_images
from heatprint.study.remote import fetched, worked_in
from heatprint.study.remote.lease import NAME, Lease
from heatprint.study.remote.mirror import JOURNAL, is_sent
from heatprint.study.remote.objects import Objects

CALM = {"every": 0.1, "dead": 60.0, "settle": 0.01}
QUICK = {"every": 0.1, "dead": 2.0, "settle": 0.01}
STEP = "attacks/clear/fgsm/test"


class Died(BaseException):
    """This process is gone: nothing more is sent."""


@pytest.fixture(params=["memory", "file"])
def address(request, tmp_path) -> str:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://bucket/run" if request.param == "memory" else f"file://{tmp_path}/bucket/run"


def there(address: str) -> dict[str, bytes]:
    """What stands on the store, without what belongs to one machine or one moment."""
    objects = Objects(address)
    names = [name for name in objects.names() if is_sent(name) and name != JOURNAL]
    return {name: objects.read(name) or b"" for name in sorted(names)}


def here(root: Path) -> dict[str, bytes]:
    names = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if is_sent(name) and name != JOURNAL}


def steps(root: Path, compute: Callable[[int], None] = lambda _: None) -> None:
    """A file of each kind, as a study writes them; `compute` is told of each part that is computed."""
    store = Store(root)
    with store.writing(), inventoried(root, STUDY):
        write_json(root / "recipe.json", {"seed": 0})
        remove(root / "metrics.json")
        read_images(store, "menagerie", size=32, train=8, test=8)
        if not (root / "models/clear/card.json").exists():
            (root / "models/clear").mkdir(parents=True, exist_ok=True)
            save(load("vgg-slim", classes=("cats", "dogs"), size=32), root / "models" / "clear")
        for index in range(4):

            def made(index: int = index) -> Part:
                compute(index)
                return Part(rows={"id": [str(index)]}, arrays={"v": np.full(50, index, np.float32)})

            store.memo(STEP, index, "k", made)
            with (root / JOURNAL).open("a") as journal:
                journal.write("{}\n")
        write_json(root / "run.json", {"data": {}})
        write_json(root / "metrics.json", {"table1": []})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    steps(root)
    return here(root)


def worked(address: str, root: Path | None, lease: dict[str, float] = CALM, objects: Objects | None = None):
    objects = objects or Objects(address, pauses=(0.01, 0.01))
    return worked_in(address, root, objects=objects, lease=Lease(objects, **lease))


def test_the_store_has_the_bytes_of_the_folder(address, tmp_path, undisturbed):
    with worked(address, tmp_path / "work") as root:
        steps(root)
    assert there(address) == here(tmp_path / "work") == undisturbed
    assert Objects(address).read(JOURNAL) == b"{}\n" * 4
    assert NAME not in Objects(address).names(), "the lease has ended"


def test_what_is_taken_away_goes_from_the_store_too(address, tmp_path):
    with worked(address, tmp_path / "work") as root:
        steps(root)
        remove(root / "metrics.json")
        assert "metrics.json" not in there(address), "at once, since a run is finished by it"
        Store(root).trim(STEP, 2)
    assert there(address) == here(tmp_path / "work")
    assert not [name for name in there(address) if "part-00003" in name]


class Dying(Objects):
    """Dies after so many files; and sees that no reader of the store is ever misled."""

    def __init__(self, address: str, after: int) -> None:
        super().__init__(address, pauses=())
        self.left, self.lock = after, threading.Lock()

    def send(self, file: Path, name: str) -> None:
        with self.lock:
            self.left -= 1
            if self.left < 0:
                raise Died
            super().send(file, name)
            check_marks(self.address)


def check_marks(address: str) -> None:
    """Each mark's files are there; where metrics.json is, everything is."""
    names = Objects(address).names()
    for name in names:
        if "/_done/part-" in name:
            files = json.loads(Objects(address).read(name) or b"")["files"]
            assert all(name.replace("_done/", "").rpartition("/")[0] + "/" + one in names for one in files), name
        elif name.endswith("card.json"):
            assert name.replace("card.json", "model.safetensors") in names
        elif name == "metrics.json":
            assert {"run.json", "models/clear/card.json", f"{STEP}/_done/part-00003.json"} <= names.keys()


@pytest.mark.parametrize("after", [0, 1, 3, 6, 8, 9, 13, 18, 21, 22])
def test_another_machine_goes_on_where_one_died(tmp_path, undisturbed, after):
    address, computed = f"memory://bucket/run{after}", []
    with pytest.raises(Died), worked(address, tmp_path / "one", objects=Dying(address, after)) as root:
        steps(root)
    stored = [name for name in there(address) if "/_done/part-" in name]
    with worked(address, tmp_path / "two") as root:
        steps(root, computed.append)
    assert there(address) == here(tmp_path / "two") == undisturbed
    assert computed == list(range(len(stored), 4)), "nothing that the store had is computed again"


def test_the_same_machine_sends_what_it_had_not_sent(tmp_path, undisturbed):
    address, computed = "memory://bucket/again", []
    with pytest.raises(Died), worked(address, tmp_path / "one", objects=Dying(address, 9)) as root:
        steps(root)
    had = len(list((tmp_path / "one" / STEP / "_done").glob("*")))
    with worked(address, tmp_path / "one") as root:
        steps(root, computed.append)
    assert there(address) == undisturbed
    assert computed == list(range(had, 4))


def test_a_folder_is_brought_up_to_date_and_no_more(address, tmp_path, undisturbed):
    with worked(address, tmp_path / "one") as root:
        steps(root)
    with worked(address, tmp_path / "two"):
        pass
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*") if path.suffix != ".lock"}
    with worked(address, tmp_path / "two"):
        pass
    assert {path: path.stat().st_mtime_ns for path in times if path.is_file()} == {
        path: when for path, when in times.items() if path.is_file()
    }
    damaged = tmp_path / "two" / STEP / "part-00001.parquet"
    damaged.write_bytes(b"cut")
    (tmp_path / "two" / STEP / "_done/part-00002.json").write_text("{}")
    with worked(address, tmp_path / "two"):
        pass
    assert here(tmp_path / "two") == undisturbed


def test_objects_cannot_be_fetched_to_anywhere_else(tmp_path):
    objects = Objects("memory://bucket/strange")
    for name in ("../evil", "models/../../evil", ".lock", "models/.x.tmp", "a//b"):
        MemoryFileSystem.store[f"/bucket/strange/{name}"] = MemoryFileSystem(skip_instance_cache=True).open("x", "wb")
    objects.write("schema.json", b'{"schema": 1}')
    assert len(objects.names()) == 6
    fetched(objects.address, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "run", "schema.json"]


def test_a_folder_of_another_study_is_refused_and_one_in_the_cache_gives_way(address, tmp_path, monkeypatch):
    with worked(address, tmp_path / "one") as root:
        steps(root)
    (tmp_path / "two").mkdir()
    write_json(tmp_path / "two/recipe.json", {"seed": 1})
    with pytest.raises(StoreError, match="holds another study than"), worked(address, tmp_path / "two"):
        pass
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with worked(address, None) as root:
        assert root.is_relative_to(tmp_path / "cache/heatprint/runs")
    write_json(root / "recipe.json", {"seed": 1})
    (root / "old").mkdir()
    with worked(address, None):
        assert here(root) == there(address)
        assert not (root / "old").exists()


def test_a_second_study_is_refused_while_the_first_lives(address, tmp_path):
    with worked(address, tmp_path / "one", QUICK):
        time.sleep(1.5 * QUICK["dead"])
        with (
            pytest.raises(StoreError, match=r"another study is writing to .*process \d+\)"),
            worked(address, tmp_path / "two", QUICK),
        ):
            pass
    with worked(address, tmp_path / "two"):
        pass


def left(address: str, age: float) -> Objects:
    objects = Objects(address)
    objects.write(NAME, json.dumps({"owner": "x", "host": "far", "process": 7, "time": time.time() - age}).encode())
    return objects


def test_the_lease_of_a_dead_machine_ends(address, tmp_path):
    left(address, age=0)
    with (
        pytest.raises(StoreError, match=r"\(far, process 7\).*write this again in \d+ s"),
        worked(address, tmp_path / "a"),
    ):
        pass
    left(address, age=100)
    with worked(address, tmp_path / "a"):
        pass


def test_a_living_study_whose_clock_is_wrong_keeps_its_lease(address, tmp_path):
    over = threading.Event()

    def renew():
        for age in range(1000, 3000):
            left(address, age)
            if over.wait(0.02):
                return

    left(address, age=999)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(StoreError, match="Its clock, or the one here, is wrong"), worked(address, tmp_path / "a"):
            pass
    finally:
        over.set()
        thread.join()


def disturbed(root: Path, seconds: float, disturb: Callable[[], object]) -> None:
    """A study during which something happens, before it finishes."""
    steps(root)
    disturb()
    time.sleep(seconds)
    write_json(root / "metrics.json", {"table1": ["mine"]})


def test_a_study_that_lost_its_lease_sends_nothing_more(address, tmp_path, undisturbed):
    with pytest.raises(StoreError, match="another study has taken it"), worked(address, tmp_path / "one") as root:
        disturbed(root, 10 * CALM["every"], lambda: left(address, age=0))
    assert there(address) == undisturbed
    assert json.loads(Objects(address).read(NAME) or b"")["owner"] == "x", "whose it is now"


def test_a_study_that_could_not_renew_its_lease_stops(address, tmp_path, monkeypatch):
    def fails(_lease):
        raise StoreError("no network")

    silent = pytest.raises(StoreError, match="could not say for 2 s that it is alive")
    with silent, worked(address, tmp_path / "one", QUICK) as root, monkeypatch.context() as patch:
        disturbed(root, 1.5 * QUICK["dead"], lambda: patch.setattr(Lease, "_read", fails))


class Faulty(MemoryFileSystem):
    """Every third file that is written, and every fourth that is read, fails."""

    protocol = "faulty"
    count: ClassVar = {"put": 0, "cat": 0}
    error: ClassVar[Exception] = OSError("503 Slow Down")

    @classmethod
    def fails(cls, what: str, every: int) -> None:
        cls.count[what] += 1
        if cls.count[what] % every == 0:
            raise cls.error

    def put_file(self, *args, **kwargs):
        self.fails("put", 3)
        super().put_file(*args, **kwargs)

    def cat_file(self, *args, **kwargs):
        self.fails("cat", 4)
        return super().cat_file(*args, **kwargs)


class Broken(MemoryFileSystem):
    """Nothing can be written."""

    protocol = "broken"

    def put_file(self, *args, **kwargs):
        raise ConnectionResetError("reset by peer")


fsspec.register_implementation("faulty", Faulty, clobber=True)
fsspec.register_implementation("broken", Broken, clobber=True)


@pytest.mark.parametrize("kind", ["OSError", "ClientError"])
def test_what_fails_now_and_then_is_tried_again(tmp_path, undisturbed, monkeypatch, kind):
    if kind == "ClientError":
        aiohttp = pytest.importorskip("aiohttp")
        monkeypatch.setattr(Faulty, "error", aiohttp.ClientError("no route"))
    address = f"faulty://bucket/{kind}"
    with worked(address, tmp_path / "one") as root:
        steps(root)
    assert there(address) == undisturbed
    with worked(address, tmp_path / "two"):
        pass
    assert here(tmp_path / "two") == undisturbed
    assert Faulty.count["put"] > 30, "24 files, and a third more tries"


def test_what_cannot_be_sent_stops_the_study_and_is_still_here(tmp_path):
    with (
        pytest.raises(
            StoreError,
            match=r"cannot write .* at broken://bucket/run \(ConnectionResetError.*the same command again goes on",
        ),
        worked("broken://bucket/run", tmp_path / "one") as root,
    ):
        steps(root)
    assert (tmp_path / "one/schema.json").exists()


def test_who_lacks_a_package_is_told_which(monkeypatch):
    with pytest.raises(InvalidInput, match="of no kind that fsspec knows"):
        Objects("nonsense://bucket/run")
    if not any(name == "s3fs" for name in sys.modules):
        monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match="python -m pip install s3fs"):
        Objects("s3://bucket/run")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match=r"heatprint\[remote\]"):
        Objects("memory://bucket/run")


def test_a_path_is_worked_in_itself(tmp_path):
    with worked_in(tmp_path / "run") as root:
        assert root == tmp_path / "run"
    with pytest.raises(InvalidInput, match="leave --work out"), worked_in(tmp_path / "run", tmp_path / "work"):
        pass


def test_a_run_is_copied_for_the_commands_that_need_a_folder(tmp_path):
    address = f"file://{tmp_path}/bucket/run"
    with worked(address, tmp_path / "one") as root:
        steps(root)
    for command in (["serve"], ["report"], ["doctor"], ["export", "--to", "csv", "--out", "x"]):
        refused = CliRunner().invoke(app, [command[0], address, *command[1:]])
        assert isinstance(refused.exception, InvalidInput)
        assert "heatprint fetch ADDRESS DIR" in str(refused.exception)
    copied = CliRunner().invoke(app, ["fetch", address, str(tmp_path / "copy")])
    assert copied.exit_code == 0
    assert here(tmp_path / "copy") == there(address)
    assert not examine(tmp_path / "copy").findings
    with pytest.raises(HeatprintError, match="there is nothing at"):
        fetched(f"file://{tmp_path}/nothing", tmp_path / "other")


STUDY_OF = "from heatprint.cli import main; main()"


@pytest.mark.slow
def test_a_study_killed_on_one_machine_is_finished_on_another(tmp_path):
    """With real processes, and a folder in place of the store."""
    plain = [sys.executable, "-c", STUDY_OF, "study", "--recipe", "tiny", "--workers", "1", "--out"]
    subprocess.run([*plain, str(tmp_path / "plain")], check=True, stdout=subprocess.DEVNULL)
    address = f"file://{tmp_path}/bucket/run"
    first = subprocess.Popen([*plain, address, "--work", str(tmp_path / "one")], stdout=subprocess.DEVNULL)
    mark = tmp_path / "bucket/run" / STEP / "_done/part-00000.json"
    while not mark.exists() and first.poll() is None:
        time.sleep(0.05)
    second = [*plain, address, "--work", str(tmp_path / "two")]
    refused = subprocess.run(second, capture_output=True, text=True, check=False)
    assert (refused.returncode, "another study is writing to" in refused.stderr) == (2, True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "bucket/run/metrics.json").exists()
    left(address, age=1000)  # 90 s later
    finished = subprocess.run(second, capture_output=True, text=True, check=True)
    assert f"report: {address}/report.html" in finished.stdout
    ours = {name: content for name, content in here(tmp_path / "plain").items()}
    assert there(address) == here(tmp_path / "two") == ours
