"""What engines cost: over a bare loop, in memory over many images, and until a large study is at work again.

    python benchmarks/engines.py overhead      # a workload of a minute, bare, local and on Ray, in alternating rounds
    python benchmarks/engines.py memory        # an attack on 100,000 images, and what its processes hold meanwhile
    python benchmarks/engines.py resume        # a study of 1,000,000 images with a part missing, until it is computed

The images are noise: nothing here depends on what they show. In `resume` the results of all parts but one are made up;
their keys, marks and digests are not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from heatprint.attacks import attack, make
from heatprint.core.lattice import encode_pngs
from heatprint.core.limits import threads
from heatprint.core.scratch import room
from heatprint.core.store import Part, Store
from heatprint.core.values import Batch
from heatprint.data.sources import Dataset
from heatprint.models import load
from heatprint.models.predict import predict
from heatprint.study import engines, load_recipe, study
from heatprint.study import images as shelf
from heatprint.study.attacking import Assault, attacked
from heatprint.study.parts import Workshop, rows_of

PART = 256


def noise(count: int, size: int, classifier: Any = None) -> Batch:
    """Images of blocks of random colours; labelled as the classifier sees them, so that all are attacked."""
    random = np.random.default_rng(0)
    pixels = room((count, 3, size, size), np.uint8)
    for start in range(0, count, PART):
        rows = min(PART, count - start)
        blocks = random.integers(0, 256, (rows, 3, size // 8, size // 8), dtype=np.uint8)
        pixels[start : start + rows] = blocks.repeat(8, 2).repeat(8, 3)
    tensor = torch.from_numpy(pixels)
    labels = torch.zeros(count, dtype=torch.long) if classifier is None else predict(classifier, tensor).argmax(1)
    return Batch(ids=tuple(f"noise/{row}.png" for row in range(count)), pixels=tensor, labels=labels)


def overhead(parts: int, rounds: int) -> None:
    """Seconds of a bare loop, of the local engine with one worker, of Ray with one worker, and their ratios.

    The bare loop keeps what it computed in a Parquet file a part, as the engines do; one that throws it away stands
    beside it. The time of Ray has the start of a cluster and of its worker in it.
    """
    classifier = load("vgg-slim", classes=("cats", "dogs"), size=64, seed=0)
    batch = noise(parts * PART, 64, classifier)
    how = Assault(method=make("pgd", eps="4/255", step="1/255", steps=20))

    def bare(*, kept: bool = True) -> None:
        with threads(1), tempfile.TemporaryDirectory() as folder:
            for number, rows in enumerate(rows_of(len(batch), PART)):
                made = attack(classifier, batch.take(rows), how.method)
                if kept:
                    pictures = encode_pngs(made.adversarial.pixels)
                    columns = {"id": made.clean.ids, "success": made.success.tolist(), "image": pictures}
                    pq.write_table(pa.table(columns), Path(folder) / f"{number}.parquet", compression="zstd")

    def through(name: str) -> None:
        engine = engines.make(name, workers=1)
        with tempfile.TemporaryDirectory() as folder, closing(engine):
            store = Store(Path(folder) / "run")
            with store.writing():
                attacked(Workshop(store=store, engine=engine), "attacks/x", classifier, batch, how)

    def timed(work: Any, *given: Any, **named: Any) -> float:
        start = time.perf_counter()
        work(*given, **named)
        return time.perf_counter() - start

    bare()  # for warmth
    seen: dict[str, list[float]] = {"nothing kept": [], "bare": [], "local": [], "ray": []}
    for number in range(rounds):
        seen["nothing kept"].append(timed(bare, kept=False))
        seen["bare"].append(timed(bare))
        for name in ("local", "ray"):
            seen[name].append(timed(through, name))
        told = ", ".join(f"{name} {values[-1]:.1f} s" for name, values in seen.items())
        print(f"round {number + 1}: {told}", flush=True)
    for name in ("local", "ray"):
        for base in ("bare", "nothing kept"):
            ratios = [a / b for a, b in zip(seen[name], seen[base], strict=True)]
            print(f"{name}: {statistics.median(ratios):.3f} times the loop, {base} "
                  f"[{min(ratios):.3f} {max(ratios):.3f}]")  # fmt: skip


def memory(count: int, workers: int) -> None:
    """What the processes hold of their own while so many images are attacked, in MiB."""
    classifier = load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)
    batch = noise(count, 32, classifier)
    how = Assault(method=make("fgsm", eps="8/255"))
    seen: list[tuple[int, float, float]] = []

    def progress(done: int, total: int, note: object = "") -> None:
        del total, note
        if not seen or done - seen[-1][0] >= count // 20:
            own = held(os.getpid())
            seen.append((done, own, sum(map(held, workers_of(os.getpid())))))
            print(f"{done:8} images: {seen[-1][1]:6.0f} MiB here, {seen[-1][2]:6.0f} MiB in workers", flush=True)

    engine = engines.make("local", workers=workers)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, closing(engine):
        store = Store(Path(folder) / "run")
        with store.writing():
            whole = attacked(Workshop(store=store, engine=engine), "attacks/x", classifier, batch, how, progress)
        print(f"{len(whole.clean)} images, {int(whole.success.sum())} fell, {time.perf_counter() - start:.0f} s; "
              f"{held(os.getpid()):.0f} MiB here with all results joined")  # fmt: skip


def held(pid: int) -> float:
    """Memory of a process that no file backs, in MiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def workers_of(pid: int) -> Iterator[int]:
    """Processes below a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            yield int(folder.name)
            yield from workers_of(int(folder.name))


class Invented:
    """An engine that makes results up, and stops before the last part."""

    def __init__(self, stop: int) -> None:
        self._stop, self._png = stop, b""

    def compute(self, classifier: Any, pending: Any, limits: Any, within: Any) -> Iterator[tuple[int, Part]]:
        """Parts of an attack in which nothing falls."""
        for number, make_task in pending:
            task = make_task()
            if task.arguments.get("batch") is None or len(pending) < 2:
                yield number, task.function(classifier, **task.arguments)
                continue
            if number == self._stop:
                raise KeyboardInterrupt
            yield number, self._made_up(task.arguments["batch"])

    def close(self) -> None:
        """Nothing to let go."""

    def _made_up(self, batch: Batch) -> Part:
        self._png = self._png or encode_pngs(batch.pixels[:1])[0]
        count = len(batch)
        numbers = ("step", "l0", "l1", "l2", "linf", "forwards", "backwards", "first_hit")
        rows = {"id": list(batch.ids), "label": ["cats"] * count, "predicted_before": ["cats"] * count,
                "predicted": ["cats"] * count, "confidence_before": [0.5] * count, "confidence": [0.5] * count,
                "success": [False] * count, "skipped": [False] * count, **{name: [0] * count for name in numbers},
                "image": [{"bytes": self._png, "path": f"{name}.png"} for name in batch.ids]}  # fmt: skip
        logits = np.zeros((count, 2), np.float32)
        return Part(rows=rows, arrays={"clean_logits": logits, "logits": logits})


def resume(count: int, folder: Path) -> None:
    """Seconds from the command until the one part that is missing is computed and kept."""
    recipe, out = folder / "million.toml", folder / "run"
    text = (Path(shelf.__file__).parent / "recipes" / "tiny.toml").read_text()
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(
        text.replace('name = "tiny"', 'name = "million"').replace("size = 64", "size = 32")
        .replace("test = 32", f"test = {count}").replace("[[2, 64]]", "[[1, 32]]").replace("[[1, 64]]", "[[1, 32]]")
        .replace("train = 32\nretrain = true", "train = 32\nretrain = false")
    )  # fmt: skip
    parts = len(rows_of(count, PART))
    missing = out / f"attacks/clear/fgsm/test/_done/part-{parts - 1:05d}.json"
    if not missing.with_name(f"part-{parts - 2:05d}.json").exists():
        print(f"making up a study of {count} images in {out}", flush=True)
        _begun(recipe, out, count, parts)
    missing.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "from heatprint.cli import main; main()", "study",
                                "--recipe", str(recipe), "--out", str(out)])  # fmt: skip
    try:
        while not missing.exists() and process.poll() is None:
            time.sleep(0.02)
        print(f"{count} images, {parts} parts: the missing part was there after {time.perf_counter() - start:.1f} s")
        print(f"the process holds {held(process.pid):.0f} MiB")
    finally:
        process.kill()
        process.wait()


def _begun(recipe: Path, out: Path, count: int, parts: int) -> None:
    loaded, store = load_recipe(recipe), Store(out)
    given = {"size": 32, "train": loaded.data.train, "test": count, "seed": loaded.seed}
    if not (out / "images/_done/images.json").exists():
        data = shelf.load_dataset("menagerie", size=32, train=given["train"], test=32)
        test = replace(noise(count, 32), labels=torch.arange(count) % 2)
        with store.writing():
            made_up = Dataset(name=data.name, classes=data.classes, train=data.train, test=test)
            shelf.keep(out, shelf.key_of("menagerie", **given), made_up)
    try:
        study(loaded, out, engine=Invented(parts - 1))
    except KeyboardInterrupt:
        return
    raise SystemExit("the study did not stop before its last part")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = parser.add_subparsers(dest="what", required=True)
    one = told.add_parser("overhead")
    one.add_argument("--parts", type=int, default=26)
    one.add_argument("--rounds", type=int, default=3)
    two = told.add_parser("memory")
    two.add_argument("--images", type=int, default=100_000)
    two.add_argument("--workers", type=int, default=2)
    three = told.add_parser("resume")
    three.add_argument("--images", type=int, default=1_000_000)
    three.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.what == "overhead":
        overhead(asked.parts, asked.rounds)
    elif asked.what == "memory":
        memory(asked.images, asked.workers)
    else:
        resume(asked.images, asked.folder)


if __name__ == "__main__":
    main()
