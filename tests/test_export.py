"""A run's atlas in the forms of other tools, read back with those tools' own means."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from heatprint.core.errors import InvalidInput, StoreError, UnknownName
from heatprint.core.store import Part, Store, write_json
from heatprint.export import TARGETS, export
from heatprint.export.csv import FORMULA, _cell

CLASSES = ("cats", "dogs")
HOSTILE = '=cmd|"/C calc"!A0,\n<b>.png'
SIDE, SIZE = 4, 8


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()


def share(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "total": total, "share": round(count / total, 6), "low": 0.1, "high": 0.9}


def atlas() -> dict[str, Any]:
    card = {
        "name": "dogs 1", "class": "dogs", "strategy": 0, "images": 4, "labels": {"dogs": 3, "cats": 1},
        "purity": share(3, 4), "accuracy": share(3, 4), "separability": 1.5, "edge": 0.25, "agreement": 0.5,
        "suspicion": 0.75,
        "attacks": {"fgsm": {"held": share(1, 3), "gain": {"median": None, "low": 2.0, "high": None},
                             "unit": "levels of 1/255", "confusion": {"class": "cats", "count": 2}}},
        "counterfactual": None,
    }  # fmt: skip
    flow = {
        "images": 6, "proposed": 2, "count": 2, "forced": False, "stability": 0.9,
        "strategies": [
            {"name": "A", "clean": 4, "attacked": 1, "difference": 2, "classes": {"dogs": 4}},
            {"name": "B", "clean": 2, "attacked": 5, "difference": 1, "classes": {"cats": 2}},
        ],
        "matrix": [[1, 3], [0, 2]], "stayed": share(3, 6), "falls": [],
    }  # fmt: skip
    return {
        "images": 8, "side": SIDE, "method": "spray", "explainer": "lrp.test",
        "classes": [{"class": "cats", "eigenvalues": [0.0, 0.25]}, {"class": "dogs", "eigenvalues": []}],
        "cards": [card],
        "flows": {"fgsm": flow}, "border": {},
    }  # fmt: skip


def build_run(folder: Path, *, seed: int = 0, with_atlas: bool = True) -> Path:
    """Eight clean images, all but the last on the map; two parts of attacked ones: fallen, failed, skipped."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 256, (8, SIZE, SIZE, 3)).astype(np.uint8)
    ids = [HOSTILE, *(f"dogs/dog.{n}.png" for n in range(1, 8))]
    labels = [CLASSES[n % 2] for n in range(8)]
    predicted = ["cats" if n < 4 else "dogs" for n in range(8)]
    strategies = ["cats 1", "cats 1", "cats 2", "cats 1", "dogs 1", "dogs 1", "dogs 1", "dogs 1"]
    images = {"id": ids, "label": labels, "predicted": predicted, "strategy": strategies}
    images["image"] = [{"bytes": png(one), "path": f"{i}.png"} for i, one in zip(ids, clean, strict=True)]
    maps = rng.normal(size=(8, SIDE, SIDE)).astype(np.float32)

    arrays = {
        "maps": maps,
        "logits": np.array([[1, 0] if n < 4 else [-1, 2] for n in range(8)], np.float32),
        "spectral": np.arange(24, dtype=np.float32).reshape(8, 3),
    }

    def attacked(rows: list[int], first: int) -> Part:
        success = [row % 3 == 0 for row in rows]
        changed = [255 - clean[row] if won else clean[row] for row, won in zip(rows, success, strict=True)]
        return Part(rows={
            "id": [ids[row] for row in rows], "label": [labels[row] for row in rows],
            "predicted": [CLASSES[int(won)] for won in success], "success": success,
            "skipped": [row == first for row in rows], "step": [3 if won else -1 for won in success],
            "l0": [64 if won else 0 for won in success], "l2": [float(won) for won in success],
            "linf": [255 if won else 0 for won in success],
            "image": [{"bytes": png(one), "path": "x.png"} for one in changed],
        })  # fmt: skip

    points = {
        "id": [*ids[:7], ids[3]], "label": [*labels[:7], labels[3]], "kind": ["clean"] * 7 + ["fgsm"],
        "predicted": [*predicted[:7], "dogs"], "success": [n == 3 for n in range(7)] + [True],
        "x": [float(n) for n in range(8)], "y": [-float(n) for n in range(8)],
        "px": [n / 2 for n in range(8)], "py": [float("nan") if n == 6 else 1.0 for n in range(8)],
        "preserved": [0.5] * 8,
    }  # fmt: skip
    store = Store(folder)
    with store.writing():
        store.memo("global", 0, "test", lambda: Part(rows=points, arrays={"signatures": np.zeros((8, 3), np.float32)}))
        store.memo("atlas/images", 0, "test", lambda: Part(rows=images, arrays=arrays))
        for number, rows in enumerate(([0, 1, 2, 3], [4, 5, 6])):
            store.memo("attacks/clear/fgsm/test", number, "test", lambda rows=rows: attacked(rows, 1))
        write_json(folder / "metrics.json", {"classes": list(CLASSES)} | ({"atlas": atlas()} if with_atlas else {}))
        write_json(folder / "run.json", {
            "recipe_name": "tiny", "seed": 3, "data": {"name": "mena|gerie: \x7f😀\n---"},
            "models": {"clear": {"architecture": "vgg-slim"}},
        })  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "run")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_csv_has_every_table_with_every_number(run: Path, tmp_path: Path) -> None:
    out = export(run, "csv", tmp_path / "csv")
    assert sorted(files(out)) == ["cards.csv", "flows-fgsm.csv", "points.csv", "strategies.csv"]
    points = table(out / "points.csv")
    assert [float(row["x"]) for row in points] == list(range(8))
    assert [row["success"] for row in points] == ["FALSE"] * 3 + ["TRUE"] + ["FALSE"] * 3 + ["TRUE"]
    assert [row["py"] for row in points] == ["1.0"] * 6 + ["", "1.0"]  # NaN is empty
    assert [row["y"] for row in points][1] == "-1.0"  # a negative number is no formula
    strategies = table(out / "strategies.csv")
    assert [row["strategy"] for row in strategies] == ["cats 1", "cats 1", "cats 2", "cats 1"] + ["dogs 1"] * 4
    assert list(strategies[0]) == ["id", "label", "predicted", "strategy"]
    (card,) = table(out / "cards.csv")
    assert list(card)[:4] == ["name", "class", "strategy", "images"]  # though metrics.json is sorted by name
    assert (card["labels.cats"], card["purity.count"], card["purity.total"]) == ("1", "3", "4")
    assert (card["attacks.fgsm.gain.median"], card["attacks.fgsm.gain.low"]) == ("", "2.0")
    assert (card["attacks.fgsm.confusion.class"], card["counterfactual"]) == ("cats", "")
    flow = table(out / "flows-fgsm.csv")
    assert [[row["to A"], row["to B"]] for row in flow] == [["1", "3"], ["0", "2"]]
    assert [(row["name"], row["clean"], row["classes.cats"]) for row in flow] == [("A", "4", ""), ("B", "2", "2")]


def test_csv_disarms_formulas_and_begins_with_a_byte_order_mark(run: Path, tmp_path: Path) -> None:
    out = export(run, "csv", tmp_path / "csv")
    assert (out / "points.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    for name in ("points", "strategies"):
        assert table(out / f"{name}.csv")[0]["id"] == "'" + HOSTILE


@pytest.mark.parametrize("sign", "=+-@＝＋－＠\t\r\n")
def test_signs_of_a_formula_are_disarmed_in_full_width_too(sign: str) -> None:
    assert _cell(f"{sign}1+1") == f"'{sign}1+1"


def test_every_cell_is_quoted(run: Path, tmp_path: Path) -> None:
    """Where a spreadsheet separates cells by semicolons, an unquoted id could fall apart into formulas."""
    out = export(run, "csv", tmp_path / "csv")
    for line in (out / "cards.csv").read_text(encoding="utf-8-sig").splitlines():
        assert line.startswith('"')
        assert line.endswith('"')
        assert line.count('","') == line.count(",")


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_no_text_begins_a_cell_like_a_formula(value: Any) -> None:
    cell = _cell(value)
    if isinstance(value, str):
        assert not cell.startswith(FORMULA)
        assert cell in (value, "'" + value)
        assert (cell == value) == (not value.startswith(FORMULA))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(float(value)):
        assert float(cell) == float(value)


def test_huggingface_has_the_images_lossless_with_their_places(run: Path, tmp_path: Path) -> None:
    out = export(run, "huggingface", tmp_path / "hf")
    rows = pq.read_table(out / "data").to_pylist()
    kinds = [row["kind"] for row in rows]
    assert kinds == ["clean"] * 8 + ["fgsm"] * 6  # seven were attacked or skipped, one of them skipped
    fell = [row for row in rows if row["success"]]
    assert [row["id"] for row in fell] == [HOSTILE, "dogs/dog.3.png", "dogs/dog.6.png"]
    clean = {row["id"]: row for row in rows if row["kind"] == "clean"}
    for row in rows[8:]:
        before, after = (np.asarray(Image.open(io.BytesIO(r["image"]["bytes"]))) for r in (clean[row["id"]], row))
        assert np.array_equal(after, 255 - before if row["success"] else before)
        assert row["strategy"] == clean[row["id"]]["strategy"]
    assert [row["x"] for row in rows[:8]] == [*map(float, range(7)), None]
    placed = [(row["id"], row["x"], row["y"]) for row in rows[8:] if row["x"] is not None]
    assert placed == [("dogs/dog.3.png", 7.0, -7.0)]  # the attacked copy's own place, not its original's
    assert {row["success"] for row in rows[:8]} == {None}


def test_huggingface_says_which_column_is_an_image(run: Path, tmp_path: Path) -> None:
    out = export(run, "huggingface", tmp_path / "hf")
    (file,) = (out / "data").iterdir()
    features = json.loads(pq.read_schema(file).metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["x"] == {"dtype": "float64", "_type": "Value"}
    assert list(features) == pq.read_schema(file).names
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\npretty_name: ")
    assert f"path: {file.relative_to(out).as_posix()}" in card
    assert "| clean | 8 |  |" in card
    assert "| fgsm | 6 | 3 |" in card
    assert card.count("\n---\n") == 1  # a hostile name does not end the header
    for name in features:
        assert f"| `{name}` |" in card


def test_huggingface_opens_in_datasets(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    out = export(run, "huggingface", tmp_path / "hf")
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["test"]
    assert isinstance(found.features["image"], datasets.Image)
    assert found[0]["image"].size == (SIZE, SIZE)
    assert found[0]["id"] == HOSTILE


def test_virelay_layout_holds_the_numbers_of_the_run(run: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    yaml = pytest.importorskip("yaml")
    out = export(run, "virelay", tmp_path / "v")
    part = Store(run).read("atlas/images", 0)
    project = yaml.safe_load((out / "project.yaml").read_text(encoding="utf-8"))["project"]
    assert project["attributions"]["attribution_strategy"] == "predicted_label"
    sources = [project["dataset"]["path"], *project["attributions"]["sources"], *project["analyses"][0]["sources"]]
    with h5py.File(out / sources[0]) as file:
        assert file["data"].shape == (8, 3, SIZE, SIZE)
        first = np.asarray(Image.open(io.BytesIO(part.rows["image"][0]["bytes"])))
        assert np.array_equal(file["data"][0], first.transpose(2, 0, 1))
        assert file["label"][:].tolist() == [0, 1] * 4
    with h5py.File(out / sources[1]) as file:
        assert file["attribution"].dtype == np.float32
        assert file["attribution"].shape == (8, 3, SIDE, SIDE)  # one channel cannot be drawn by ViRelAy 0.6
        assert np.allclose(file["attribution"][:].sum(1), part.arrays["maps"], atol=1e-6)
        assert file["prediction"][:].tolist() == [[1, 0]] * 4 + [[-1, 2]] * 4
    with h5py.File(out / sources[2]) as file:
        assert list(file) == ["00000000", "00000001"]
        assert file["00000001/index"][:].tolist() == [4, 5]  # one has no place, one a place that is no number
        assert file["00000000/cluster/spray"][:].tolist() == [0, 0, 1, 0]
        assert file["00000000/cluster/spray"].attrs["k"] == 2
        assert file["00000000/embedding/spectral"][:].tolist() == [[0, 1], [3, 4], [6, 7], [9, 10]]
        assert file["00000000/embedding/spectral"].attrs["eigenvalue"].tolist() == [0, 0.25]
        assert "spectral" not in file["00000001/embedding"]  # too few maps for a graph
        assert file["00000000/embedding/umap"][:].tolist() == [[n, -n] for n in range(4)]
        assert file["00000000/embedding/pca"][:, 0].tolist() == [0, 0.5, 1, 1.5]
    names = {label["word_net_id"]: label["name"] for label in json.loads((out / "label_map.json").read_text())}
    assert names == {"00000000": "cats", "00000001": "dogs"}


def test_virelay_without_h5py_says_what_to_install(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"heatprint\[export\]"):
        export(run, "virelay", tmp_path / "v")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", sorted(TARGETS))
def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path, to: str) -> None:
    if to == "virelay":
        pytest.importorskip("h5py")
    first = files(export(run, to, tmp_path / "a"))
    assert first
    assert files(export(build_run(tmp_path / "again"), to, tmp_path / "b")) == first


def test_what_is_there_is_never_written_over(run: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    for out in (tmp_path, tmp_path / "kept"):
        with pytest.raises(InvalidInput, match="not an empty folder"):
            export(run, "csv", out)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    (tmp_path / "empty").mkdir()
    assert len(files(export(run, "csv", tmp_path / "empty"))) == 4


def test_places_that_cannot_be_are_refused_as_they_were_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for out in (Path("file/out"), Path("file/deep/out")):
        with pytest.raises(InvalidInput, match=rf"export: {out} cannot be made, since \S+/file is a file"):
            export(run, "csv", out)
    with pytest.raises(InvalidInput, match="export: file is not an empty folder"):
        export(run, "csv", Path("file"))
    with pytest.raises(InvalidInput, match="lies in the run folder"):
        export(run, "csv", run / "csv")
    assert not (run / "csv").exists()


def test_a_failure_leaves_nothing_behind(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(_: Any, out: Path) -> None:
        (out / "half").write_text("half")
        raise OSError("no space left")

    monkeypatch.setitem(TARGETS, "csv", torn)
    with pytest.raises(OSError, match="no space left"):
        export(run, "csv", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_errors_say_what_to_do(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'virelay'"):
        export(run, "virely", tmp_path / "out")
    with pytest.raises(StoreError, match="heatprint study --out"):
        export(tmp_path / "nowhere", "csv", tmp_path / "out")
    old = build_run(tmp_path / "old", with_atlas=False)
    with pytest.raises(StoreError, match=r"has no atlas.*Run the study again"):
        export(old, "csv", tmp_path / "out")
    for name, value, told in (
        ("metrics.json", {"atlas": atlas()}, "metrics.json has no classes"),
        ("metrics.json", {"classes": list(CLASSES), "atlas": {"cards": []}}, "atlas in metrics.json has no classes"),
        ("metrics.json", [], "metrics.json has no classes"),
        ("run.json", {"seed": 3}, "run.json has no recipe_name, data"),
    ):
        write_json(build_run(tmp_path / "less") / name, value)
        with pytest.raises(StoreError, match=told):
            export(tmp_path / "less", "virelay", tmp_path / "out")
    broken = build_run(tmp_path / "broken")
    file = broken / "atlas/images/part-00000.parquet"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StoreError, match="'atlas/images' cannot be read"):
        export(broken, "csv", tmp_path / "out")


def test_an_image_nobody_mapped_stops_only_virelay(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    empty = build_run(tmp_path / "run")
    store = Store(empty)
    with store.writing():
        store.memo("global", 0, "none", Part)
    with pytest.raises(StoreError, match="on the map"):
        export(empty, "virelay", tmp_path / "v")
    assert sorted(files(export(empty, "csv", tmp_path / "csv"))) == ["cards.csv", "flows-fgsm.csv", "strategies.csv"]


def test_the_command_line_exports_without_torch(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom heatprint.cli import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\nprint('torch' in sys.modules)"
    )
    arguments = ["export", str(run), "--to", "csv", "--out", str(tmp_path / "csv")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.stdout.splitlines() == [str(tmp_path / "csv"), "False"]
    assert (tmp_path / "csv" / "cards.csv").exists()
