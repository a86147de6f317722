"""What a click in the live laboratory costs, in milliseconds, and what threads do to it on a busy machine.

python benchmarks/laboratory.py --repeats 30
python benchmarks/laboratory.py --run runs/real
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from heatprint.live.laboratory import Laboratory
from heatprint.live.specimen import images_of
from heatprint.models import load, predict

BARS = {"gain step": 300, "pixel click": 200}  # milliseconds, on two cores


def timed(ask: Callable[[], object], repeats: int) -> np.ndarray:
    """Milliseconds of each call after the first, [repeats]."""
    ask()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        ask()
        found.append(1e3 * (time.perf_counter() - start))
    return np.array(found)


def questions(lab: Laboratory) -> dict[str, Callable[[], object]]:
    """Every question, about images that are new each time where that makes it dearer."""
    rng = np.random.default_rng(0)
    method = lab.explainers()[0][0]

    def fresh() -> np.ndarray:
        return rng.integers(0, 256, (3, lab.size, lab.size), dtype=np.uint8)

    clean = fresh()

    def click() -> object:
        pixels = clean.copy()
        pixels[:, rng.integers(lab.size), rng.integers(lab.size)] = rng.integers(0, 256, 3)
        return lab.look(pixels, method=method)

    def step(pixels: np.ndarray) -> object:
        return lab.look(lab.gain(pixels, 0, int(rng.integers(1, 17))), method=method)

    asked: dict[str, Callable[[], object]] = {
        "look": lambda: lab.look(clean, method=method),
        "gain step": lambda: step(clean),
        "first gain step of an image": lambda: step(fresh()),
        "pixel click": click,
        "curve of 17 gains": lambda: lab.curve(clean, 0, range(17)),
        "reach": lambda: lab.reach(clean, 0),
        "judge": lambda: lab.judge(clean),
    }
    return asked | ({"place": lambda: lab.place(clean)} if lab.stored else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder; without one fresh weights, no detector and no map")
    parser.add_argument("--size", type=int, default=112, help="side of the images, of fresh weights")
    parser.add_argument("--threads", type=int, default=2, help="that torch has; the laboratory takes one")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fresh = load("vgg-slim", classes=("cats", "dogs"), size=args.size)
    lab = Laboratory.open(args.run) if args.run else Laboratory(classifier=fresh)
    print(f"{lab.classifier.architecture}, {lab.size} px, {args.threads} threads, load {os.getloadavg()[0]:.1f} of "
          f"{os.cpu_count()} cores, {args.repeats} repeats; milliseconds")  # fmt: skip
    for name, ask in questions(lab).items():
        found = timed(ask, args.repeats)
        bar = f"   bar {BARS[name]}: {'kept' if found.max() <= BARS[name] else 'MISSED'}" if name in BARS else ""
        print(f"{name:28} median {np.median(found):7.1f}   slowest {found.max():7.1f}{bar}")
    images = images_of(lab.classifier, np.zeros((3, lab.size, lab.size), np.uint8))
    plain = timed(lambda: predict(lab.classifier, images), max(3, args.repeats // 5))
    name = f"prediction alone, {args.threads} threads"
    print(f"{name:28} median {np.median(plain):7.1f}   slowest {plain.max():7.1f}")


if __name__ == "__main__":
    main()
