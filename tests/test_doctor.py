"""The doctor of runs: every byte that is not as it was left is named, and what is mended is what was there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from heatprint.cli import app
from heatprint.core.errors import InvalidInput, StoreError, UnreadableData
from heatprint.core.inventory import LABORATORY, STUDY, amend, inventoried, read_inventory
from heatprint.core.store import Part, Store, write_atomic, write_json
from heatprint.data.sources import write_menagerie
from heatprint.doctor import Examined, Remedy, examine
from heatprint.doctor.mend import mend
from heatprint.models import load, save
from heatprint.study import Recipe, load_recipe, study
from heatprint.study.images import read_images

UNCHECKED = {".lock", ".verified.json", "events.jsonl"}


def built(root: Path, *, finished: bool = True) -> Path:
    """A run folder with a file of each kind, without the study."""
    store = Store(root)
    recipe = load_recipe("tiny").model_dump(mode="json")
    with store.writing():
        read_images(store, "menagerie", size=32, train=8, test=8)
        save(load("vgg-slim", classes=("cats", "dogs"), size=32), root / "models" / "clear", notes={"key": "k"})
        for index in range(3):
            part = Part(rows={"id": [str(index)]}, arrays={"v": np.full(5, index, np.float32)})
            store.keep("attacks/clear/fgsm/test", index, "k", part)
        write_json(root / "recipe.json", recipe)
        if not finished:
            return root
        with inventoried(root, STUDY):
            write_json(root / "run.json", {"recipe": recipe, "data": {"source": "menagerie"}})
            write_json(root / "metrics.json", {"table1": [0.5]})
            write_atomic(root / "report.html", b"<html></html>")
        with inventoried(root, LABORATORY):
            store.keep("forensics/oracle", 0, "k", Part(arrays={"v": np.ones(9)}))
            write_json(root / "forensics/fitted/detector.json", {"schema": 1})
            write_atomic(root / "forensics/fitted/detector.safetensors", b"12345678")
            write_json(root / "forensics.json", {"ablation": {}})
    (root / "events.jsonl").write_text("{}\n")
    return root


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("doctor") / "run")


@pytest.fixture
def run(healthy, tmp_path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "run"))


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in UNCHECKED
    }


def flip(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def named(found: Examined) -> list[str]:
    return [one.file for one in found.sick]


def test_nothing_is_found_in_a_healthy_run(run):
    read = []
    found = examine(run, read=lambda done, whole: read.append((done, whole)))
    assert found.findings == []
    assert found.finished
    assert found.files == len(files(run)) - 2, "all but the two inventories"
    assert found.size == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    done, whole = read[-1]
    assert found.size * 0.9 < done <= whole == found.size
    assert read == sorted(read)


def test_every_flipped_byte_is_found_and_its_file_named(run):
    rng = np.random.default_rng(0)
    for name, content in files(run).items():
        places = {0, len(content) // 2, len(content) - 1, *rng.integers(0, len(content), 4).tolist()}
        for place in places:
            kept = (run / name).stat()
            flip(run / name, place, 1 << int(rng.integers(8)))
            found = examine(run)
            assert name in named(found), place
            assert len(found.sick) == 1 or name.startswith("_done/"), (name, place, found.sick)
            (run / name).write_bytes(content)
            assert (run / name).stat().st_size == kept.st_size
    assert not examine(run).findings


def test_a_flip_that_keeps_size_and_time_of_the_images_is_found(run):
    import os

    path = run / "images/test.npy"
    before = path.stat()
    flip(path, before.st_size - 5)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert named(examine(run)) == ["images/test.npy"]


def test_every_missing_file_is_named(run):
    for name, content in files(run).items():
        (run / name).unlink()
        found = named(examine(run))
        assert name in found, found
        (run / name).write_bytes(content)
    shutil.rmtree(run / "attacks")
    assert named(examine(run)) == [f"attacks/clear/fgsm/test/_done/part-0000{n}.json" for n in range(3)]


def test_what_a_killed_process_left_is_removed_and_what_others_wrote_is_not(run):
    step = run / "attacks/clear/fgsm/test"
    (step / ".part-00003.parquet.77.tmp").write_bytes(b"torn")
    (run / ".umap.8.tmp").mkdir()
    (run / ".umap.8.tmp" / "x").write_bytes(b"torn")
    (step / "part-00003.parquet").write_bytes(b"no mark")
    (run / "models/clear/unfinished.safetensors").write_bytes(b"of a training")
    (run / "notes.txt").write_text("mine")
    found = examine(run)
    assert {one.file: one.remedy for one in found.findings} == {
        ".umap.8.tmp": Remedy.REMOVED,
        "attacks/clear/fgsm/test/.part-00003.parquet.77.tmp": Remedy.REMOVED,
        "attacks/clear/fgsm/test/part-00003.parquet": Remedy.REMOVED,
        "models/clear/unfinished.safetensors": Remedy.REMOVED,
        "notes.txt": Remedy.NONE,
    }
    mend(run, found)
    assert [one.file for one in examine(run).findings] == ["notes.txt"]


def test_an_unfinished_run_is_checked_as_far_as_it_has_come(tmp_path):
    run = built(tmp_path / "run", finished=False)
    found = examine(run)
    assert (found.findings, found.finished) == ([], False)
    (run / "models/fgsm_immune").mkdir()
    (run / "models/fgsm_immune/unfinished.safetensors").write_bytes(b"in work")
    assert not examine(run).findings
    flip(run / "models/clear/model.safetensors", -1)
    flip(run / "attacks/clear/fgsm/test/part-00001.safetensors", -1)
    assert named(examine(run)) == [
        "attacks/clear/fgsm/test/part-00001.safetensors", "models/clear/model.safetensors"
    ]  # fmt: skip


def test_a_run_of_an_older_version_is_finished_without_an_inventory(run):
    (run / "_done/study.json").unlink()
    found = examine(run)
    assert named(found) == ["_done/study.json"]
    assert found.sick[0].remedy is Remedy.STUDY


def test_nobody_is_examined_while_another_writes_nor_written_to_while_examined(run):
    with Store(run).writing(), pytest.raises(StoreError, match="another process is writing"):
        examine(run)

    def writing(_done, _whole):
        with pytest.raises(StoreError, match="another process is writing"), Store(run).writing():
            pass

    assert not examine(run, read=writing).findings


def test_what_is_no_run_or_of_a_newer_version_is_refused(run, tmp_path):
    with pytest.raises(StoreError, match="is no run folder"):
        examine(tmp_path)
    write_json(run / "schema.json", {"schema": 9})
    assert [(one.file, one.remedy) for one in examine(run).sick] == [("schema.json", Remedy.REWRITTEN)]
    amend(run, STUDY, "schema.json")
    with pytest.raises(StoreError, match="schema 9, this heatprint reads up to 1"):
        examine(run)


def test_what_is_written_anew_by_intention_is_not_a_finding(run):
    write_atomic(run / "report.html", b"<html>newer</html>")
    assert named(examine(run)) == ["report.html"]
    amend(run, STUDY, "report.html")
    assert not examine(run).findings
    assert "report.html" in read_inventory(run, STUDY).files


def test_the_command_line_names_what_is_wrong_and_ends_with_1(run):
    flip(run / "forensics/oracle/part-00000.safetensors", -1)
    (run / ".x.1.tmp").write_bytes(b"")
    first = CliRunner().invoke(app, ["doctor", str(run)])
    assert first.exit_code == 1
    assert "forensics/oracle/part-00000.safetensors  is damaged" in first.stdout
    assert f"heatprint detect --benchmark --run {run} --data ..." in first.stdout
    assert f"heatprint doctor {run} --repair" in first.stdout
    second = CliRunner().invoke(app, ["doctor", str(run), "--repair"])
    assert second.exit_code == 1, "the laboratory is built again by its own command"
    assert "forensics/oracle/_done/part-00000.json  is missing" in second.stdout
    assert not (run / ".x.1.tmp").exists()
    with inventoried(run, LABORATORY):
        Store(run).keep("forensics/oracle", 0, "k", Part(arrays={"v": np.ones(9)}))
    third = CliRunner().invoke(app, ["doctor", str(run)])
    assert third.exit_code == 0
    assert "all is well" in third.stdout
    assert isinstance(CliRunner().invoke(app, ["doctor", "--repair"]).exception, InvalidInput)


def test_nothing_is_removed_where_it_could_not_be_computed_again(run):
    for name in ("recipe.json", "run.json", "report.html"):
        flip(run / name, 3)
    before = files(run)
    with pytest.raises(StoreError, match="has no recipe any more"):
        mend(run, examine(run))
    assert files(run) == before


def test_damaged_images_are_not_replaced_by_others(tmp_path):
    write_menagerie(tmp_path / "data", train=40, test=16, size=32)
    recipe = of_source(str(tmp_path / "data"))
    store = Store(tmp_path / "run")
    with store.writing():
        read_images(store, recipe.data.source, size=32)
        write_json(store.root / "recipe.json", recipe.model_dump(mode="json"))
        write_json(store.root / "run.json", {"recipe": {}, "data": {"source": recipe.data.source, "fingerprint": "f"}})
    flip(store.root / "images/train.npy", -1)
    shutil.rmtree(tmp_path / "data/training_set")
    with pytest.raises(InvalidInput, match="Write --data and where they are"):
        mend(store.root, examine(store.root))
    assert (store.root / "images/train.npy").exists()
    with pytest.raises(InvalidInput, match="Write --data and where they are"):
        mend(store.root, examine(store.root), data="nowhere")


def test_of_two_recipes_that_differ_neither_is_believed(run):
    (run / "_done/study.json").unlink()
    table = json.loads((run / "recipe.json").read_bytes())
    write_json(run / "recipe.json", table | {"seed": 5})
    with pytest.raises(StoreError, match="has two recipes, which differ"):
        mend(run, examine(run))


def of_source(source: str) -> Recipe:
    table = load_recipe("tiny", data=source).model_dump(mode="json")
    table["data"] = {"source": source, "size": 32}
    return Recipe.model_validate(table)


def test_a_study_whose_source_is_gone_goes_on_with_the_images_in_its_folder(tmp_path, caplog):
    write_menagerie(tmp_path / "data", train=40, test=16, size=32)
    store = Store(tmp_path / "run")
    with store.writing():
        first = read_images(store, str(tmp_path / "data"), size=32)
        shutil.rmtree(tmp_path / "data")
        again = read_images(store, str(tmp_path / "data"), size=32)
        assert again.train.identity[0] == first.train.identity[0]
        assert (again.test.prints == first.test.prints).all()
        assert "going on with the images in" in caplog.text
        with pytest.raises(UnreadableData, match="Check the path"):
            read_images(store, str(tmp_path / "data"), size=32, test=8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """One finished run of the recipe `tiny`, of images in a folder."""
    folder = tmp_path_factory.mktemp("whole")
    write_menagerie(folder / "data", train=48, test=16, size=64)
    study(load_recipe("tiny", data=str(folder / "data")), folder / "run")
    return folder / "run"


DAMAGES = (
    ("attacks/clear/fgsm/test/part-00000.parquet", "attacks/clear/fgsm/train/part-00000.safetensors",
     "attacks/clear/pgd/test/_done/part-00000.json", "atlas/images/part-00000.parquet", "report.html",
     "global/part-00000.safetensors", "figures/part-00000.parquet", "models/fgsm_immune/card.json", "schema.json",
     "recipe.json"),
    ("images/train.npy", "images/test.parquet", "_done/study.json"),
    ("models/clear/model.safetensors", "run.json", "metrics.json", "images/_done/images.json"),
)  # fmt: skip


def damaged(whole: Path, to: Path, names: Sequence[str]) -> Path:
    """A copy of a run with a byte of each of these files flipped; each is found."""
    shutil.copytree(whole, to)
    for name in names:
        flip(to / name, (to / name).stat().st_size * 2 // 3)
    assert set(names) <= set(named(examine(to)))
    return to


@pytest.mark.slow
@pytest.mark.parametrize("names", DAMAGES, ids=("parts", "images", "cards"))
def test_what_was_damaged_is_mended_to_the_byte(whole, tmp_path, names):
    run = damaged(whole, tmp_path / "run", names)
    data = None
    if {"run.json", "images/_done/images.json"} <= set(names):  # nothing knows any more which images they were
        data = str(whole.parent / "data")
        with pytest.raises(InvalidInput, match="Write --data and where they are"):
            mend(run, examine(run))
    mend(run, examine(run), data=data)
    assert not examine(run).findings
    assert [path for path in files(whole) if files(whole)[path] != files(run).get(path)] == []
    assert files(run).keys() == files(whole).keys()


@pytest.mark.slow
def test_a_run_whose_images_are_gone_is_mended_from_its_own(whole, tmp_path):
    run = damaged(whole, tmp_path / "run", (*DAMAGES[0], "metrics.json"))
    (whole.parent / "data").rename(tmp_path / "elsewhere")
    mend(run, examine(run))
    (tmp_path / "elsewhere").rename(whole.parent / "data")
    assert files(run) == files(whole)
