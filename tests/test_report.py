from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heatprint.core.errors import StoreError
from heatprint.core.store import Part, Store, write_json
from heatprint.report import points as points_module
from heatprint.report import report
from heatprint.report.bought import bought
from heatprint.report.charts import histogram
from heatprint.report.pictures import heat_uri, perturbation_uri, shared_scale
from heatprint.report.points import COLUMNS as POINT_COLUMNS
from heatprint.report.read import TILE_COLUMNS, read_run
from heatprint.report.summary import attacked, withstood

HOSTILE = "cats/<script>alert(1)</script>&\"'.png"
ATTACKS = ("fgsm", "one-pixel")


def share(count: int, total: int) -> dict[str, Any] | None:
    if not total:
        return None
    p, z = count / total, 1.96
    middle, half = p + z * z / (2 * total), z * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low, high = max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))
    return {"count": count, "total": total, "share": round(p, 6), "low": round(low, 6), "high": round(high, 6)}


def taxonomy(knowledge: str, norm: str, paper: str) -> dict[str, str]:
    return {
        "knowledge": knowledge,
        "specificity": "targeted or untargeted",
        "frequency": "iterative",
        "norm": norm,
        "paper": paper,
    }


def settings(classes: list[str], skipped: list[dict[str, str]]) -> dict[str, Any]:
    arms = {"clear": "clear", "clean_control": "clean control"}
    arms |= {"fgsm_immune": "FGSM_immune", "one-pixel_immune": "One-pixel_immune"}
    flat = [{"layer": f"0.{n}", "operator": "conv", "rule": "AlphaBeta(1, 0)" if n else "Flat()"} for n in range(6)]
    return {
        "heatprint": "0.1.0",
        "recipe_name": "quick",
        "seed": 0,
        "recipe": {"data": {"source": "menagerie", "size": 64}, "train": {"epochs": 8, "rate": 0.01}},
        "versions": {"python": "3.11.9", "torch": "2.6.0"},
        "device": "cpu",
        "data": {
            "source": "menagerie",
            "name": "menagerie",
            "classes": classes,
            "train": 2000,
            "test": 300,
            "fingerprint": "ab" * 20,
            "skipped": skipped,
        },
        "models": {
            name: {"title": title, "architecture": "vgg-slim", "digest": "cd" * 20, "parameters": 321858}
            for name, title in arms.items()
        },
        "attacks": {
            "fgsm": {
                "title": "FGSM",
                "method": "fgsm",
                "settings": {"eps": 16 / 255, "ramp": True},
                "taxonomy": taxonomy("white box", "linf", "Goodfellow, Shlens, Szegedy 2015"),
            },
            "one-pixel": {
                "title": "one-pixel",
                "method": "one-pixel",
                "settings": {"pixels": 1, "population": 400},
                "taxonomy": taxonomy("score", "l0", "Su, Vargas, Sakurai 2019"),
            },
            "noise": {
                "title": "noise",
                "method": "noise",
                "settings": {"eps": 16 / 255},
                "taxonomy": taxonomy("none", "linf", "control"),
            },
            "pgd": {
                "title": "PGD",
                "method": "pgd",
                "settings": {"eps": 8 / 255, "steps": 40},
                "taxonomy": taxonomy("white box", "linf", "Madry et al. 2018"),
            },
        },
        "explainer": {"method": "lrp.sequential_preset_a_flat", "settings": {"epsilon": 0.1}, "plan": flat},
        "signature": {"method": "lrp", "settings": {"layer": "last"}},
        "embedding": {"method": "umap", "settings": {"seed": 0}},
    }


def metrics(classes: list[str]) -> dict[str, Any]:
    clean = {"clear": 257, "clean_control": 261, "fgsm_immune": 252, "one-pixel_immune": 259}
    fell = {"fgsm": 203, "one-pixel": 97, "noise": 3}
    arms = []
    for n, (name, right) in enumerate(clean.items()):
        attacks = {}
        for attack, count in fell.items():
            static = 0 if name == "clear" else min(count, 31 + 47 * n)
            won = count if name == "clear" else max(count - 19 * n, 1)
            attacks[attack] = {
                "mixture": share(right + static, 300 + count),
                "static": share(static, count),
                "reattacked": share(right - won, 300),
                "success": share(won, right),
            }
        errors = {
            kind: [
                {"class": c, "false_positives": share(13 + n + k, 150), "false_negatives": share(17 + n - k, 150)}
                for k, c in enumerate(classes)
            ]
            for kind in ("clean", *fell)
        }
        curve = [
            {"epoch": e, "size": 32 if e < 4 else 64, "loss": 0.7 * 0.8**e, "accuracy": 0.95 - 0.4 * 0.7**e}
            for e in range(8)
        ]
        strong = {"attack": "pgd", "robust": share(n, 300)}
        arms.append(
            {"name": name, "clean": share(right, 300), "attacks": attacks, "strong": strong, "errors": errors}
            | {"training": curve}
        )
    rows = [
        ("clear", "clear_test", None),
        ("clear", "clear+FGSM_test", "fgsm"),
        ("clear", "clear+OP_test", "one-pixel"),
    ]
    rows += [("fgsm_immune", "clear+FGSM_test", "fgsm"), ("one-pixel_immune", "clear+OP_test", "one-pixel")]
    by_name = {arm["name"]: arm for arm in arms}
    table = [
        {
            "model": model,
            "test_set": test,
            "attack": attack,
            "share": by_name[model]["attacks"][attack]["mixture"] if attack else by_name[model]["clean"],
        }
        for model, test, attack in rows
    ]
    steps = {"fgsm": {str(k): 96 // k for k in range(1, 14)} | {"-1": 54}, "noise": {"-1": 257}}
    steps |= {"one-pixel": {str(k): 1 + 40 // (k + 1) for k in range(0, 70)} | {"-1": 160}}
    summaries = {
        name: {
            "test": {
                "images": 300,
                "skipped": 43,
                "success": share(fell.get(name, 256), 257),
                "step": {"median": 3.0 if name in ATTACKS else None, "histogram": steps.get(name, {})},
                "l0": {"median": 1.0 if name == "one-pixel" else 4001.0},
                "l2": {"median": 0.731},
                "linf": {"median": 5.0},
                "forwards": 51234,
                "backwards": 257,
                "trace": {"unflip": 4} if name == "fgsm" else {},
            },
            "train": {
                "images": 2000,
                "skipped": 120,
                "success": share(1400, 1880),
                "forwards": 90000,
                "backwards": 1880,
            },
        }
        for name in (*fell, "pgd")
    }
    return {
        "recipe": "quick",
        "seed": 0,
        "classes": classes,
        "table1": table,
        "arms": arms,
        "attacks": summaries,
        "map": {"points": 600, "clean": 300, "attacked": 300},
    }


def figures(classes: list[str], images: list[np.ndarray], examples: int, rng: np.random.Generator) -> Part:
    """Tiles of `examples` attacked images, then of two clean ones per class."""
    rows: dict[str, list[Any]] = {name: [] for name in TILE_COLUMNS}
    pixels, heat = [], []
    side = images[0].shape[0]
    bump = np.hypot(*np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side)))

    def tile(example: int, kind: str, model: str, image: np.ndarray, wrong: bool, where: tuple[int, int]) -> None:
        own = example % len(classes)
        label, guess = classes[own], classes[(own + wrong) % len(classes)]
        name = HOSTILE if example == 0 else f"{label}/{label}.{4000 + example}.png"
        values = (example, name, label, kind, model, guess, float(rng.uniform(0.6, 1)), -1 if kind == "clean" else 3)
        for key, value in zip(rows, (*values, *where), strict=True):
            rows[key].append(value)
        pixels.append(image.transpose(2, 0, 1))
        noise = rng.normal(0, 0.01, (side, side)) * (1 + image.mean(2) / 255)
        relevance = 0.02 * np.exp(-4 * bump**2) * (-1 if wrong else 1) + noise
        if where[0] >= 0:
            relevance[where] += 0.6
        heat.append(relevance)

    for example in range(examples):
        image = images[example % len(images)]
        noisy = np.clip(image.astype(int) + 3 * rng.choice([-1, 1], image.shape), 0, 255).astype(np.uint8)
        where = (int(rng.integers(side)), int(rng.integers(side)))
        spot = image.copy()
        spot[where] = (255, 240, 0)
        tile(example, "clean", "clear", image, False, (-1, -1))
        tile(example, "fgsm", "clear", noisy, True, (-1, -1))
        tile(example, "fgsm", "fgsm_immune", noisy, False, (-1, -1))
        if example % 3 != 2:
            tile(example, "one-pixel", "clear", spot, True, where)
            tile(example, "one-pixel", "one-pixel_immune", spot, False, where)
    for example in range(examples, examples + 6 * len(classes) if examples else 0):
        tile(example, "clean", "clear", images[example % len(images)], False, (-1, -1))
    if not examples:
        return Part(rows=rows)
    return Part(rows=rows, arrays={"pixels": np.stack(pixels), "heat": np.stack(heat).astype(np.float32)})


def points(classes: list[str], count: int, rng: np.random.Generator) -> Part:
    rows: dict[str, list[Any]] = {name: [] for name in POINT_COLUMNS}
    for n in range(count):
        own = n % len(classes)
        x, y = rng.normal((3 * own, own), 1.0)
        fell = bool(rng.random() < 0.6)
        other = classes[(own + 1) % len(classes)]
        ways: list[tuple[str, str, float]] = [("clean", classes[own] if rng.random() < 0.9 or fell else other, 0.0)]
        ways += [("fgsm", other, 1.5)] if fell else []
        ways += [("one-pixel", other, 0.7)] if rng.random() < 0.3 else []
        for kind, guess, away in ways:
            name = HOSTILE if n == 0 else f"{classes[own]}/{n}.png"
            place = (x + away, y + away, x - y, y / 2)
            for key, value in zip(rows, (name, classes[own], kind, guess, *place, fell), strict=True):
                rows[key].append(value)
    return Part(rows=rows)


def build_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = ("cats", "dogs"),
    images: list[np.ndarray] | None = None,
    examples: int = 3,
    count: int = 40,
    change: dict[str, Any] | None = None,
) -> Path:
    """A finished run with invented numbers; `change` replaces keys of metrics.json."""
    rng = np.random.default_rng(7)
    images = images or [rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(2)]
    store, names = Store(folder), list(classes)
    with store.writing():
        store.memo("figures", 0, "test", lambda: figures(names, images, examples, rng))
        store.memo("global", 0, "test", lambda: points(names, count, rng))
        write_json(folder / "metrics.json", metrics(names) | (change or {}))
        skipped = [{"id": HOSTILE, "reason": "not an image"}, {"id": "dogs/x.gif", "reason": "truncated"}]
        write_json(folder / "run.json", settings(names, skipped))
    return folder


class Page(HTMLParser):
    """What a browser would make of the page: elements with attributes, tables as text, scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self._inside, self._cell = "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            (self.scripts if tag == "script" else self.styles).append("")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            (self.scripts if self._inside == "script" else self.styles)[-1] += data
            return
        self.words += data
        if self._cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(report(run).read_text(encoding="utf-8"))


def told(value: dict[str, Any], digits: int = 1) -> str:
    """A share as the tables print it."""
    interval = f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    return f"{100 * value['share']:.{digits}f}\xa0% {value['count']}/{value['total']} {interval}"


def cells(row: list[str]) -> list[str]:
    return [" ".join(cell.replace("\xa0", "~").split()).replace("~", "\xa0") for cell in row]


def test_nothing_is_asked_for_from_outside(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
        assert "url(" not in (attributes.get("style") or "")
    assert page.styles
    assert not re.search(r"url\(|@import|https?:|//[a-z]", "".join(page.styles))
    own = page.scripts[-1]
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(", own)


def test_the_policy_lets_only_the_scripts_of_the_page_run(run: Path, page: Page) -> None:
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    rule = next(part for part in policy.split(";") if "script-src" in part)
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    text = [script for kind, script in zip(kinds, page.scripts, strict=True) if kind is None]
    assert len(text) == 2
    for script in text:
        sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{sha}'" in rule
    assert "unsafe" not in rule


def test_hostile_names_stay_words(run: Path, page: Page) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert HOSTILE in page.words  # read back, it is the name again, not an element
    data = json.loads(page.scripts[0])
    assert "<" not in page.scripts[0]
    assert HOSTILE in data["id"]


def test_table_1_prints_what_was_measured(run: Path, page: Page) -> None:
    measured = json.loads((run / "metrics.json").read_text())["table1"]
    printed = [cells(row) for row in page.tables[0][1:]]
    assert len(printed) == len(measured) == 5
    for row, truth, paper in zip(printed, measured, (85.80, 58.37, 64.62, 84.15, 86.09), strict=True):
        assert row[1:] == [truth["test_set"], told(truth["share"], 2), f"{paper:.2f}\xa0%"]


def test_every_column_of_the_arms_is_printed(run: Path, page: Page) -> None:
    body = [cells(row) for row in page.tables[1][2:]]
    for arm in json.loads((run / "metrics.json").read_text())["arms"]:
        order = ("fgsm", "one-pixel", "noise")
        rows, body = body[: len(order)], body[len(order) :]
        assert rows[0][1] == told(arm["clean"])
        assert rows[0][7:] == ["PGD at 8/255 " + told(arm["strong"]["robust"]), "–not measured", "–not measured"]
        for n, attack in enumerate(order):
            columns = rows[n][2:7] if n == 0 else rows[n]
            truth = arm["attacks"][attack]
            assert columns[1:] == [told(truth[key]) for key in ("mixture", "static", "success", "reattacked")]
    assert body == []


def defended() -> dict[str, Any]:
    """The invented run with the columns of newer versions, and a defence of the recipe whose front rounds."""
    numbers = metrics(["cats", "dogs"])
    every = ["fgsm", "one-pixel", "pgd"]
    for n, arm in enumerate(numbers["arms"]):
        arm |= {"adaptive": None, "worst": {"attacks": every, "standing": share(n // 2, 60)}}
    bits = json.loads(json.dumps(numbers["arms"][1])) | {"name": "bits", "title": "few bits"}
    bits |= {"strong": {"attack": "pgd", "robust": share(211, 300)}}
    bits |= {"adaptive": {"attack": "pgd", "standing": share(5, 300)}}
    bits |= {"worst": {"attacks": every, "standing": share(3, 60)}}
    numbers["arms"].append(bits)
    return numbers


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "newer", change=defended())


def test_the_adaptive_and_the_worst_column_are_printed(newer: Path) -> None:
    page = Page(report(newer).read_text(encoding="utf-8"))
    body = [cells(row) for row in page.tables[1][2:]]
    last = [row[8:] for row in body if len(row) == 10]
    assert [row[0] for row in last] == ["no part without a gradient found"] * 4 + [told(share(5, 300))]  # type: ignore[arg-type]
    assert last[2][1] == "of FGSM, one-pixel, PGD " + told(share(1, 60))  # type: ignore[arg-type]
    assert not re.search(r"\b(robust|secure)\b", page.words)


def test_what_was_bought_is_said_with_the_control_beside(newer: Path) -> None:
    run = read_run(newer)
    arms = {one.title: " ".join(one.sentences).replace("\xa0", " ") for one in bought(run)}
    assert list(arms) == ["FGSM_immune", "One-pixel_immune", "few bits"]
    said = arms["FGSM_immune"]
    assert "It was retrained on clean images and on 1,400 FGSM images that fooled the clear model." in said
    assert "On the old FGSM adversarials it is right for 125 of 203 (61.6 %) [control: 78 of 203 (38.4 %)]." in said
    assert "a smaller share stands than of the old ones" in said
    assert "overlap" not in said
    assert "after FGSM at 16/255 87 of 300 (29.0 %) [control: 77 of 300 (25.7 %)]" in said
    assert "Against PGD at 8/255 2 of 300 (0.7 %) [control: 1 of 300 (0.3 %)] stand." in said
    assert "the worst of FGSM, one-pixel and PGD: 1 of 60 (1.7 %) [control: 0 of 60 (0.0 %)] stand." in said
    assert "gives no gradient" not in said
    assert "gradients past that part, 5 of 300 (1.7 %) stand" in arms["few bits"]
    assert "few bits 5 of 300 (1.7 %), gradients led past" in withstood(run)[0].replace("\xa0", " ")
    assert not re.search(r"robust|secure|safe\b", " ".join(arms.values()))


def test_nothing_learnt_and_nothing_gained_are_said(tmp_path: Path) -> None:
    numbers = defended()
    numbers["attacks"]["fgsm"]["train"]["success"] = share(0, 300)
    immune = numbers["arms"][2]
    immune["attacks"]["fgsm"] |= {"static": share(80, 203), "reattacked": share(150, 300)}
    said = " ".join(bought(read_run(build_run(tmp_path / "run", change=numbers)))[0].sentences)
    assert "No FGSM attack on the training images succeeded: it learnt from clean images alone." in said
    assert "Those two intervals overlap" in said  # 80 and 78 of 203
    assert "a smaller share" not in said
    numbers["arms"] = [numbers["arms"][0], immune]
    immune |= {"worst": None, "strong": None}
    alone = " ".join(bought(read_run(build_run(tmp_path / "alone", change=numbers)))[0].sentences)
    assert "control" not in alone
    assert "Against" not in alone
    assert "Image by image" not in alone


def test_errors_by_class_are_printed(run: Path, page: Page) -> None:
    arms = json.loads((run / "metrics.json").read_text())["arms"]
    text = [[cells(row) for row in table] for table in page.tables]
    for kind in ("clean", "fgsm", "one-pixel", "noise"):
        rows = [row for arm in arms for row in arm["errors"][kind]]
        wanted = [[row["class"], told(row["false_positives"]), told(row["false_negatives"])] for row in rows]
        assert any([row[-3:] for row in table[1:]] == wanted for table in text), kind


def test_the_summary_counts_and_does_not_praise(run: Path, page: Page) -> None:
    said = " ".join(attacked(read_run(run)) + withstood(read_run(run))).replace("\xa0", " ")
    assert "257 of 300 (85.7 %)" in said
    assert "FGSM flips 203 of 257 (79.0 %)" in said
    assert "clean control 1 of 300 (0.3 %)" in said  # the strong attack stands beside it
    assert not re.search(r"robust|secure|safe\b", said)
    assert not re.search(r"\b(robust|secure)\b", page.words)


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = report(run).read_bytes()
    assert report(run).read_bytes() == first
    assert report(build_run(tmp_path / "elsewhere")).read_bytes() == first


def test_images_are_inlined_and_described(page: Page) -> None:
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) > 20
    for attributes in images:
        assert (attributes["src"] or "").startswith("data:image/png;base64,")
        assert len(attributes["alt"] or "") > 8


def test_one_scale_centred_on_zero() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(0, size, (20, 20)) for size in (1, 5)]
    scale = shared_scale(maps)
    assert scale.beyond == pytest.approx(0.005, abs=0.002)

    def colours(values: np.ndarray) -> np.ndarray:
        raw = base64.b64decode(heat_uri(values, scale).split(",")[1])
        return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).astype(int)

    zero, plus, minus = colours(np.array([[0.0, 2 * scale.limit, -2 * scale.limit]]))[0]
    assert zero.min() > 240
    assert plus[0] > plus[2] + 50
    assert minus[2] > minus[0] + 50


def test_a_perturbation_is_drawn_as_large_as_it_says() -> None:
    clean = np.full((4, 4, 3), 100, np.uint8)
    changed = clean.copy()
    changed[1, 2] = (103, 97, 100)
    uri, gain = perturbation_uri(clean, changed)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))).astype(int)
    assert gain == 42
    assert drawn[1, 2].tolist() == [127 + 3 * 42, 127 - 3 * 42, 127]
    assert drawn[0, 0].tolist() == [127, 127, 127]


def test_a_histogram_loses_no_image() -> None:
    steps = {str(k): k + 1 for k in range(100)} | {"-1": 7}
    chart = histogram(steps, "generation")
    assert chart is not None
    assert sum(bar.count for bar in chart.bars) == sum(steps.values())
    assert [bar.count for bar in chart.bars if bar.failed] == [7]
    assert all(bar.x >= 0 and bar.x + bar.width <= 300 for bar in chart.bars)
    assert histogram({}, "generation") is None


@pytest.mark.parametrize("missing", ["run.json", "metrics.json", "figures/_done/part-00000.json", "global/_done"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    folder = build_run(tmp_path / "run")
    target = folder / missing
    for file in [target] if target.is_file() else list(target.iterdir()):
        file.unlink()
    with pytest.raises(StoreError, match=rf"{missing.split('/')[0]}.*heatprint study --out") as caught:
        report(folder)
    assert str(folder) in str(caught.value)
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="heatprint study --out"):
            report(folder)


@pytest.mark.parametrize("broken", ["figures/part-00000.parquet", "figures/part-00000.safetensors", "metrics.json"])
def test_a_torn_file_is_a_store_error(tmp_path: Path, broken: str) -> None:
    folder = build_run(tmp_path / "run")
    (folder / broken).write_bytes((folder / broken).read_bytes()[:40])
    with pytest.raises(StoreError, match="heatprint study --out"):
        report(folder)


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    nothing = metrics(["cats", "dogs"])
    for row in nothing["table1"]:
        row["share"] = None
    for arm in nothing["arms"]:
        arm["clean"], arm["strong"] = None, None
        for columns in arm["attacks"].values():
            columns.update(dict.fromkeys(columns))
        for table in arm["errors"].values():
            for row in table:
                row["false_positives"] = None
    for summed in nothing["attacks"].values():
        summed["test"] |= {"success": None, "step": {"median": None, "histogram": {}}, "l0": {"median": None}}
    page = Page(report(build_run(tmp_path / "run", change=nothing)).read_text(encoding="utf-8"))
    assert page.words.count("not measured") > 40
    assert "None" not in page.words


def test_an_empty_run_says_so_in_words(tmp_path: Path) -> None:
    bare = {"arms": [], "table1": [], "attacks": {}}
    page = Page(report(build_run(tmp_path / "run", examples=0, count=0, change=bare)).read_text(encoding="utf-8"))
    for words in ("no attacked example", "no clean example", "mapped no signatures", "measured no row of Table 1"):
        assert words in page.words
    assert len(page.scripts) == 1  # nothing to draw: plotly stays out


def test_a_large_map_is_drawn_as_a_sample_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_run(tmp_path / "run", count=90)
    whole = read_run(folder).map
    monkeypatch.setattr(points_module, "MOST", 40)
    some = read_run(folder).map
    drawn = len(some.columns["id"])
    assert 30 < drawn <= 40
    assert (whole.left, drawn + some.left) == (0, len(whole.columns["id"]))
    taken = set(some.columns["id"])
    for name in POINT_COLUMNS:  # an image has all its points or none, in the order of the run
        rows = zip(whole.columns["id"], whole.columns[name], strict=True)
        assert some.columns[name] == [value for image, value in rows if image in taken]
    page = Page(report(folder).read_text(encoding="utf-8"))
    assert f"Drawn are {drawn} of {drawn + some.left} points" in page.words
    assert len(json.loads(page.scripts[0])["id"]) == drawn
    assert read_run(folder, points=False).map.columns["id"] == []


def test_three_classes_get_a_map_each(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", classes=("cats", "dogs", "<b>owls</b>"))
    page = Page(report(folder).read_text(encoding="utf-8"))
    data = json.loads(page.scripts[0])
    assert [plot["div"] for plot in data["plots"]] == ["map-4", "map-5", "map-6", "map-7"]
    assert "Figure 7. <b>owls</b>" in page.words
    whole = sorted(row for trace in data["plots"][0]["traces"] for row in trace["rows"])
    assert whole == [n for n, kind in enumerate(data["kind"]) if kind == "clean"]
    for number, plot in enumerate(data["plots"][1:]):
        rows = [row for trace in plot["traces"] for row in trace["rows"]]
        assert len(rows) == len(set(rows))  # no point twice
        own = [n for n, label in enumerate(data["label"]) if label == ["cats", "dogs", "<b>owls</b>"][number]]
        assert set(own) <= set(rows)  # and none of the class left out


def compared(images: int) -> dict[str, Any]:
    """The before-and-after numbers of an attack; nothing is defined without images."""
    names = ("rank_correlation", "cosine", "moved", "moved_unsigned", "on_changed", "clean_on_changed", "chance")
    numbers = {"median": -0.25, "low": -0.5, "high": 0.125} if images else dict.fromkeys(("median", "low", "high"))
    every = {name: {"count": images, "undefined": 0, **numbers} for name in names}
    every["moved"] |= {"median": 0.4, "low": 0.3, "high": 0.6} if images else {}
    every["peak_distance"] = {"count": 0, "undefined": images, "median": None, "low": None, "high": None}
    bins = [0] * 8 + [images] + [0] * 11
    one = {"measures": every, "histograms": {"moved": bins, "moved_unsigned": bins}}
    return {
        "of": "successes",
        "available": 2 * images,
        "images": images,
        "explained": {kind: one for kind in ("predicted", "true")},
    }


def test_before_and_after_prints_medians_quartiles_and_counts(tmp_path: Path, page: Page) -> None:
    pairs = {"fgsm": compared(1234), "one-pixel": compared(0)}
    seen = Page(report(build_run(tmp_path / "run", change={"pairs": pairs})).read_text(encoding="utf-8"))
    table = next([cells(row) for row in table] for table in seen.tables if "The maps explain" in table[0])
    assert [row[0] for row in table[1:]] == ["FGSM1,234 of 2,468 successes", "the true class"]
    assert table[1][1:4] == ["their own predictions", "−0.25[−0.50, 0.12]", "40\xa0%[30, 60]"]
    assert table[1][-1] == "–not defined"
    charts = [
        a["aria-label"] or "" for tag, a in seen.elements if tag == "svg" and "moved" in (a.get("aria-label") or "")
    ]
    assert len(charts) == 2
    assert charts[0] == "relevance moved, median 40 %: 40 to 45 %: 1234"
    assert "compared no explanations" in page.words
    assert "compared no explanations" not in seen.words


def test_a_name_that_is_not_utf8_is_spelled_out(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    odd = settings(["cats", "dogs"], [{"id": "cats/\udcff.png", "reason": "unreadable"}])
    write_json(folder / "run.json", odd)
    assert b"cats/\\udcff.png" in report(folder).read_bytes()


def test_torch_is_not_woken(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from heatprint.report import report; "
        f"report(Path({str(run)!r})); "
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_the_query_curve_ends_where_the_queries_end():
    from heatprint.report.charts import HEIGHT, WIDTH, query_curve

    chart = query_curve([(1, 0), (10, 5), (1000, 20)], 40)
    assert chart.end == (WIDTH, HEIGHT / 2)
    assert chart.breaks == ((100.0, "10"), (200.0, "100"), (WIDTH, "1,000"))
    assert query_curve([], 40) is None
