"""A run of a million test images, made up from a small real one, and how soon the inspector shows it.

python benchmarks/million.py runs/million                    makes the folder, where it is not there, and measures
python benchmarks/million.py runs/million --images 10000     a smaller one

What is real: the format, file by file as `heatprint study` writes it, and a small study, which is the template: `tiny`
at 32 pixels. Its models, rows and pictures are real; its recipe with more test images is written beside the folder, as
runs/million.toml.

What is synthetic: the further rows. They repeat the template's under new ids, with a little noise on every measured
number, so that a picture, its prediction and its heat map fit together. A quarter repeats an image that fell to FGSM:
the map has a million originals and a quarter of a million copies. The atlas keeps its usual 2000 images. Enlarged are
the images, the parts of FGSM, the map and the images of the atlas; other steps are the template's own, and so are the
numbers in metrics.json but for the counts of the map. Images and parts of FGSM lie under the keys that a study of that
recipe looks for; the others under keys of their own.
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
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from heatprint.core.scratch import room
from heatprint.core.store import Part, Store, write_json
from heatprint.core.values import Batch
from heatprint.models import load
from heatprint.study import attacking, load_recipe, study
from heatprint.study.attacking import Assault
from heatprint.study.checks import same_study
from heatprint.study.images import keep, key_of, read_images
from heatprint.study.recipe import Recipe

SIZE, OWN = 32, 32  # pixels of the template's images; how many it tests
FELL, ATLAS = 0.25, 2000  # share of images that fall; images of the atlas
NOISE = 0.02  # of measured numbers, as a share of their spread
ATTACK, PLACES, IMAGES = "fgsm", "global", "atlas/images"
ATTEMPTS = f"attacks/clear/{ATTACK}/test"
TOKEN = "benchmark"
CHANGES = {"size = 64": f"size = {SIZE}", "[[2, 64]]": f"[[2, {SIZE}]]", "[[1, 64]]": f"[[1, {SIZE}]]",
           'name = "tiny"': 'name = "tiny-enlarged"'}  # fmt: skip


# --- the folder -------------------------------------------------------------------------------------------


def recipe_of(images: int) -> str:
    """The recipe `tiny`, smaller and with so many test images."""
    text = (files("heatprint.study.recipes") / "tiny.toml").read_text(encoding="utf-8")
    for before, after in {**CHANGES, "test = 32": f"test = {images}"}.items():
        text = text.replace(before, after, 1)
    return text


def build(folder: Path, images: int, template: Path) -> None:
    """A finished run of so many test images; it has its name only when it is complete."""
    torn, written = folder.with_name(f".{folder.name}.tmp"), folder.with_suffix(".toml")
    shutil.rmtree(torn, ignore_errors=True)
    shutil.copytree(template, torn, ignore=shutil.ignore_patterns("report.html", "images"))
    shutil.copytree(template / IMAGES, torn / IMAGES)
    written.write_text(recipe_of(images), encoding="utf-8")
    recipe, rng = load_recipe(written), np.random.default_rng(0)
    source, store = Store(template), Store(torn)
    attempts, images_of, places = (source.read(step, 0) for step in (ATTEMPTS, IMAGES, PLACES))
    of = rows_of(rng, np.asarray(attempts.rows["success"]), images)
    ids = names(attempts.rows["id"], of)
    with store.writing():
        test = keep_images(torn, recipe, source, of, ids)
        keep_attempts(store, recipe, rng, attempts, of, test)
        chosen = slice(0, ATLAS)
        store.keep(IMAGES, 0, "synthetic", enlarged(rng, images_of, of[chosen], ids[chosen], told=("told",)))
        fell = np.flatnonzero(np.asarray(attempts.rows["success"])[of])
        store.keep(PLACES, 0, "synthetic", enlarged_map(rng, places, of, ids, fell))
    describe(torn, recipe, images, len(fell))
    torn.replace(folder)


def keep_images(run: Path, recipe: Recipe, source: Store, of: np.ndarray, ids: list[str]) -> Batch:
    """The test images: the template's, repeated; the training images are its own."""
    table = recipe.data
    own = read_images(source, table.source, size=table.size, train=table.train, test=OWN, seed=recipe.seed)
    pixels = torch.from_numpy(room((len(of), *own.test.pixels.shape[1:]), np.uint8))
    for start in range(0, len(of), 2**16):
        pixels[start : start + 2**16] = own.test.pixels[of[start : start + 2**16]]
    test = Batch(ids=tuple(ids), pixels=pixels, labels=own.test.labels[of]).printed(own.test.prints[of])
    key = key_of(table.source, size=table.size, train=table.train, test=table.test, seed=recipe.seed)
    keep(run, key, replace(own, test=test))
    return test


def keep_attempts(
    store: Store, recipe: Recipe, rng: np.random.Generator, template: Part, of: np.ndarray, test: Batch
) -> None:
    """What FGSM tried on each, in parts, under the keys that a study looks for."""
    table = next(table for table in recipe.attacks if table.name == ATTACK)
    criterion, budget = table.rules
    how = Assault(method=table.make(), criterion=criterion, budget=budget, seed=recipe.seed)
    victim = load(store.root / "models" / "clear")
    for number, rows in enumerate(torch.arange(len(of)).split(how.part or len(of))):
        part = enlarged(rng, template, of[rows.numpy()], [test.ids[row] for row in rows])
        store.keep(ATTEMPTS, number, (attacking.VERSION, victim.digest, how, *test.identity_of(rows)), part)


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


def describe(run: Path, recipe: Recipe, images: int, copies: int) -> None:
    """The recipe in the folder, and the counts of the cards."""
    (run / "recipe.json").unlink()
    same_study(Store(run), recipe)
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
    options.add_argument("--template", type=Path, help="a finished run of `recipe_of(OWN)`; made where none is given")
    options.add_argument("--build", action="store_true", help="make the folder and measure nothing")
    options.add_argument("--screenshot", type=Path)
    given = options.parse_args()
    if not given.folder.exists():
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as temporary:
            template = given.template or Path(temporary) / "tiny"
            if not given.template:
                path = Path(temporary) / "tiny.toml"
                path.write_text(recipe_of(OWN), encoding="utf-8")
                study(load_recipe(path), template)
            build(given.folder, given.images, template)
        print(json.dumps({"built, s": round(time.perf_counter() - begin, 1)}))
    if not given.build:
        print(json.dumps(answered(given.folder), indent=1))
        print(json.dumps(seen(given.folder, given.screenshot), indent=1))


if __name__ == "__main__":
    main()
