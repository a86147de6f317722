"""`heatprint atlas` as a person meets it: strategies of a network that is known, one page, and clear mistakes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import sys
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from heatprint import cli_atlas
from heatprint.atlas import cards
from heatprint.cli import main
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Batch
from heatprint.data import load_files
from heatprint.models import load, predict, save, wrap
from heatprint.signatures import Strategies
from heatprint.study.atlas_alone import judged_copies
from heatprint.study.progress import Shown

SIZE = 24
EVERY = 20  # images with a red footer, with a red bar at the left, and with neither
HOSTILE = "<img src=x onerror=alert(1)> [red].png"


class Red(nn.Module):
    """Calls an image dogs where anything is redder than it is green."""

    def __init__(self) -> None:
        super().__init__()
        self.redness = nn.Conv2d(3, 1, 1)
        self.redness.weight.data = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1)
        self.redness.bias.data = torch.tensor([-0.2])
        self.total = nn.Linear(SIZE * SIZE, 2)
        self.total.weight.data = torch.stack([torch.zeros(SIZE * SIZE), torch.ones(SIZE * SIZE)])
        self.total.bias.data = torch.tensor([10.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 2]."""
        logits: Tensor = self.total(torch.relu(self.redness(x)).flatten(1))
        return logits


def red() -> Classifier:
    return wrap(Red(), classes=("cats", "dogs"), size=SIZE)


def drawn(kind: str, number: int) -> np.ndarray:
    """A grey image, uint8 [SIZE, SIZE, 3], with a red bar of its own length where the kind has one."""
    rng = np.random.default_rng([number, len(kind)])
    image = np.repeat(rng.integers(90, 160, (SIZE, SIZE, 1)), 3, axis=2)
    start, end = rng.integers(0, 5), rng.integers(SIZE - 5, SIZE)
    bar = {"footer": (slice(SIZE - 3, SIZE - 1), slice(start, end)), "left": (slice(start, end), slice(1, 3))}
    if kind in bar:
        image[bar[kind]] = np.array([200, 20, 20]) + rng.integers(0, 40, image[bar[kind]].shape)
    return image.astype(np.uint8)


def written(folder: Path, kinds: dict[str, int], *, flat: bool = False) -> Path:
    """Images of kinds as PNG files; those with a bar are dogs."""
    for kind, count in kinds.items():
        place = folder if flat else folder / ("cats" if kind == "plain" else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(drawn(kind, number)).save(place / f"{kind} {number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def animals(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("images") / "animals", {"footer": EVERY, "left": EVERY, "plain": EVERY})


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models") / "model"
    save(load("vgg-slim", classes=("cats", "dogs"), size=32, seed=1), place)
    return place


@pytest.fixture
def known(monkeypatch) -> None:
    """Whatever the model is called, it is the network that looks for red."""
    monkeypatch.setattr(cli_atlas, "read_classifier", lambda *_: red())


@pytest.fixture
def heatprint(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder; standard output and standard error come back."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["heatprint", "atlas", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == status, said.err
        assert "Traceback" not in said.err
        return said

    return run


class Seen(HTMLParser):
    """What a browser makes of a page: its words, its elements with their attributes, its terms with their values."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.elements, self.terms = "", [], []
        self._hidden = self._term = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")
        if tag in ("dt", "dd"):
            self.terms.append("")
            self._term = True

    def handle_endtag(self, tag):
        self._hidden = False
        self._term &= tag not in ("dt", "dd")

    def handle_data(self, data):
        self.words += "" if self._hidden else data
        if self._term:
            self.terms[-1] += f" {data}"

    def facts(self, name: str) -> list[str]:
        """Every value of a term, in the order of the page."""
        pairs = zip(self.terms[::2], self.terms[1::2], strict=True)
        return [" ".join(value.split()) for term, value in pairs if " ".join(term.split()) == name]


def page(path: Path) -> Seen:
    return Seen(path.read_text(encoding="utf-8"))


@pytest.fixture
def plain(tmp_path) -> Path:
    """Images without a bar: no relevance at all, so one strategy and little to compute."""
    return written(tmp_path / "few", {"plain": 12})


@pytest.fixture(scope="module")
def told(animals, tmp_path_factory) -> tuple[str, Path]:
    """What is printed of the images and of copies whose footers are gone, and the folder of the page."""
    root = tmp_path_factory.mktemp("told")
    copies = written(root / "blurred", {"footer": EVERY, "left": EVERY, "plain": EVERY})
    for path in copies.glob("dogs/footer*"):
        path.write_bytes((copies / "cats" / path.name.replace("footer", "plain")).read_bytes())
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(cli_atlas, "read_classifier", lambda *_: red())
        patch.chdir(root)
        patch.setattr(sys, "argv", ["heatprint", "atlas", str(animals), "--model", "red", "--against", str(copies)])
        with pytest.raises(SystemExit):
            main()
    return out.getvalue(), root


def test_strategies_are_found_and_their_counterfactuals_printed(told):
    said, root = told
    assert re.search(r"^dogs: 40 images; strategies proposed: 2; stability 1\.00, separability \d", said, re.M)
    assert "cats: 20 images; strategies proposed: 1 (not clustered: maps that differ: 1, fewer than 12); " in said
    lines = re.findall(
        r"^  (dogs [12]) \(20 images, suspicion ([\d.]+)\): (\d+) % of the image; removed, 20/20 = 100 % leave dogs "
        r"\(control: (\d+)/20 = .*\); pasted, 20/20 = 100 % turn to it \(control: 0/20 = 0 %\)$", said, re.M,
    )  # fmt: skip
    assert {name for name, *_ in lines} == {"dogs 1", "dogs 2"}, said
    assert float(lines[0][1]) >= float(lines[1][1]) > 0.2
    assert all(3 <= int(area) <= 20 and int(control) < 10 for _, _, area, control in lines)
    assert "  cats 1 (20 images, suspicion 0.00): no region to test" in said
    seen = page(root / "atlas.html")
    assert seen.facts("purity") == ["100.0 % 20/20 [83.9, 100.0]"] * 3
    assert seen.facts("region removed: leaves the class") == ["100.0 % 20/20 [83.9, 100.0]"] * 2
    medoids = re.findall(r"dogs/(footer|left) \d+\.png", seen.words)
    assert sorted(medoids) == ["footer"] * 3 + ["left"] * 3
    assert len(set(medoids[:3])) == len(set(medoids[3:])) == 1
    assert [tag for tag, _ in seen.elements].count("svg") > 2


def test_attacked_copies_give_what_held_and_where_they_went_but_no_gains(told):
    said, root = told
    assert re.search(r"^blurred: 60 images; \d+/60 = \d+ % stayed in their strategy$", said, re.M)
    seen = page(root / "atlas.html")
    held = seen.facts("still right after blurred")
    assert sorted(held) == ["0.0 % 0/20 [0.0, 16.1]"] + ["100.0 % 20/20 [83.9, 100.0]"] * 2
    assert set(seen.facts("blurred, median gain to fall")) == {"–"}
    assert sorted(seen.facts("blurred, mostly called")) == ["cats (20)", "–", "–"]
    assert "60 of these images have an attacked copy. How it was made is not known" in seen.words
    assert "Where attacks move the maps" in seen.words


def test_the_page_loads_nothing_and_runs_its_own_script_alone(told):
    place = told[1] / "atlas.html"
    assert place.stat().st_size < 1_000_000
    seen = page(place)
    policy = next(of["content"] for tag, of in seen.elements if of.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    script = re.search(r"<script>(.*?)</script>", place.read_text(encoding="utf-8"), re.S)
    assert script
    own = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy.endswith(f"; script-src 'sha256-{own}'")
    assert [tag for tag, _ in seen.elements].count("script") == 1
    for _, attributes in seen.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_a_page_is_never_replaced_unasked_and_never_half_written(known, heatprint, plain, tmp_path, monkeypatch):
    place = tmp_path / "atlas.html"
    place.write_text("mine")
    assert "atlas.html exists" in heatprint(plain, "--model", "red", status=2).err
    assert place.read_text() == "mine"

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stopped)  # the last moment before the page has its name
        heatprint(plain, "--model", "red", "--force", status=130)
    assert place.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas.html", "few"]
    heatprint(plain, "--model", "red", "--force")
    heatprint(plain, "--model", "red", "--out", "again.html")
    assert "the network calls cats" in page(place).words
    assert place.read_bytes() == (tmp_path / "again.html").read_bytes()


def test_without_class_folders_nothing_is_said_of_true_classes(known, heatprint, tmp_path):
    flat = written(tmp_path / "flat", {"footer": 8, "left": 8, "plain": 8}, flat=True)
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in flat.glob("footer*"):
        (copies / path.name).write_bytes((flat / path.name.replace("footer", "plain")).read_bytes())
    said = heatprint(flat, "--model", "red", "--against", copies)
    assert "The true classes are not known, so there is no purity and no accuracy." in said.err
    assert "folder with the name of a class says what its images are: cats, dogs" in said.err
    assert "16 images have no attacked copy" in said.err
    seen = page(tmp_path / "atlas.html")
    assert "The true classes are not known" in seen.words
    assert set(seen.facts("purity") + seen.facts("accuracy")) == {"– not measured"}
    assert set(seen.facts("true classes")) == {"not known"}
    held = [re.search(r" (\d+)/(\d+) ", fact) for fact in seen.facts("same answer after copies")]
    assert sorted(int(one[2]) for one in held if one and one[1] == "0")
    assert "still right" not in seen.words


def test_copies_are_judged_by_what_is_known():
    """A right image that falls, one that holds, one that was wrong before; and two of unknown class."""
    kinds = [("footer", "plain", 1), ("footer", "left", 1), ("plain", "footer", 1), ("plain", "left", -1),
             ("left", "left", -1)]  # fmt: skip
    clean, changed = (
        torch.from_numpy(np.stack([drawn(pair[side], n).transpose(2, 0, 1) for n, pair in enumerate(kinds)]))
        for side in (0, 1)
    )
    labels = torch.tensor([label for *_, label in kinds])
    batch = Batch(ids=tuple("abcde"), pixels=clean, labels=labels)
    found = judged_copies(red(), batch, batch.with_pixels(changed))
    assert found.skipped.tolist() == [False, False, True, False, False]
    assert found.success.tolist() == [True, False, False, True, False]
    assert found.clean.labels.tolist() == [1, 1, 1, 0, 1]
    assert found.distance.l0.tolist() == (clean != changed).any(1).flatten(1).sum(1).tolist()
    for unknown in (found.step, found.first_hit, found.forwards, found.backwards):
        assert unknown.tolist() == [-1] * 5
    assert torch.equal(found.logits, predict(red(), changed))
    with pytest.raises(InvalidInput, match="same ids"):
        judged_copies(red(), batch, batch.take([1, 0, 2, 3, 4]))


def test_cards_count_the_images_whose_class_is_known():
    pixels = torch.from_numpy(np.stack([drawn("left", n).transpose(2, 0, 1) for n in range(5)]))
    nothing = np.empty(0)
    one = Strategies(labels=np.zeros(5, dtype=np.int64), count=1, proposed=1, eigenvalues=nothing, null=nothing,
                     embedding=np.empty((5, 0)), stability=np.nan, separability=0.0)  # fmt: skip
    for labels, (counted, pure, right) in (
        ([1, 1, 0, -1, -1], ({1: 2, 0: 1}, (2, 3), (2, 3))),
        ([-1, -1, -1, -1, 0], ({0: 1}, (1, 1), (0, 1))),
        ([-1] * 5, ({}, None, None)),
    ):
        batch = Batch(ids=tuple("abcde"), pixels=pixels, labels=torch.tensor(labels))
        (card,) = cards(one, np.ones((5, 8, 8), np.float32), batch, np.ones(5, dtype=np.int64))
        assert card.labels == counted
        for told, expected in ((card.purity, pure), (card.accuracy, right)):
            assert (told and (told["count"], told["total"])) == expected


def test_one_class_and_a_forced_number_of_strategies(known, heatprint, tmp_path):
    dogs = written(tmp_path / "one", {"footer": 14, "left": 14})
    said = heatprint(dogs, "--model", "red", "--strategies", 3)
    assert "dogs: 28 images; strategies proposed: 2 (3 shown, exploratory)" in said.out
    assert said.out.count("; no other class to paste it on") == 3
    assert "cats:" not in said.out


def test_hostile_names_are_words(known, heatprint, plain, tmp_path):
    folder = plain.rename(tmp_path / "<b onclick=alert(1)>[red]")
    for path in list(folder.rglob("*.png")):
        path.rename(path.with_name(f"{path.stem} {HOSTILE}"))
    (folder / "cats" / "<i>torn.png").write_bytes(b"torn")
    with open(os.fsencode(folder / "cats") + b"/\xff.png", "wb") as odd:  # noqa: PTH123, a name that is not UTF-8
        odd.write((folder / "cats" / f"plain 00 {HOSTILE}").read_bytes())
    said = heatprint(folder, "--model", "<u>model</u>", "--against", folder, "--out", tmp_path / "o.html")
    assert "skipped cats/<i>torn.png" in said.err
    seen = page(tmp_path / "o.html")
    assert f"cats/plain 00 {HOSTILE}" in seen.words
    assert "What <u>model</u> relies on in <b onclick=alert(1)>[red]" in seen.words
    assert "Left out: cats/<i>torn.png (not an image file of a known kind" in seen.words
    assert not [of for _, of in seen.elements if {"onclick", "onerror"} & set(of)]
    assert not [tag for tag, _ in seen.elements if tag in ("u", "iframe")]


def test_progress_takes_names_as_words():
    for terminal in (True, False):
        sink = io.StringIO()
        console = Console(file=sink, force_terminal=terminal, width=200)
        with Shown(console).step("where [/red] moves them") as progress:
            progress(1, 2, "[/blue] 1")
        assert "where [/red] moves them" in sink.getvalue()


def test_a_saved_model_is_read(saved, animals, heatprint, tmp_path):
    said = heatprint(animals, "--model", saved, "--limit", 14, "--side", 8, "--method", "gradient")
    batch = load_files(animals, size=32, classes=("cats", "dogs"), limit=14).batch
    answers = predict(load(saved), batch.pixels).argmax(1).tolist()
    for label, name in enumerate(("cats", "dogs")):
        assert (f"{name}: {answers.count(label)} images" in said.out) == (label in answers)
    assert "images 14 · explainer gradient · seed 0" in page(tmp_path / "atlas.html").words


def test_mistakes_are_one_message(known, plain, heatprint, tmp_path):
    (tmp_path / "bare").mkdir()
    lone = written(tmp_path / "lone", {"footer": 1})
    (tmp_path / "page.html").mkdir()
    for arguments, told in (
        ((tmp_path / "nowhere",), "there is no such folder"),
        ((tmp_path / "bare",), "folder without images"),
        ((lone / "dogs/footer 00.png",), "For one image: heatprint explain"),
        ((lone,), "atlas: 1 image; strategies are groups"),
        ((plain, "--limit", 3), "atlas: 3 images; strategies are groups"),
        ((plain, "--out", "atlas.png"), "must name an HTML file"),
        ((plain, "--out", tmp_path / "page.html"), "must name an HTML file"),
        ((plain, "--out", lone / "dogs/footer 00.png" / "deep/x.html"), "footer 00.png is a file. Name another --out"),
        ((plain, "--against", tmp_path / "nowhere"), "there is no such folder"),
        ((plain, "--against", tmp_path / "bare"), "no usable image"),
        ((plain, "--against", lone), "has the relative path of one"),
        ((plain, "--method", "gradeint"), "Did you mean 'gradient'"),
    ):
        assert told in heatprint(*arguments, "--model", "red", status=2).err.replace("\n", " "), arguments
    assert not (tmp_path / "atlas.html").exists()


def test_models_that_cannot_be_read_are_one_message(plain, heatprint, tmp_path):
    (tmp_path / "bare").mkdir()
    for model, told in (
        (tmp_path / "bare", "holds no card.json"),
        (tmp_path / "runs/first", "there is no folder"),
        ("vgg-slim", "name its classes"),
    ):
        assert told in heatprint(plain, "--model", model, status=2).err.replace("\n", " "), model
