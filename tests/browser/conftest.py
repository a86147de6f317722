"""A finished run with a fitted detector, served on loopback, and a browser that lets nothing out."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True)
class Served:
    """Attributes: url with the token, origin without, the run folder, ids of its points by "kind/id"."""

    url: str
    origin: str
    run: Path
    rows: tuple[str, ...]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The tiny recipe, really run, with a detector and an identifier that learned for a moment; once for all."""
    from heatprint.study import load_recipe, study

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    run, done = shared / "served" / "run", shared / "served" / "done"
    run.parent.mkdir(exist_ok=True)
    with (run.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            study(load_recipe("tiny", seed=0), run)
            fit_detector(run)
            done.touch()
    return run


def fit_detector(run: Path) -> None:
    from heatprint.attacks import attack
    from heatprint.attacks import make as make_attack
    from heatprint.core.values import join
    from heatprint.data.sources import load_dataset
    from heatprint.detectors import Examples, Identifier, fit, make
    from heatprint.models import load

    classifier = load(run / "models" / "clear")
    images = load_dataset("menagerie", size=classifier.size, train=48, test=2, seed=3).train
    hits = {name: attack(classifier, images, make_attack(name, eps=8 / 255)) for name in ("fgsm", "pgd")}
    batches = [images, *(hit.adversarial for hit in hits.values())]
    names = [name for name in ("clean", *hits) for _ in images.ids]
    everything = join([one.__class__(ids=tuple(f"{n}/{i}" for i in one.ids), pixels=one.pixels, labels=one.labels)
                       for n, one in enumerate(batches)])  # fmt: skip
    examples = Examples(
        sources=images.ids * 3, pixels=everything.pixels, labels=everything.labels, kinds=tuple(names),
        names=tuple(names), attacked=np.array([name != "clean" for name in names]),
    )  # fmt: skip
    cut = [row for row in range(len(examples)) if row % 48 < 24]
    rest = [row for row in range(len(examples)) if row % 48 >= 24]
    detector = fit(classifier, examples.take(cut), make("heat-print"), name="heat-print")
    clean = examples.take([row for row in rest if names[row] == "clean"])
    scores = detector.score(classifier, clean.pixels)
    folder = run / "forensics" / "fitted"
    detector.calibrate(scores, fpr=0.05).save(folder)
    Identifier().fit(classifier, examples.take(cut), examples.take(rest)).save(folder)


@pytest.fixture(scope="session")
def served(finished_run: Path) -> Iterator[Served]:
    """The inspector with its live laboratory, as `heatprint serve` starts it."""
    uvicorn = pytest.importorskip("uvicorn")
    from heatprint.live.laboratory import Laboratory
    from heatprint.runs.read import read_shown
    from heatprint.web.app import inspector

    laboratory = Laboratory.open(finished_run)
    config = uvicorn.Config(
        inspector(finished_run, lambda: laboratory, token=TOKEN), host="127.0.0.1", port=0, log_level="warning"
    )
    server, sock = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    shown = read_shown(finished_run)
    rows = tuple(
        f"{shown.kinds[kind]}/{name}" for kind, name in zip(shown.columns["kind"], shown.ids.to_pylist(), strict=True)
    )
    origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
    yield Served(url=f"{origin}/?token={TOKEN}", origin=origin, run=finished_run, rows=rows)
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium that draws WebGL in software; skipped visibly where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("HEATPRINT_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        pytest.skip("no Chromium here: install one, or set HEATPRINT_CHROMIUM to its path")
    threads = torch.get_num_threads()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"],
        )
        yield browser
        browser.close()
    torch.set_num_threads(threads)


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Any]:
    """A page of the inspector; at the end there must have been no console error and no request to elsewhere."""
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    sheet = context.new_page()
    errors: list[str] = []
    elsewhere: list[str] = []
    sheet.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    sheet.on("pageerror", lambda error: errors.append(str(error)))
    sheet.on("request", lambda sent: None if sent.url.startswith((served.origin, "data:", "blob:"))
             else elsewhere.append(sent.url))  # fmt: skip
    sheet.goto(served.url)
    yield sheet
    context.close()
    assert not [text for text in errors if "422" not in text and "429" not in text], errors
    assert not elsewhere


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of the views go: HEATPRINT_SCREENSHOTS, or a folder that is not kept."""
    folder = Path(os.environ.get("HEATPRINT_SCREENSHOTS") or ".screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
