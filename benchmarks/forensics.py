"""What the heat print costs beside the forward and backward pass it needs anyway, and a run's numbers as tables.

python benchmarks/forensics.py cost --model runs/real/models/clear --images 64 --repeats 9
python benchmarks/forensics.py table --run runs/real
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.table import CHUNK, measure
from heatprint.detectors.look import Look
from heatprint.models import load
from heatprint.report.forensics import lines

SETS = (("undo", "key", "margin"), ("undo", "key", "margin", "image"),
        ("undo", "key", "margin", "image", "squeezing"), tuple(FEATURES.names()))  # fmt: skip


def cost(model: str, images: int, repeats: int) -> None:
    """Ratios in one run, the bare passes and each set in turn; and the memory of many images."""
    classifier = load(model)
    shape = (images, 3, classifier.size, classifier.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def bare() -> None:
        for some in torch.split(pixels, CHUNK):
            _ = Look(classifier, some).slopes

    def timed(what: object) -> float:
        start = time.perf_counter()
        what()  # type: ignore[operator]
        return time.perf_counter() - start

    calls = [bare, *(lambda families=families: measure(classifier, pixels, families) for families in SETS)]
    for call in calls:
        call()
    seconds = np.array([[timed(call) for call in calls] for _ in range(repeats)])
    print(f"{images} images of {classifier.size} px, {classifier.architecture}, {repeats} alternating repeats")
    print(f"forward and backward: {1e3 * np.median(seconds[:, 0]) / images:.1f} ms per image")
    for families, own in zip(SETS, (seconds[:, 1:] / seconds[:, :1]).T, strict=True):
        low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
        print(f"{', '.join(families)}: {middle:.2f} times that [{low:.2f} to {high:.2f}]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measure(classifier, pixels.repeat(4, 1, 1, 1), SETS[1])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {before:.0f} MiB, after four times as many images {after:.0f} MiB")


def table(run: Path) -> None:
    """Markdown of ``forensics.json``."""
    print("\n".join(lines(json.loads((run / "forensics.json").read_bytes()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    costs = commands.add_parser("cost")
    costs.add_argument("--model", required=True, help="folder of a saved model")
    costs.add_argument("--images", type=int, default=64)
    costs.add_argument("--repeats", type=int, default=9)
    commands.add_parser("table").add_argument("--run", type=Path, required=True)
    args = parser.parse_args()
    cost(args.model, args.images, args.repeats) if args.command == "cost" else table(args.run)


if __name__ == "__main__":
    main()
