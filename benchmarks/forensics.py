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

SETS = (("undo", "key", "margin"), ("undo", "key", "margin", "image"), tuple(FEATURES.names()))


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
    told = json.loads((run / "forensics.json").read_bytes())
    sets = {**told["ablation"], "one class": told["one class"]}
    kinds = list(next(iter(sets.values()))["attacks"])
    print("| attack (images) | " + " | ".join(sets) + " |\n|---|" + "---|" * len(sets))
    for kind in kinds:
        cells = [_cell(one["attacks"][kind]) for one in sets.values()]
        count = next(iter(sets.values()))["attacks"][kind]["images"]
        print(f"| {kind} ({count}) | " + " | ".join(cells) + " |")
    whole = told["ablation"]["heat print and squeezing"]
    print("\n| left alone (images) | flagged at 5 % | at 1 % |\n|---|---|---|")
    for kind, rates in {**whole["others"], "all": whole["realised"]}.items():
        shares = " | ".join(f"{100 * rates[name]['share']:.1f} %" for name in ("at 5%", "at 1%") if name in rates)
        print(f"| {kind} ({next(iter(rates.values()))['total']}) | {shares} |")
    print("\n| equal margin | " + " | ".join(sets) + " |\n|---|" + "---|" * len(sets))
    for kind in kinds:
        values = [one["attacks"][kind]["equal_margin"] for one in sets.values()]
        cells = ["–" if v["auroc"] is None else f"{v['auroc']:.3f}" for v in values]
        print(f"| {kind} ({values[0]['images']}) | " + " | ".join(cells) + " |")
    print("\n| left out of learning | AUROC |\n|---|---|")
    for part in told["left out"].values():
        for name, one in part.items():
            print(f"| {name} | {one['pooled']:.3f} |")
    print("\n| named from | names | families |\n|---|---|---|")
    for name, one in told["identification"]["sets"].items():
        print(f"| {name} | {one['names']:.3f} | {one['families']:.3f} |")
    print(json.dumps(told["identification"]["unknown"], indent=1))
    for which in ("confusion", "family_confusion"):
        print(json.dumps(told["identification"]["sets"]["heat print and squeezing"][which], indent=1))


def _cell(one: dict) -> str:  # type: ignore[type-arg]
    rates = "/".join(f"{100 * one[name]['share']:.0f}" for name in ("at 5%", "at 1%") if name in one)
    return f"{one['auroc']:.3f} {rates}"


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
