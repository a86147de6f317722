"""`heatprint explain` as a person meets it: pictures, numbers, and messages instead of tracebacks."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heatprint.cli import main
from heatprint.core.errors import InvalidInput
from heatprint.data import load_files
from heatprint.data.partners import partners
from heatprint.explainers import compare, make
from heatprint.explainers.trust import check
from heatprint.models import load, predict, save
from heatprint.report.explained import Picture, pair_png, picture_png
from heatprint.report.measures import told, told_facts, told_spread

SIDE = 64
METHOD = ("--method", "gradient")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A saved model, and drawn animals in the layout class per folder."""
    from heatprint.data.sources import write_menagerie

    root = tmp_path_factory.mktemp("home")
    save(load("vgg-slim", classes=("cats", "dogs"), size=SIDE, seed=1), root / "model")
    write_menagerie(root / "data", train=2, test=4, size=SIDE)
    return root


@pytest.fixture
def heatprint(monkeypatch, capsys):
    """Run the command line in this process; the status, standard output and standard error come back."""

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["heatprint", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == status, said.err
        assert "Traceback" not in said.err
        return said

    return run


@pytest.fixture
def cat(home, tmp_path) -> Path:
    """One photograph in a folder of its own, so that pictures beside it stay apart."""
    place = tmp_path / "cats" / "one.png"
    place.parent.mkdir()
    place.write_bytes((home / "data/test_set/cats/cat.0.png").read_bytes())
    return place


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_help_wakes_nothing_heavy():
    code = "import sys\ntry:\n from heatprint.cli import main; main()\nfinally:\n print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code, "explain", "--help"], capture_output=True, text=True, check=True)
    assert "--against" in out.stdout
    assert out.stdout.rstrip().endswith("[]")


def test_an_image_is_drawn_beside_itself_and_never_replaced_unasked(home, heatprint, cat):
    said = heatprint("explain", cat, "--model", home / "model", *METHOD)
    place = cat.with_name("one.heat.png")
    first = place.read_bytes()
    model = load(home / "model")
    answer = model.classes[int(predict(model, load_files(cat, size=SIDE, classes=model.classes).batch.pixels).argmax())]
    assert re.search(rf"one\.png: {answer} \d+\.\d %; heat map of {answer}: .*one\.heat\.png", said.out)
    assert opened(place).shape[1] > 3 * 300
    told_ = heatprint("explain", cat, "--model", home / "model", *METHOD, status=2).err
    assert "one.heat.png exists" in told_
    assert "--force" in told_
    heatprint("explain", cat, "--model", home / "model", *METHOD, "--force")
    assert place.read_bytes() == first
    assert not list(cat.parent.glob(".*"))


def test_an_image_is_never_replaced_by_its_own_picture(home, heatprint, cat):
    before = cat.read_bytes()
    heatprint("explain", cat, "--model", home / "model", *METHOD, "--out", cat, "--force", status=2)
    assert cat.read_bytes() == before
    heatprint("explain", cat, "--model", home / "model", *METHOD, "--out", cat.with_suffix(".jpg"), status=2)


def test_a_folder_gives_a_folder_of_pictures(home, heatprint, tmp_path):
    bad = tmp_path / "flat"
    bad.mkdir()
    (bad / "good.png").write_bytes((home / "data/test_set/cats/cat.0.png").read_bytes())
    (bad / "empty.png").write_bytes(b"")
    (bad / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    said = heatprint("explain", bad, "--model", home / "model", *METHOD)
    assert [p.name for p in (tmp_path / "flat.heat").iterdir()] == ["good.png.png"]
    assert "skipped empty.png: the file is empty" in said.err
    assert "skipped torn.jpg" in said.err
    heatprint("explain", home / "data/test_set", "--model", home / "model", *METHOD, "--out", tmp_path / "o")
    assert sorted(p.relative_to(tmp_path / "o").as_posix() for p in (tmp_path / "o").rglob("*.png")) == [
        f"{kind}s/{kind}.{n}.png.png" for kind in ("cat", "dog") for n in (0, 1)
    ]
    heatprint(
        "explain", home / "data/test_set", "--model", home / "model", *METHOD, "--out", tmp_path / "p", "--limit", 2
    )
    assert sorted(p.parent.name for p in (tmp_path / "p").rglob("*.png")) == ["cats", "dogs"]


@pytest.mark.parametrize(
    ("target", "explained"),
    [("true", "cats"), ("dogs", "dogs"), ("contrast", "cats against dogs"), ("runner-up", None)],
)
def test_what_is_explained_is_what_was_asked_for(home, heatprint, cat, target, explained):
    out = heatprint("explain", cat, "--model", home / "model", *METHOD, "--target", target).out
    answer = re.search(r": (\w+) \d", out)[1]
    other = {"cats": "dogs", "dogs": "cats"}[answer]
    assert f"heat map of {explained or other}:" in out


def attacked(cat: Path, *places: tuple[int, int]) -> Path:
    """The image with a few pixels turned yellow."""
    pixels = np.asarray(Image.open(cat).convert("RGB")).copy()
    for place in places:
        pixels[place] = (255, 240, 0)
    path = cat.parent.parent / "attacked.png"
    Image.fromarray(pixels).save(path)
    return path


def test_before_and_after_prints_the_numbers_of_the_pair(home, heatprint, cat):
    copy = attacked(cat, (10, 20), (11, 20))
    out = heatprint("explain", cat, "--model", home / "model", *METHOD, "--against", copy).out
    model = load(home / "model")
    clean = load_files(cat, size=SIDE, classes=model.classes).batch
    other = clean.with_pixels(load_files(copy, size=SIDE, classes=model.classes).batch.pixels)
    row = compare(model, clean, other, make("gradient")).rows()[0]
    assert row["changed"] == 2
    printed = dict(re.findall(r"^(.*?)  +(\S+(?:\xa0\S+)?)$", out, flags=re.MULTILINE))
    assert printed["rank correlation"] == told("rank_correlation", row["rank_correlation"])
    assert printed["relevance moved"] == told("moved", row["moved"])
    assert printed["peak to nearest changed pixel"] == told("peak_distance", row["peak_distance"])
    assert opened(cat.with_name("one.heat.png")).shape[1] > 5 * 300


def test_an_attacked_image_of_another_size_is_told_of(home, heatprint, cat, tmp_path):
    Image.open(cat).resize((80, 80)).save(tmp_path / "large.png")
    said = heatprint("explain", cat, "--model", home / "model", *METHOD, "--against", tmp_path / "large.png")
    assert "1 attacked image(s) were not 64x64" in said.err


def test_folders_are_paired_by_their_relative_paths(home, heatprint, tmp_path):
    copies = tmp_path / "copies"
    for path in (home / "data/test_set/cats").iterdir():
        (copies / "cats").mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").save(copies / "cats" / f"{path.stem}.bmp")
    said = heatprint(
        "explain",
        home / "data/test_set",
        "--model",
        home / "model",
        *METHOD,
        "--against",
        copies,
        "--out",
        tmp_path / "o",
    )
    assert "2 images have no attacked copy" in said.err
    assert len(list((tmp_path / "o").rglob("*.png"))) == 2
    assert re.search(r"relevance moved +0\xa0% \[0, 0\] +2$", said.out, flags=re.MULTILINE)
    (tmp_path / "none").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "none" / "x.png")
    heatprint(*("explain", home / "data/test_set", "--model", home / "model", "--against", tmp_path / "none"), status=2)


def test_pairs_are_those_of_the_same_name_and_else_of_the_same_stem():
    clean, attacked = ["a/x.jpg", "a/x.png", "a/y.png", "b/y.png"], ["a/x.png", "a/x.bmp", "a/y.bmp", "c/y.png"]
    assert partners(clean, attacked) == {"a/x.png": "a/x.png", "a/x.jpg": "a/x.bmp", "a/y.png": "a/y.bmp"}
    for ours, theirs in ((["x.png", "x.jpg"], ["x.bmp"]), (["x.png"], ["x.bmp", "x.jpg"])):
        with pytest.raises(InvalidInput, match="differ in their suffix only"):
            partners(ours, theirs)
    assert partners(["x.png"], ["y.bmp", "y.jpg"]) == {}


def test_no_picture_ever_replaces_an_input(home, heatprint, tmp_path):
    cats, copies = tmp_path / "cats", tmp_path / "copies"
    for folder in (cats, copies):
        folder.mkdir()
        for name in ("a.png", "a.png.png"):
            (folder / name).write_bytes((home / "data/test_set/cats/cat.0.png").read_bytes())
    model = ("--model", home / "model", *METHOD, "--force")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    for arguments in (
        (cats / "a.png", "--against", copies / "a.png", "--out", copies / "a.png"),
        (cats, "--out", cats),
        (cats, "--against", copies, "--out", copies),
        (cats, "--against", copies, "--out", copies, "--limit", 1),
    ):
        told_ = heatprint("explain", *arguments, *model, status=2).err.replace("\n", " ")
        assert "would replace an image that was given" in told_, arguments
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_what_a_method_says_of_its_map_is_told(home, heatprint, cat):
    assert told_facts({"r2": 0.8123, "guaranteed": 1.0, "exact": 0.0, "precision_low": 0.97}) == (
        "r2 0.81, guaranteed yes, exact no, precision low 0.97"
    )
    arguments = ("--model", home / "model", "--method", "integrated_gradients", "--force")
    out = heatprint("explain", cat, *arguments).out
    assert re.search(r"heat map of \w+ \(completeness [−\d.e]+\): ", out)
    out = heatprint("explain", cat, "--against", cat, *arguments).out
    assert len(re.findall(r"(?:before|after) \(completeness [−\d.e]+\)", out)) == 2


def test_the_check_is_of_the_class_that_is_drawn_and_of_the_clean_images(home, heatprint, cat, monkeypatch):
    module = sys.modules[check.__module__]  # its name in the package is the function
    asked, real = [], module.check
    monkeypatch.setattr(module, "check", lambda *a, **k: asked.append(k["target"]) or real(*a, **k))
    arguments = ("explain", cat, "--model", home / "model", *METHOD, "--force", "--check")
    heatprint(*arguments, "--target", "runner-up")
    out = heatprint(*arguments, "--target", "dogs", "--against", cat).out
    assert "checked are the clean images: the map" in out
    assert asked[0] == "runner-up"
    assert asked[1].tolist() == [1]
    cat.with_name("one.heat.png").unlink()
    assert "no single class" in heatprint(*arguments, "--target", "contrast", status=2).err
    assert not cat.with_name("one.heat.png").exists()


def test_the_plan_names_every_layer(home, heatprint, cat):
    out = heatprint("explain", cat, "--model", home / "model", "--plan").out
    assert re.search(r"^layer +operator +rule", out, flags=re.MULTILINE)
    assert re.search(r"^0\.0 +conv +Flat", out, flags=re.MULTILINE)
    out = heatprint("explain", cat, "--model", home / "model", *METHOD, "--plan", "--force").out
    assert "gradient has no plan of rules" in out


def test_mistakes_are_one_message(home, heatprint, cat, tmp_path):
    model = ("--model", home / "model")
    lone = tmp_path / "lone.png"
    lone.write_bytes(cat.read_bytes())
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "bare").mkdir()
    for arguments, told_ in (
        ((tmp_path / "nowhere.png", *model), "no such file"),
        ((tmp_path / "text.png", *model), "not an image file of a known kind"),
        ((tmp_path / "bare", *model), "folder without images"),
        ((cat, *model, "--target", "cat"), "Did you mean 'cats'"),
        ((lone, *model, "--target", "true"), "needs the true class"),
        ((lone, *model, "--target", "contrast"), "needs the true class"),
        ((cat, *model, "--method", "gradeint"), "Did you mean 'gradient'"),
        ((cat, *model, "--against", tmp_path / "bare"), "no usable image"),
        ((cat, *model, "--against", home / "data"), "both be files"),
        ((cat, *model, "--classes", "a,b"), "classes and weights of its own"),
        ((cat, "--model", tmp_path / "bare"), "holds no card.json"),
        ((cat, "--model", tmp_path / "runs/first"), "there is no folder"),
        ((cat, "--model", "vgg-slam", "--classes", "a,b"), "Did you mean 'vgg-slim'"),
        ((cat, "--model", "vgg-slim"), "name its classes"),
        ((cat, *model, "--out", cat.with_suffix(".jpg")), "pictures are PNG files"),
    ):
        assert told_ in heatprint("explain", *arguments, status=2).err.replace("\n", " "), arguments


def test_a_model_by_name_takes_weights_and_says_when_it_has_none(home, heatprint, cat, tmp_path):
    (tmp_path / "names.txt").write_text("cats\ndogs\n")
    named = ("--model", "vgg-slim", "--classes", tmp_path / "names.txt", "--size", SIDE)
    assert "fresh random weights" in heatprint("explain", cat, *named, *METHOD).err
    given = heatprint("explain", cat, *named, "--weights", home / "model/model.safetensors", *METHOD, "--force")
    assert "random" not in given.err


def example(seed: int = 0, **changes: object) -> Picture:
    rng = np.random.default_rng(seed)
    image, heat = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8), rng.normal(size=(16, 16))
    fields = {"image": image, "heat": heat, "name": "a", "answer": "cats", "probability": 0.9, "explained": "cats"}
    return Picture(**{**fields, **changes})


NUMBERS = dict.fromkeys(("rank_correlation", "cosine", "moved", "on_changed", "clean_on_changed", "chance"), 0.5)


def test_equal_pictures_are_equal_bytes_and_hostile_names_are_words():
    assert picture_png(example(), "m") == picture_png(example(), "m")
    odd = example(name="$\\frac{1}{$ <b> " + 300 * "x", answer="$\\nope$", explained="$")
    assert (
        Image.open(io.BytesIO(picture_png(odd, "m"))).size == Image.open(io.BytesIO(picture_png(example(), "m"))).size
    )
    assert picture_png(example(name="猫の写真"), "m")  # not in the font: boxes, and no warning
    assert picture_png(example(facts="r2 0.81"), "m") != picture_png(example(), "m")
    flat = example(heat=np.zeros((16, 16)))
    assert picture_png(flat, "m")
    assert pair_png(flat, flat, "m", dict.fromkeys(NUMBERS, float("nan")))


def test_the_maps_of_a_pair_share_one_scale_with_white_at_zero():
    """Where the attacked map is a tenth of the clean one, it is drawn a tenth as strong."""
    heat = np.zeros((16, 16))
    heat[:8], heat[8:] = 1.0, -1.0
    pixels = opened(io.BytesIO(pair_png(example(heat=heat), example(heat=0.1 * heat), "m", NUMBERS)))
    height, width = pixels.shape[:2]
    top, bottom = height * 2 // 5, height * 7 // 10
    strong, weak, difference = (pixels[top, int(width * x)].astype(int) for x in (0.3, 0.7, 0.9))
    assert strong[0] > strong[2] + 50  # red above zero
    assert weak.min() > 200 > strong.min()
    assert difference[2] > difference[0] + 50  # attacked - clean is negative there
    assert (pixels[bottom, int(width * 0.3)].astype(int) * [1, 0, -1]).sum() < -50


def test_few_changed_pixels_are_marked_and_many_are_not():
    clean = example()
    spot, noise = clean.image.copy(), clean.image ^ 1
    spot[3, 4] ^= 255
    plain = pair_png(clean, clean, "m", NUMBERS)
    for image, differs in ((spot, True), (noise, False)):
        drawn = opened(io.BytesIO(pair_png(clean, example(image=image), "m", NUMBERS)))
        heat = (slice(90, 480), slice(int(drawn.shape[1] * 0.61), int(drawn.shape[1] * 0.78)))  # the attacked heat map
        assert (not np.array_equal(drawn[heat], opened(io.BytesIO(plain))[heat])) == differs


def test_numbers_are_told_with_their_units():
    assert told("moved", 0.123456) == "12.3\xa0%"
    assert told("rank_correlation", -0.5) == "−0.50"
    assert told("peak_distance", 3.0) == "3.0\xa0px"
    assert told("chance", float("nan")) == told("chance", None) == "–"
    assert told_spread("cosine", {"count": 0, "median": None, "low": None, "high": None}) == "–"


def test_files_are_labelled_by_the_nearest_folder_of_a_class_name(home, cat):
    found = load_files(home / "data", size=SIDE, classes=("dogs", "cats"))
    assert [found.classes[k] in name for k, name in zip(found.batch.labels, found.batch.ids, strict=True)] == [True] * 6
    assert load_files(cat, size=SIDE, classes=("dogs", "cats")).batch.labels.tolist() == [1]
    assert load_files(cat, size=SIDE, classes=("a", "b")).batch.labels.tolist() == [-1]
    assert torch.equal(
        load_files(home / "data/test_set", size=SIDE, classes=("cats", "dogs")).batch.labels, torch.tensor([0, 0, 1, 1])
    )
