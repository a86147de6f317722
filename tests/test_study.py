"""The whole line: recipes, resuming, and what a run folder holds; of kills see `crashes`."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from heatprint import detectors
from heatprint.attacks import attack, make
from heatprint.core.errors import InvalidInput, StoreError, UnknownName, Unsupported
from heatprint.core.store import Store
from heatprint.detectors import Examples
from heatprint.export import export
from heatprint.models import load, predict
from heatprint.runs.read import read_shown
from heatprint.study import load_recipe, recipe_names, scores, study
from heatprint.study.checks import same_study
from heatprint.study.lines import line_of
from heatprint.study.progress import SILENT
from heatprint.study.recipe import AtlasTable, DefenceTable, ExplainerTable, MapTable
from heatprint.study.records import join_attacked
from heatprint.study.steps import Lab, device
from heatprint.testing import labelled_batch


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """One finished run of the recipe `tiny`."""
    out = tmp_path_factory.mktemp("study") / "run"
    assert study(load_recipe("tiny"), out) == out / "report.html"
    return out


def test_the_same_command_again_computes_nothing_and_changes_nothing(run):
    marks = {p: p.stat().st_mtime_ns for p in run.rglob("part-*")}
    before = (run / "metrics.json").read_bytes()
    study(load_recipe("tiny"), run)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("part-*")} == marks
    assert (run / "metrics.json").read_bytes() == before


def test_metrics_agree_with_the_stored_images(run):
    """Every number that can be counted again from the PNG files and the saved weights is."""
    metrics = json.loads((run / "metrics.json").read_bytes())
    clear = load(run / "models" / "clear")
    rows = pq.read_table(run / "attacks/clear/fgsm/test/part-00000.parquet").to_pydict()
    images = [np.array(Image.open(io.BytesIO(i["bytes"]))) for i in rows["image"]]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    labels = torch.tensor([clear.classes.index(name) for name in rows["label"]])
    fooled = predict(clear, pixels).argmax(1) != labels
    skipped = torch.tensor(rows["skipped"])
    share = metrics["attacks"]["fgsm"]["test"]["success"]
    assert share["count"] == int((fooled & ~skipped).sum())
    assert share["total"] == int((~skipped).sum())
    assert metrics["arms"][0]["clean"]["count"] == share["total"]
    mixture = metrics["arms"][0]["attacks"]["fgsm"]["mixture"]
    assert (mixture["count"], mixture["total"]) == (share["total"], len(labels) + share["count"])


def test_the_run_folder_holds_what_the_design_says(run):
    card = json.loads((run / "run.json").read_bytes())
    assert card["recipe_name"] == "tiny"
    assert set(card["models"]) == {"clear", "clean_control", "fgsm_immune", "one-pixel_immune"}
    assert card["explainer"]["plan"][0] == {
        "layer": "0.0", "operator": "conv", "rule": "Flat()", "epsilon": None, "bias": "",
    }  # fmt: skip
    assert card["attacks"]["one-pixel"]["taxonomy"]["knowledge"] == "score"
    figures = Store(run).read("figures", 0)
    assert figures.arrays["pixels"].shape == (len(figures.rows["id"]), 3, 64, 64)
    assert set(figures.rows["kind"]) >= {"clean"}
    places = Store(run).read("global", 0)
    assert len(places.rows["x"]) == len(places.arrays["signatures"]) == len(places.rows["kind"])
    assert str(run) not in (run / "metrics.json").read_text()


def test_before_and_after_is_measured_on_stored_successes(run):
    """The medians of the run are those of explanations made again from its images and its weights."""
    told = json.loads((run / "metrics.json").read_bytes())["pairs"]
    assert set(told) == {"fgsm", "one-pixel"}
    rows = Store(run).read("pairs/fgsm", 0).rows
    stored = pq.read_table(run / "attacks/clear/fgsm/test/part-00000.parquet").to_pydict()
    fell = {name for name, won in zip(stored["id"], stored["success"], strict=True) if won}
    assert told["fgsm"]["available"] == len(fell) > 0
    assert set(rows["id"]) == fell
    assert told["fgsm"]["images"] == len(fell)
    own = [value for value, kind in zip(rows["moved"], rows["explained"], strict=True) if kind == "predicted"]
    assert told["fgsm"]["explained"]["predicted"]["measures"]["moved"]["median"] == pytest.approx(
        np.median(own), abs=1e-6
    )
    same = [a == b for a, b in zip(rows["clean_target"], rows["target"], strict=True)]
    assert same == [kind == "true" for kind in rows["explained"]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_told_in_one_line(caplog):
    with caplog.at_level("WARNING", logger="heatprint"):
        assert device("cuda") == torch.device("cpu")
    assert caplog.messages == ["torch sees no GPU here: computing on the CPU"]
    assert device("auto") == torch.device("cpu")


def test_a_gpu_lost_on_the_way_costs_one_line_and_nothing_else(run, tmp_path, monkeypatch, caplog):
    """What was computed stays; the rest is computed on the CPU."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    walked, figures = [], Lab.figures

    def lost(self, *given):
        walked.append(self.recipe.device)
        if len(walked) == 1:
            raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")
        return figures(self, *given)

    monkeypatch.setattr(Lab, "figures", lost)
    with caplog.at_level("WARNING", logger="heatprint"):
        study(load_recipe("tiny", device="cuda"), out)
    assert walked == ["cuda", "cpu"]
    assert "the GPU is lost (CUDA error: unspecified launch failure): going on on the CPU" in caplog.text
    assert (out / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()


def tiny(**changes):
    return load_recipe("tiny").model_copy(update=changes)


def test_what_cannot_work_is_told_before_anything_is_trained(tmp_path):
    recipe = tiny(architecture="torchvision:mobilenet_v3_small", explainer=ExplainerTable(method="guided_backprop"))
    with pytest.raises(Unsupported, match="ReLU"):
        study(recipe, tmp_path / "a")
    recipe = tiny(map=MapTable(signature={"layer": "nowhere"}))
    with pytest.raises(InvalidInput, match="Layers: last"):
        study(recipe, tmp_path / "b")
    recipe = tiny(architecture="vgg16-paper", training=replace(tiny().training, stages=((1, 32),)))
    with pytest.raises(InvalidInput, match="stages has size 32"):
        study(recipe, tmp_path / "c")
    small = DefenceTable(name="x", method="retrain", settings={"training": {"stages": [[1, 32]]}})
    with pytest.raises(InvalidInput, match="stages has size 32"):
        study(tiny(architecture="vgg16-paper", defences=(small,)), tmp_path / "d")
    assert not list(tmp_path.rglob("part-*"))
    assert not list(tmp_path.rglob("*.safetensors"))


def begun(run, folder):
    """A copy of a finished run that does not remember its recipe: another one goes on from its parts."""
    shutil.copytree(run, folder)
    (folder / "recipe.json").unlink()
    return folder


def test_a_defence_of_the_recipe_is_an_arm_like_the_others(run, tmp_path):
    """Rounded colours give no gradient: the strong attack is also made past them, and judged on the true network."""
    out = begun(run, tmp_path / "run")
    bits = DefenceTable(name="few_bits", method="transform", settings={"kind": "bits", "strength": 5})
    again = DefenceTable(name="both", method="retrain", settings={"attacks": ["fgsm", "one-pixel"],
                                                                  "training": {"stages": [[1, 64]]}})  # fmt: skip
    study(tiny(defences=(bits, again)), out)
    told = json.loads((out / "metrics.json").read_bytes())
    arms = {arm["name"]: arm for arm in told["arms"]}
    assert list(arms) == ["clear", "clean_control", "fgsm_immune", "one-pixel_immune", "few_bits", "both"]
    before = json.loads((run / "metrics.json").read_bytes())["arms"]
    assert told["arms"][:4] == before
    assert set(arms["both"]) == set(before[0])
    assert {name for name, arm in arms.items() if arm["adaptive"]} == {"few_bits"}
    assert (out / "attacks/few_bits/pgd/adaptive/part-00000.parquet").exists()
    assert json.loads((out / "run.json").read_bytes())["models"]["few_bits"]["architecture"] == "bits:5|vgg-slim"
    strong, adaptive = arms["few_bits"]["strong"]["robust"], arms["few_bits"]["adaptive"]["standing"]
    assert adaptive["count"] <= strong["count"] == len(standing(out, "test"))
    assert adaptive["count"] == len(standing(out, "test") & standing(out, "adaptive"))
    for arm in arms.values():
        assert arm["worst"]["attacks"] == ["fgsm", "one-pixel", "pgd"]
        assert arm["worst"]["standing"]["total"] == 8  # the images of one-pixel, the fewest
        assert arm["worst"]["standing"]["count"] <= arm["attacks"]["one-pixel"]["reattacked"]["count"]
    page = (out / "report.html").read_text()
    assert "A part of it gives no gradient" in page
    assert "no part without a gradient found" in page
    marks = {p: p.stat().st_mtime_ns for p in out.rglob("part-*")}
    study(tiny(defences=(bits, again)), out)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("part-*")} == marks


def standing(out, split):
    """Ids of the stored images of an attack on `few_bits` that the saved network classifies correctly."""
    safe = load(out / "models" / "few_bits")
    rows = pq.read_table(out / f"attacks/few_bits/pgd/{split}/part-00000.parquet").to_pydict()
    images = [np.array(Image.open(io.BytesIO(i["bytes"]))) for i in rows["image"]]
    guess = predict(safe, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)).argmax(1).tolist()
    return {name for name, label, said in zip(rows["id"], rows["label"], guess, strict=True)
            if label == safe.classes[said]}  # fmt: skip


def test_a_folder_of_another_study_is_not_overwritten(run):
    with pytest.raises(StoreError, match="another recipe or seed"):
        study(load_recipe("tiny", seed=1), run)
    assert (run / "report.html").exists()


def test_a_folder_of_an_older_version_goes_on(tmp_path):
    """A recipe that the older version did not know a field of is the same recipe where the field has its default."""
    store = Store(tmp_path / "run")
    with store.writing():
        same_study(store, load_recipe("tiny"))
        older = json.loads((tmp_path / "run/recipe.json").read_bytes())
        del older["atlas"]
        (tmp_path / "run/recipe.json").write_text(json.dumps(older))
        same_study(store, load_recipe("tiny"))
        (tmp_path / "run/recipe.json").write_text(json.dumps(older))
        with pytest.raises(StoreError, match="another recipe"):
            same_study(store, tiny(pairs=7))


def test_the_atlas_may_be_mended_without_a_new_study(run, tmp_path):
    """Another [atlas] table is taken, and computes parts of the atlas alone."""
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("part-*")}
    changed = tiny(atlas=AtlasTable(side=8, method="gebi", settings={"map_components": 40}))  # needs more maps
    study(changed, copied)
    again = {p.relative_to(copied).parts[0] for p, at in before.items() if p.stat().st_mtime_ns != at}
    assert again == {"atlas"}
    assert json.loads((copied / "recipe.json").read_bytes())["atlas"]["method"] == "gebi"
    told = json.loads((copied / "metrics.json").read_bytes())["atlas"]
    assert all(one["count"] == 1 and "too few" in one["note"] for one in told["classes"])
    assert "not clustered: isomap" in (copied / "report.html").read_text()


def test_a_study_at_work_is_not_a_finished_one(run, tmp_path, monkeypatch):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    mark = copied / "attacks/clear/fgsm/test/_done/part-00000.json"
    for name in ("_done/part-00007.json", "part-00007.parquet"):  # of a larger set of images
        (mark.parent.parent / name).write_bytes((mark.parent.parent / name.replace("7", "0")).read_bytes())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Lab, "figures", killed)
        with pytest.raises(KeyboardInterrupt):
            study(load_recipe("tiny"), copied)
    assert not (copied / "metrics.json").exists()
    with pytest.raises(StoreError, match="not a finished run"):
        export(copied, "csv", tmp_path / "csv")
    study(load_recipe("tiny"), copied)
    assert (copied / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    assert not list(copied.rglob("part-00007*"))


def test_names_that_are_not_utf8_go_through_a_whole_study(tmp_path):
    from heatprint.data.sources import write_menagerie

    write_menagerie(tmp_path / "data", train=40, test=16, size=64)
    odd = os.fsencode(tmp_path / "data/training_set/cats") + b"/\xff\xfe.png"
    (tmp_path / "data/training_set/cats/cat.1.png").rename(os.fsdecode(odd))
    for part in ("training_set", "test_set"):
        (tmp_path / "data" / part / "dogs").rename(os.fsdecode(os.fsencode(tmp_path / "data" / part) + b"/d\xf6gs"))
    study(load_recipe("tiny", data=str(tmp_path / "data")), tmp_path / "out")
    card = json.loads((tmp_path / "out/run.json").read_bytes())
    assert card["data"]["classes"] == ["cats", "d\\xf6gs"]
    assert card["data"]["train"] == 40


def test_another_seed_gives_another_run(run, tmp_path):
    study(load_recipe("tiny", seed=1), tmp_path / "other")
    assert (tmp_path / "other" / "metrics.json").read_bytes() != (run / "metrics.json").read_bytes()


def test_bad_images_of_a_run_are_listed_and_cost_nothing_else(run, tmp_path):
    from heatprint.data.sources import write_menagerie

    write_menagerie(tmp_path / "data", train=40, test=16, size=64)
    (tmp_path / "data/training_set/cats/cat.3.png").write_bytes(b"")
    (tmp_path / "data/test_set/dogs/<script>.png").write_bytes(b"\x89PNG")
    study(load_recipe("tiny", data=str(tmp_path / "data")), tmp_path / "out")
    card = json.loads((tmp_path / "out/run.json").read_bytes())
    assert {s["id"] for s in card["data"]["skipped"]} == {"training_set/cats/cat.3.png", "test_set/dogs/<script>.png"}
    page = (tmp_path / "out/report.html").read_text()
    assert "&lt;script&gt;.png" in page
    assert "test_set/dogs/<script>" not in page
    assert card["data"]["train"] == 39


@pytest.mark.parametrize("name", recipe_names())
def test_built_in_recipes_are_valid_and_round_trip(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert type(recipe).model_validate(recipe.model_dump()) == recipe


def test_the_paper_recipe_is_the_paper_s():
    recipe = load_recipe("paper")
    assert recipe.architecture == "vgg16-paper"
    assert (recipe.training.lr, recipe.training.decay, recipe.training.schedule) == (1e-3, 1e-6, "keras-decay")
    one_pixel = next(a for a in recipe.attacks if a.name == "one-pixel").make()
    how = one_pixel.strategy
    assert (how.population, how.generations, how.weight, how.mutation) == (400, 100, (0.5, 0.5), "rand1")


GOOD = """name = "mine"

[training]
lr = 1e-3

[[attacks]]
name = "a"
method = "fgsm"
train = 8
[[attacks]]
name = "b"
method = "one-pixel"
settings = { pixels = 3 }

[strong]
name = "pgd"
method = "pgd"

[[defences]]
name = "bits"
method = "transform"
settings = { kind = "bits", strength = 4 }

[[defences]]
name = "two"
method = "retrain"
settings = { attacks = ["a"] }
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("lr = 1e-3", "learning_rate = 1e-3", r"line 3: training: training: the setting 'learning_rate' is not known"),
        ("lr = 1e-3", 'optimiser = "adam"', r"line 3: training.*'adamw' or 'sgd'"),
        ('method = "fgsm"', 'methd = "fgsm"', r"line 8: attacks\.0\.methd.*Did you mean 'method'"),
        ('method = "fgsm"', 'method = "fgms"', r"line 6: attacks\.0: .*Did you mean 'fgsm'"),
        ("pixels = 3", "pixels = 0", r"line 10: attacks\.1.*pixels = 0 must be 1 or more"),
        ("pixels = 3", "pixel = 3", r"line 10: attacks\.1.*Did you mean 'pixels'"),
        ('name = "mine"', 'name = "mine"\nseeed = 1', r"line 2: seeed.*Did you mean 'seed'"),
        ('name = "mine"', 'name = "mine"\nseed = -1', r"line 2: seed: .*greater than or equal to 0, got -1"),
        (
            'name = "mine"',
            'name = "mine"\narchitecture = "vgg-slam"',
            r"line 2: architecture: .*Did you mean 'vgg-slim'",
        ),
        ("lr = 1e-3", "lr = nan", r"line 3: training: .*lr = nan must be positive and finite"),
        ("lr = 1e-3", "label_smoothing = 7.0", r"label_smoothing = 7.0 must be 0 or more and below 1"),
        ("lr = 1e-3", "augmentation = { crop_scale = [-1.0, 0.5] }", r"crop_scale = \(-1.0, 0.5\)"),
        ("[strong]", '[map]\numap = { metric = "foo" }\n\n[strong]', r"line 15: map: .*'cosine'"),
        ('name = "b"', 'name = "clean"', r"give the attack another name"),
        ('name = "b"', 'name = "a"', r"attack names must differ"),
        ('name = "b"', 'name = "../b"', r"letters, digits"),
        ('name = "b"', 'name = "b"\nretrain = true', r"retrain = true needs train"),
        ("[strong]", "[strong", r"not valid TOML.*line 15"),
        ('[strong]\nname = "pgd"\nmethod = "pgd"\n', "", r"strong: Field required"),
        ('"transform"', '"transfrom"', r"line 19: defences\.0: .*Did you mean 'transform'"),
        ("strength = 4", "strenght = 4", r"line 19: defences\.0: .*Did you mean 'strength'"),
        ("strength = 4", "strength = 9", r"line 19: defences\.0: .*1 to 8"),
        ('name = "bits"', "", r"line 19: defences\.0\.name: Field required"),
        ('name = "bits"', 'nmae = "bits"', r"line 20: defences\.0\.nmae.*Did you mean 'name'"),
        ('name = "bits"', 'name = "two"', r"line 24: defences\.1: another defence is called 'two'"),
        ('name = "two"', 'name = "clear"', r"line 24: defences\.1: 'clear' is what another model"),
        ('name = "two"', 'name = "a_immune"', r"line 24: defences\.1: 'a_immune' is what another model"),
        ('name = "two"', 'name = "biased"', r"line 24: defences\.1: 'biased' is what another model"),
        ('name = "two"', 'name = "../b"', r"line 24: defences\.1: .*letters, digits"),
        ('["a"]', '["b"]', r"line 24: defences\.1: two learns from b, .*; those are a"),
        ('["a"]', '["nothing"]', r"line 24: defences\.1: two learns from nothing, "),
    ],
)
def test_mistakes_in_a_recipe_name_line_field_and_what_is_valid(tmp_path, old, new, told):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_recipe(path).name == "mine"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InvalidInput, match=told) as caught:
        load_recipe(path)
    assert ".." not in str(caught.value).replace("../b", "")


def test_a_recipe_that_is_not_there_is_named():
    with pytest.raises(UnknownName, match="Did you mean 'quick'"):
        load_recipe("quik")
    with pytest.raises(InvalidInput, match="there is no file"):
        load_recipe("nowhere/at/all.toml")


def test_lines_are_found_in_tables_of_tables():
    assert line_of(GOOD, ("training", "lr")) == 4
    assert line_of(GOOD, ("attacks", 1, "method")) == 12
    assert line_of(GOOD, ("attacks", 0, "settings", "x")) == 6
    assert line_of(GOOD, ("nothing",)) is None


def test_parts_in_which_nothing_was_attacked_join_the_others(small):
    batch = labelled_batch(small, 6, wrong=3)
    parts = [attack(small, batch.take(rows), make("fgsm", eps="9/255")) for rows in (range(3), range(3, 6))]
    assert not parts[0].trace
    for order in (parts, parts[::-1]):
        joined = join_attacked(order)
        assert set(joined.trace) == {"flips", "unflip"}
        assert len(joined.trace["flips"]) == 6
        assert int(joined.trace["flips"].sum()) == int(parts[1].trace["flips"].sum())


@dataclass(frozen=True, kw_only=True)
class Bright:
    """A detector that takes bright images for attacked."""

    unsupervised: bool = True

    def learn(self, classifier, examples, *, seed, progress):
        return {"none": np.zeros(1)}

    def score(self, classifier, learned, pixels):
        return pixels.double().mean((1, 2, 3)).numpy()


@pytest.mark.parametrize("most", [256, 3])
def test_a_detector_scores_every_point_of_the_map_by_its_own_picture(run, tmp_path, monkeypatch, most):
    monkeypatch.setattr(scores, "AT_ONCE", most)
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    clear = load(copied / "models/clear")
    clean = labelled_batch(clear, 30)
    known = Examples(
        sources=clean.ids, pixels=clean.pixels, labels=clean.labels, kinds=("clean",) * 30, names=("clean",) * 30,
        attacked=np.zeros(30, bool),
    )  # fmt: skip
    scores.map_scores(copied, clear, detectors.fit(clear, known, Bright(), name="bright"), SILENT)
    shown = read_shown(copied)
    pictures = [np.array(Image.open(io.BytesIO(png)).convert("RGB")) for png in shown.images]
    assert len(shown.kinds) > 1
    assert shown.columns["score"].tolist() == pytest.approx([one.mean() for one in pictures])
