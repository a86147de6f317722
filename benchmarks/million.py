"""A run of a million test images, made up from a small real one, and how soon the inspector shows it.

python benchmarks/million.py runs/million                    makes the folder, where it is not there, and measures
python benchmarks/million.py runs/million --images 10000     a smaller one

What is real: the format, file by file as `heatprint study` writes it, the recipe (`tiny` with more test images; it is
written beside the folder, as runs/million.toml), the models, and every row and picture of the `tiny` run that is taken
as template.

What is synthetic: the further rows. They repeat the template's under new ids, with a little noise on every measured
number, so that a picture, its prediction and its heat map fit together. A quarter repeats an image that fell to FGSM:
the map has a million originals and a quarter of a million copies. The atlas keeps its usual 2000 images. Other steps
are the template's own, and so are the numbers in metrics.json but for the counts of the map. The keys of the enlarged
parts are made up: no study takes these parts for its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from heatprint.core.store import Part, Store, write_json
from heatprint.study import load_recipe, study

PART, FELL, ATLAS = 500, 0.25, 2000  # rows of a part; share of images that fall; images of the atlas
NOISE = 0.02  # of measured numbers, as a share of their spread
ATTEMPTS, PLACES, IMAGES = "attacks/clear/fgsm/test", "global", "atlas/images"
TOKEN = "benchmark"
Rows = dict[str, Any]


# --- the folder -------------------------------------------------------------------------------------------


def build(folder: Path, images: int, template: Path) -> None:
    """A finished run of so many test images; it has its name only when it is complete."""
    torn = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(torn, ignore_errors=True)
    shutil.copytree(template, torn, ignore=shutil.ignore_patterns("report.html"))
    rng, source, store = np.random.default_rng(0), Store(template), Store(torn)
    attempts, images_of, places = (source.read(step, 0) for step in (ATTEMPTS, IMAGES, PLACES))
    of = rows_of(rng, np.asarray(attempts.rows["success"]), images)
    ids = names(attempts.rows["id"], of)
    with store.writing():
        for index, start in enumerate(range(0, images, PART)):
            rows = slice(start, start + PART)
            keep(store, ATTEMPTS, index, enlarged(rng, attempts, of[rows], ids[rows]))
        chosen = slice(0, ATLAS)
        keep(store, IMAGES, 0, enlarged(rng, images_of, of[chosen], ids[chosen], told=("told",)))
        fell = np.flatnonzero(np.asarray(attempts.rows["success"])[of])
        keep(store, PLACES, 0, enlarged_map(rng, places, of, ids, fell))
    describe(torn, folder, images, len(fell))
    torn.replace(folder)


def rows_of(rng: np.random.Generator, success: np.ndarray, images: int) -> np.ndarray:
    """The template's row that each image repeats: its own once, then all in turn or, for a share, one that fell."""
    fallen = np.flatnonzero(success)
    if not len(fallen):
        raise SystemExit("The template has no image that fell to FGSM. Make another: heatprint study --recipe tiny.")
    of = np.arange(images) % len(success)
    repeats = (rng.random(images) < FELL) & (np.arange(images) >= len(success))
    of[repeats] = fallen[np.arange(repeats.sum()) % len(fallen)]
    return of


def names(own: list[str], of: np.ndarray) -> list[str]:
    """Ids as of a data folder, the template's own first; ``test_set/cats/cat.0.123456.png`` is the 123,457th image."""
    stems = [name.removesuffix(".png") for name in own]
    return own + [f"{stems[row]}.{number}.png" for number, row in enumerate(of[len(own) :].tolist(), len(own))]


def enlarged(rng: np.random.Generator, part: Part, of: np.ndarray, ids: list[str], told: tuple[str, ...] = ()) -> Part:
    """Rows and arrays of a part, repeated; arrays that are told of the whole stay."""
    rows = {name: noisy(rng, np.asarray(values)[of]) for name, values in part.rows.items() if name != "image"}
    pictures = [image["bytes"] for image in part.rows["image"]]
    rows["image"] = [{"bytes": pictures[row], "path": f"{name}.png"} for row, name in zip(of, ids, strict=True)]
    arrays = {name: a if name in told else noisy(rng, a[of]) for name, a in part.arrays.items()}
    return Part(rows=rows | {"id": ids}, arrays=arrays)


def enlarged_map(rng: np.random.Generator, part: Part, of: np.ndarray, ids: list[str], fell: np.ndarray) -> Part:
    """The map: all images, then the copies of those that fell, in clouds around the template's places."""
    rows = part.rows
    place = {key: row for row, key in enumerate(zip(rows["kind"], rows["id"], strict=True))}
    clean = [row for row, kind in enumerate(rows["kind"]) if kind == "clean"]
    copy_of = {row: place["fgsm", rows["id"][row]] for row in set(of[fell].tolist())}
    at = np.concatenate([np.asarray(clean)[of], [copy_of[row] for row in of[fell].tolist()]])
    cloud = {name: np.asarray(rows[name])[at] + rng.normal(0, 0.1, len(at)) for name in ("x", "y", "px", "py")}
    words = {name: pa.array(rows[name]).take(at) for name in ("label", "kind", "predicted", "success")}
    preserved = rng.random(len(at))
    everybody = pa.array(ids + [ids[row] for row in fell.tolist()])
    signatures = part.arrays["signatures"]
    noise = NOISE * signatures.std(0)
    vectors = signatures[at]
    for start in range(0, len(vectors), 2**16):
        piece = vectors[start : start + 2**16]
        piece += noise * rng.standard_normal(piece.shape, np.float32)
    arrays = {**part.arrays, "signatures": vectors, "clean_plane": part.arrays["clean_plane"][of]}
    return Part(rows={"id": everybody, **words, **cloud, "preserved": preserved}, arrays=arrays)


def noisy(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Measured numbers a little apart; counts, words and answers as they are."""
    if values.dtype.kind != "f" or not len(values):
        return values
    return (values * (1 - NOISE * rng.random(values.shape))).astype(values.dtype)


def keep(store: Store, step: str, index: int, part: Part) -> None:
    store.memo(step, index, ("synthetic", len(part.rows["id"])), lambda: part)


def describe(run: Path, folder: Path, images: int, copies: int) -> None:
    """The recipe, beside the folder and in it, and the counts of the cards."""
    text = (files("heatprint.study.recipes") / "tiny.toml").read_text(encoding="utf-8")
    text = text.replace("test = 32", f"test = {images}", 1).replace('name = "tiny"', 'name = "tiny-enlarged"', 1)
    folder.with_suffix(".toml").write_text(text, encoding="utf-8")
    recipe = load_recipe(folder.with_suffix(".toml"))
    write_json(run / "recipe.json", json.loads(recipe.model_dump_json(exclude={"device": True, "data": {"source"}})))
    card, numbers = (json.loads((run / name).read_bytes()) for name in ("run.json", "metrics.json"))
    card |= {"recipe_name": recipe.name, "recipe": recipe.model_dump(mode="json")}
    card["data"]["test"] = images
    numbers["recipe"] = recipe.name
    numbers["map"] |= {"points": images + copies, "clean": images, "attacked": copies}
    numbers["atlas"]["images"] = min(images, ATLAS)
    write_json(run / "run.json", card)
    write_json(run / "metrics.json", numbers)


# --- what it costs ----------------------------------------------------------------------------------------


class Serving:
    """``heatprint serve`` in a process of its own, from the command on."""

    def __init__(self, folder: Path) -> None:
        self.begun = time.perf_counter()
        command = [sys.executable, "-m", "heatprint", "serve", str(folder), "--no-browser", "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HEATPRINT_TOKEN": TOKEN}
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if "http://" not in line:
            raise SystemExit("The server did not start; what it said stands above.")
        self.url = line.split(": ", 1)[1].strip()
        self.up = self.since()

    def since(self) -> float:
        """Seconds since the command."""
        return round(time.perf_counter() - self.begun, 2)

    def ask(self, path: str) -> bytes:
        """The body of an answer."""
        asked = urllib.request.Request(self.url.split("?")[0] + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(asked) as answer:
            return bytes(answer.read())

    def memory(self) -> dict[str, int]:
        """MiB: the most the process ever held, and what it holds of its own now, without files that are mapped."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return {name: int(lines[key].split()[0]) // 1024 for name, key in
                (("peak", "VmHWM"), ("now", "VmRSS"), ("own now", "RssAnon"))}  # fmt: skip

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def answered(folder: Path) -> dict[str, Any]:
    """When a client has facts and columns, and what single questions cost afterwards."""
    server = Serving(folder)
    try:
        facts = json.loads(server.ask("api/run"))
        block = server.ask("api/points")
        told = {
            "up, s": server.up, "columns, s": server.since(), "rows": facts["rows"], "columns, MB": len(block) // 10**6,
            "memory with the columns, MiB": server.memory(),
        }  # fmt: skip
        last = facts["rows"] - 1
        for name, path in (("image", f"api/image/{last}.png"), ("near", f"api/near/{last}")):
            begin = time.perf_counter()
            server.ask(path)
            told[f"{name}, s"] = round(time.perf_counter() - begin, 3)
        if facts["live"]:
            server.ask("api/live")
            told["laboratory, s"] = server.since()
        return told | {"memory at the end, MiB": server.memory()}
    finally:
        server.close()


def seen(folder: Path, picture: Path | None) -> dict[str, Any]:
    """When the map is on the screen of headless Chromium, which draws in software; a screenshot is the proof."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("HEATPRINT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
        server = Serving(folder)
        try:
            page.goto(server.url)
            page.wait_for_selector("main canvas", timeout=600_000)
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            content = page.screenshot(timeout=600_000)
            told = {"up, s": server.up, "picture, s": server.since(), "count": page.text_content(".mv-count")}
        finally:
            server.close()
            browser.close()
    if picture:
        picture.write_bytes(content)
    return told


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--images", type=int, default=1_000_000)
    options.add_argument("--template", type=Path, help="a finished run of the recipe tiny; made where none is given")
    options.add_argument("--build", action="store_true", help="make the folder and measure nothing")
    options.add_argument("--screenshot", type=Path)
    given = options.parse_args()
    if not given.folder.exists():
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as temporary:
            template = given.template or Path(temporary) / "tiny"
            if not given.template:
                study(load_recipe("tiny"), template)
            build(given.folder, given.images, template)
        print(json.dumps({"built, s": round(time.perf_counter() - begin, 1)}))
    if not given.build:
        print(json.dumps(answered(given.folder), indent=1))
        print(json.dumps(seen(given.folder, given.screenshot), indent=1))


if __name__ == "__main__":
    main()
