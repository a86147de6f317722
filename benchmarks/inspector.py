"""How soon the inspector shows a large run: from the server's start to the first picture, in headless Chromium.

python benchmarks/inspector.py --pairs 10000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from heatprint.core.store import Part, Store, write_json
from heatprint.web.app import inspector

SIZE, SIDE, PART, DIMENSIONS = 112, 28, 1000, 128
TOKEN = "benchmark"


def png(rng: np.random.Generator) -> bytes:
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def build(folder: Path, pairs: int) -> None:
    """A run folder of invented numbers, in the shape that a study leaves."""
    rng, store = np.random.default_rng(0), Store(folder)
    ids = [f"test_set/cats/{n:06d}.png" for n in range(pairs)]
    pictures = [png(rng) for _ in range(256)]
    image = [{"bytes": pictures[n % 256], "path": name} for n, name in enumerate(ids)]
    label = rng.integers(0, 2, pairs)
    names = np.array(["cats", "dogs"])
    logits = rng.normal(size=(pairs, 2)).astype(np.float32)
    where = rng.normal(size=(pairs, 2)) + 6 * np.stack([label, label], 1)
    moved = where + rng.normal(size=(pairs, 2))
    with store.writing():
        store.memo("atlas/images", 0, 0, lambda: Part(
            rows={"id": ids, "label": names[label].tolist(), "predicted": names[label].tolist(),
                  "strategy": [f"{names[k]} {1 + n % 3}" for n, k in enumerate(label)], "image": image},
            arrays={"maps": rng.normal(size=(pairs, SIDE, SIDE)).astype(np.float16), "logits": logits,
                    "spectral": np.zeros((pairs, 4), np.float32)}))  # fmt: skip
        for start in range(0, pairs, PART):
            stop = min(start + PART, pairs)
            count = stop - start
            rows = {"id": ids[start:stop], "image": image[start:stop], "success": [True] * count,
                    "skipped": [False] * count, "step": [1] * count, "confidence": [0.9] * count}  # fmt: skip
            store.memo("attacks/clear/fgsm/test", start // PART, 0, lambda rows=rows: Part(rows=rows))
        both = np.concatenate([where, moved])
        store.memo("global", 0, 0, lambda: Part(
            rows={"id": ids * 2, "label": names[label].tolist() * 2, "kind": ["clean"] * pairs + ["fgsm"] * pairs,
                  "predicted": names[label].tolist() + names[1 - label].tolist(), "success": [True] * 2 * pairs,
                  "x": both[:, 0], "y": both[:, 1], "px": both[:, 0], "py": both[:, 1],
                  "preserved": rng.random(2 * pairs)},
            arrays={"signatures": rng.normal(size=(2 * pairs, DIMENSIONS)).astype(np.float32)}))  # fmt: skip
    write_json(folder / "run.json", {"recipe_name": "benchmark", "seed": 0, "data": {"name": "invented"},
                                     "attacks": {"fgsm": {"title": "FGSM"}}})  # fmt: skip
    write_json(folder / "metrics.json", {"classes": ["cats", "dogs"], "atlas": {"classes": [], "cards": [],
                                                                               "flows": {}}})  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--pairs", type=int, default=10_000)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        build(folder, given.pairs)
        start = time.perf_counter()
        config = uvicorn.Config(inspector(folder, None, token=TOKEN), host="127.0.0.1", port=0, log_level="warning")
        sock, server = config.bind_socket(), uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        up, origin = time.perf_counter() - start, f"http://127.0.0.1:{sock.getsockname()[1]}"
        found = os.environ.get("HEATPRINT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        seen = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=[
                "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
            ])  # fmt: skip
            for _ in range(given.repeats):
                page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
                begin = time.perf_counter()
                page.goto(f"{origin}/?token={TOKEN}")
                page.wait_for_selector("main canvas")
                page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
                seen.append(time.perf_counter() - begin)
                page.context.close()
            browser.close()
        server.should_exit = True
        thread.join()
    print(json.dumps({"pairs": given.pairs, "server up, s": round(up, 2),
                      "first picture, s": [round(one, 2) for one in seen],
                      "median": round(statistics.median(seen), 2)}))  # fmt: skip


if __name__ == "__main__":
    main()
