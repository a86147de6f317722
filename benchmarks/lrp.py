"""What a heat map costs beside the gradient of a logit, on vgg-slim and VGG16 at 112 px.

python benchmarks/lrp.py [repeats]
"""

import statistics
import sys
import time

import torch

from heatprint.explainers import make
from heatprint.models import load


def main(repeats: int = 7) -> None:
    for architecture, count in (("vgg-slim", 32), ("vgg16-paper", 8)):
        model = load(architecture, classes=("cats", "dogs"), size=112)
        inputs = model.normalise(torch.rand(count, 3, 112, 112))
        target = torch.zeros(count, dtype=torch.long)
        methods = {name: make(name) for name in ("gradient", "lrp.sequential_preset_a_flat")}
        spent: dict[str, list[float]] = {name: [] for name in methods}
        for number in range(repeats + 1):
            for name, method in methods.items():
                start = time.perf_counter()
                method.attribute(model, inputs, target)
                if number:  # the first round warms up
                    spent[name].append(time.perf_counter() - start)
        ratios = [a / b for a, b in zip(spent["lrp.sequential_preset_a_flat"], spent["gradient"], strict=True)]
        each = statistics.median(spent["gradient"]) / count * 1e3
        print(f"{architecture}: gradient {each:.1f} ms per image, LRP preset A flat x{statistics.median(ratios):.2f} "
              f"[{min(ratios):.2f} {max(ratios):.2f}]")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
