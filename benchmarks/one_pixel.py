"""What the one-pixel engine costs beside the network: candidates per second over plain batched forward images.

The plain side gets ready float batches of the same size and does nothing but the classifier's forward pass. The two
alternate in one process and each ratio is printed, so that noise of the machine hits both.

    python benchmarks/one_pixel.py [repeats]
"""

import statistics
import sys
import time

import torch

from heatprint.attacks import attack, make
from heatprint.core.values import Batch
from heatprint.data.sources import draw_batch
from heatprint.models import load, predict
from heatprint.models.predict import BATCH

PLAIN = 60  # batches


def main(repeats: int = 9) -> None:
    drawn = draw_batch(6, "test_set", size=112, seed=0)
    model = load("vgg-slim", classes=("cats", "dogs"), size=112)
    images = Batch(ids=drawn.ids, pixels=drawn.pixels, labels=predict(model, drawn.pixels).argmax(1))
    method = make("one-pixel", generations=1)  # the first population and one generation of children
    batch = drawn.images[torch.arange(BATCH) % len(drawn)]
    ratios = []
    for number in range(repeats + 1):
        start = time.perf_counter()
        hit = attack(model, images, method, seed=number)
        candidates = int(hit.forwards.sum()) / (time.perf_counter() - start)
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(PLAIN):
                model(batch)
        forwards = PLAIN * BATCH / (time.perf_counter() - start)
        if not number:
            continue  # the first round warms up
        ratios.append(candidates / forwards)
        print(f"{candidates:7.0f} candidates/s  {forwards:7.0f} plain images/s  ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f} [{min(ratios):.3f} {max(ratios):.3f}], {repeats} repeats")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
