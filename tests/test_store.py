"""The store: nothing torn is ever read, nothing finished is ever lost."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatprint.core.errors import StoreError
from heatprint.core.store import Part, Store, write_atomic


class Count:
    """Computes a part and counts how often."""

    def __init__(self, value=1.0):
        self.calls, self.value = 0, value

    def __call__(self):
        self.calls += 1
        return Part(
            rows={"id": ["a", "b"], "image": [{"bytes": b"x", "path": "a.png"}, {"bytes": b"y", "path": "b.png"}]},
            arrays={"v": np.full((2, 3), self.value, dtype=np.float32)},
        )


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    with store.writing():
        yield store


def test_a_part_is_computed_once_and_read_back_equal(store):
    compute = Count()
    first, again = store.memo("s/t", 3, ("k", 1), compute), store.memo("s/t", 3, ("k", 1), compute)
    assert compute.calls == 1
    assert first.rows == again.rows == compute().rows
    assert np.array_equal(first.arrays["v"], again.arrays["v"])
    table = pq.read_table(store.root / "s/t/part-00003.parquet")
    assert [field.name for field in table.schema.field("image").type] == ["bytes", "path"]


def test_another_key_computes_again(store):
    compute = Count()
    store.memo("s", 0, "one", compute)
    store.memo("s", 0, "two", compute)
    assert compute.calls == 2
    store.memo("s", 0, "two", compute)
    assert compute.calls == 2
    store.memo("s", 0, "one", compute)
    assert compute.calls == 3


@pytest.mark.parametrize("name", ["part-00000.parquet", "part-00000.safetensors"])
def test_an_altered_part_is_never_read(store, name):
    store.memo("s", 0, "k", Count())
    path = store.root / "s" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match=rf"s/{name} is damaged; run the study again"):
        store.read("s", 0)
    path.unlink()
    with pytest.raises(StoreError, match="is damaged"):
        store.read("s", 0)


def test_parts_beyond_the_last_are_removed(store):
    for index in range(4):
        store.memo("s", index, "k", Count())
    store.trim("s", 2)
    assert sorted(p.name for p in (store.root / "s").rglob("part-*")) == [
        f"part-0000{index}.{kind}" for index in (0, 1) for kind in ("json", "parquet", "safetensors")
    ]
    store.trim("nothing", 0)
    assert store.read("s", 1).rows["id"] == ["a", "b"]


@pytest.mark.parametrize("name", ["part-00000.parquet", "part-00000.safetensors", "_done/part-00000.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_a_torn_altered_or_missing_file_is_computed_again(store, name, damage):
    compute = Count()
    store.memo("s", 0, "k", compute)
    path = store.root / "s" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            {"cut": content[:middle], "empty": b"",
             "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]}[damage]
        )  # fmt: skip
    part = store.memo("s", 0, "k", compute)
    assert compute.calls == 2 or (damage == "flip" and "_done" in name)
    assert part.rows["id"] == ["a", "b"]
    assert (part.arrays["v"] == 1).all()


DIE = """
import os, sys
from pathlib import Path
import numpy as np
from heatprint.core.store import Part, Store

step, seen, real = int(sys.argv[2]), [], os.fsync

def fsync(handle):
    seen.append(handle)
    if len(seen) == step:
        os._exit(9)
    real(handle)

store = Store(Path(sys.argv[1]))
with store.writing():
    os.fsync = fsync
    store.memo("s", 0, "k", lambda: Part(rows={"id": ["a", "b"]}, arrays={"v": np.ones((2, 3), np.float32)}))
"""


@pytest.mark.parametrize("step", range(1, 7))
def test_a_process_that_dies_at_any_write_leaves_nothing_torn(tmp_path, step):
    """Rows, arrays and mark are synced twice each: the file, then the folder its name stands in."""
    root = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", DIE, str(root), str(step)], check=False).returncode == 9
    store, compute = Store(root), Count()
    with store.writing():
        assert not list(root.rglob(".*.tmp"))
        part = store.memo("s", 0, "k", compute)
    assert part.rows["id"] == ["a", "b"]
    assert compute.calls == (0 if step == 6 else 1), "the sixth is after the mark: the part counts"


def test_a_failing_computation_leaves_the_old_part(store):
    store.memo("s", 0, "k", Count())

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.memo("s", 0, "other", fail)
    assert store.read("s", 0).rows["id"] == ["a", "b"]


def test_one_writer_at_a_time(store):
    with pytest.raises(StoreError, match="another process is writing"), Store(store.root).writing():
        pass


def test_a_process_that_dies_before_its_first_stamp_leaves_a_usable_folder(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".schema.json.123.tmp").write_text("{")
    with Store(tmp_path).writing():
        assert not list(tmp_path.glob("*.tmp"))
    (tmp_path / "schema.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path)


def test_folders_of_a_killed_process_are_removed_too(tmp_path):
    run = tmp_path / "run"
    with Store(run).writing():
        torn = run / ".csv.123.tmp"
        (torn / "data").mkdir(parents=True)
        (torn / "data" / ".x.123.tmp").write_text("half")
        (run / ".outside.123.tmp").symlink_to(tmp_path)
    with Store(run).writing():
        assert not list(run.rglob(".*.tmp"))
    assert run.exists()


def test_foreign_and_newer_folders_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="was not written by heatprint"):
        Store(tmp_path / "mine")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "schema.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(StoreError, match="newer heatprint"):
        Store(tmp_path / "new")
    with pytest.raises(StoreError, match="is a file"):
        Store(tmp_path / "mine" / "thesis.tex")
    with pytest.raises(StoreError, match="is missing; run the study again"):
        Store(tmp_path / "fresh").read("s", 0)


@given(st.binary(max_size=2000))
@settings(max_examples=settings.default.max_examples // 2)
def test_atomic_writes_round_trip(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("w") / "deep" / "file.bin"
    write_atomic(path, content)
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
