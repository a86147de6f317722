"""What the one-pixel engine costs beside the network: candidates per second over plain batched forward images.

Alternates the two in one process and prints each ratio, so that noise of the machine hits both.

    python benchmarks/one_pixel.py [repeats]
"""

import statistics
import sys
import time

from heatprint.attacks import attack, make
from heatprint.core.values import Batch
from heatprint.data.sources import draw_batch
from heatprint.models import load, predict


def main(repeats: int = 9) -> None:
    drawn = draw_batch(6, "test_set", size=112, seed=0)
    model = load("vgg-slim", classes=("cats", "dogs"), size=112)
    images = Batch(ids=drawn.ids, pixels=drawn.pixels, labels=predict(model, drawn.pixels).argmax(1))
    method = make("one-pixel", generations=0)  # 400 candidates per image, none of which ends the search early
    plain = drawn.pixels.repeat(400, 1, 1, 1)
    predict(model, plain[:256])
    ratios = []
    for number in range(repeats):
        start = time.perf_counter()
        hit = attack(model, images, method, seed=number)
        candidates = int(hit.forwards.sum()) / (time.perf_counter() - start)
        start = time.perf_counter()
        predict(model, plain)
        forwards = len(plain) / (time.perf_counter() - start)
        ratios.append(candidates / forwards)
        print(f"{candidates:7.0f} candidates/s  {forwards:7.0f} plain images/s  ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f} [{min(ratios):.3f} {max(ratios):.3f}], {repeats} repeats")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
