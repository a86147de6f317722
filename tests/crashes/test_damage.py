"""A byte that flipped in a run folder is mended by the study, or refused with a word on what to do; never taken."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from harness import first_difference
from torch.nn import Linear

from heatprint.core.errors import StoreError
from heatprint.core.store import Part, Store
from heatprint.data.sources import load_dataset
from heatprint.models.resume import Epoch, load_state, save_state
from heatprint.study import images, steps
from heatprint.study.checks import same_study
from heatprint.study.recipe import load_recipe

KINDS = (
    *("images/test.npy", "images/train.parquet", "images/_done/images.json", ".verified.json"),
    *("models/clear/card.json", "models/clear/model.safetensors", "models/fgsm_immune/card.json"),
    *("attacks/clear/pgd/test/part-00001.parquet", "attacks/clear/fgsm/train/part-00000.safetensors"),
    *("attacks/clear/one-pixel/test/_done/part-00002.json", "pairs/fgsm/part-00000.parquet"),
    *("signatures/clean/part-00001.safetensors", "figures/part-00000.safetensors", "atlas/cards/part-00000.parquet"),
    *("atlas/border/_done/part-00000.json", "run.json", "metrics.json", "report.html"),
)
REFUSED = ("recipe.json", "schema.json")


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)


def flipped(path: Path, head: int = 10**9, step: int = 1):
    """The file with one bit changed, in each of its first bytes in turn and then in every so many; then it is whole."""
    whole, rng = path.read_bytes(), random.Random(0)
    for at in (*range(min(head, len(whole))), *range(head, len(whole), step)):
        flip(path, at, rng.randrange(8))
        yield at
        path.write_bytes(whole)


@pytest.fixture
def run(undisturbed, tmp_path) -> Path:
    """A copy of the undisturbed run."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


@pytest.fixture
def unsynced(monkeypatch):
    """Nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_flips_in_files_of_every_kind_are_mended(ask, run, undisturbed):
    rng = random.Random(1)
    for name in KINDS:
        flip(run / name, rng.randrange(10**6), rng.randrange(8))
    assert ask(study="", folder=str(run)) == {"end": 0, "told": ""}
    assert first_difference(undisturbed, run) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_flips_in_all_files_are_mended(ask, run, undisturbed, seed):
    rng = random.Random(seed)
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name not in (*REFUSED, ".lock")):
        flip(path, rng.randrange(10**9), rng.randrange(8))
    assert ask(study="", folder=str(run)) == {"end": 0, "told": ""}
    assert first_difference(undisturbed, run) is None


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 0.5])
def test_torn_files_are_mended(ask, run, undisturbed, left):
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name not in (*REFUSED, ".lock")):
        os.truncate(path, int(left * path.stat().st_size))
    assert ask(study="", folder=str(run)) == {"end": 0, "told": ""}
    assert first_difference(undisturbed, run) is None


@pytest.mark.parametrize(("clock", "at"), [("", 0), ("backwards", 4e9)])
def test_times_of_files_and_of_the_clock_decide_nothing(ask, run, undisturbed, clock, at):
    """Files of 1970 and of 2096; a clock that is set back by years and then runs backwards."""
    for path in run.rglob("*"):
        os.utime(path, (at, at))
    (run / "attacks/clear/pgd/test/_done/part-00000.json").unlink()
    assert ask(study=clock, folder=str(run)) == {"end": 0, "told": ""}
    assert first_difference(undisturbed, run) is None
    again = {path.parent.name for path in run.rglob("part-*") if path.stat().st_mtime != at}
    assert again == {"test", "_done"}, "what was done is not done again"


def test_any_flip_in_a_mark_of_a_part_is_mended(tmp_path, unsynced):
    store = Store(tmp_path / "run")
    mark = tmp_path / "run/s/_done/part-00000.json"

    def computed() -> Part:
        return Part(rows={"id": ["a", "b"]}, arrays={"v": torch.ones(2).numpy()})

    with store.writing():
        store.memo("s", 0, "key", computed)
        whole = mark.read_bytes()
        for at in flipped(mark):
            assert store.memo("s", 0, "key", computed).rows == {"id": ["a", "b"]}
            assert mark.read_bytes() == whole, at


def test_any_flip_in_the_images_and_what_is_said_of_them_is_mended(tmp_path, unsynced, monkeypatch):
    store, first = Store(tmp_path / "run"), load_dataset("menagerie", size=32, train=2, test=2)
    monkeypatch.setattr(images, "load_dataset", lambda *given, **named: first)  # drawn once
    with store.writing():
        images.read_images(store, "menagerie", size=32, train=2, test=2)
        files = {store.root / "images" / name: b"" for name in ("_done/images.json", "test.parquet", "test.npy")}
        files = {path: path.read_bytes() for path in files}
        for path in files:
            for at in flipped(path, head=1000, step=97):
                again = images.read_images(store, "menagerie", size=32, train=2, test=2)
                assert (again.classes, again.test.ids) == (first.classes, first.test.ids), at
                assert torch.equal(again.test.pixels, first.test.pixels), at
                assert {path: path.read_bytes() for path in files} == files, at


def test_a_model_counts_only_as_it_was_saved(run):
    folder = run / "models/clear"
    key = json.loads((folder / "card.json").read_bytes())["notes"]["key"]
    assert steps._holds(folder, key)
    for at in flipped(folder / "card.json"):
        assert not steps._holds(folder, key), at
    for at in range(0, 10**6, 10**5):
        flip(folder / "model.safetensors", at)
        assert not steps._holds(folder, key)
        flip(folder / "model.safetensors", at)
    assert steps._holds(folder, key)


def test_a_training_goes_on_only_from_the_state_that_was_kept(tmp_path):
    path, network = tmp_path / "unfinished.safetensors", Linear(2, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    epoch = Epoch(epoch=0, size=8, loss=0.5, accuracy=0.25, measured={"score": 1.0})
    save_state(path, "key", network, optimiser, [epoch], {})
    assert load_state(path, "key", network, optimiser) == ([epoch], {})
    for at in flipped(path):
        assert load_state(path, "key", network, optimiser) == ([], {}), at


def test_any_flip_in_what_a_folder_was_begun_with_is_refused_or_mended(tmp_path, unsynced):
    root, recipe = tmp_path / "run", load_recipe("tiny")
    told = set()
    with Store(root).writing():
        same_study(Store(root), recipe)
    files = {name: (root / name).read_bytes() for name in REFUSED}
    for name in REFUSED:
        for at in flipped(root / name):
            try:
                with Store(root).writing():
                    same_study(Store(root), recipe)
            except StoreError as error:
                told.add(str(error).partition(": ")[2].replace(str(root), "RUN"))
            else:
                assert {name: (root / name).read_bytes() for name in REFUSED} == files, (name, at)
    assert all("Name another folder" in one or "Remove it to go on" in one or "newer heatprint" in one for one in told)
    assert len(told) > 3
