"""What a guard costs beside its bare detector: images per second, in process and over HTTP, in alternating repeats.

python benchmarks/guard.py --model runs/real/models/clear --run runs/real --images 256 --repeats 5
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heatprint.core.lattice import encode_pngs, to_pixels
from heatprint.data.sources import load_dataset
from heatprint.detectors.look import Look
from heatprint.live import Guard
from heatprint.web.guard.client import GuardClient
from heatprint.web.guard.server import Server
from heatprint.web.guard.settings import Settings

TRAFFIC = {"none attacked": 0.0, "a tenth attacked": 0.1, "all attacked": 1.0}
EACH = 16  # images of one request


def attacked(guard: Guard, pixels: Tensor) -> Tensor:
    """One step of two levels against the margin."""
    parts = []
    for some in torch.split(pixels, 32):
        look = Look(guard.classifier, some)
        parts.append(to_pixels((look.images - look.slopes[:, 0].sign() * 2 / 255).clamp(0, 1)).cpu())
    return torch.cat(parts)


def mixed(guard: Guard, pixels: Tensor, share: float) -> Tensor:
    """Drawn animals, this share of them attacked, evenly spread."""
    count = round(share * len(pixels))
    rows = np.linspace(0, len(pixels) - 1, count).astype(int)
    out = pixels.clone()
    if count:
        out[rows] = attacked(guard, pixels[rows])
    return out


def rates(calls: dict[str, Callable[[], object]], images: int, repeats: int) -> dict[str, np.ndarray]:
    """Images per second of each call, in turns, after one for warmth."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if repeat:
                found[name].append(images / (time.perf_counter() - begin))
    return {name: np.array(each) for name, each in found.items()}


def measured(guard: Guard, client: GuardClient, pixels: Tensor, repeats: int, clients: int) -> None:
    """One table of ratios."""
    files = encode_pngs(pixels)
    requests = [files[start : start + EACH] for start in range(0, len(files), EACH)]

    def served() -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(client.check, requests))

    found = rates(
        {
            "bare detector": lambda: guard.detector.score(guard.classifier, pixels),
            "guard in process": lambda: guard.check(pixels),
            "guard over HTTP": served,
        },
        len(pixels),
        repeats,
    )
    flagged = np.mean([one.verdict == "attacked" for one in guard.check(pixels)])
    print(f"  flagged: {flagged:.0%}")
    for name, each in found.items():
        low, middle, high = np.quantile(each / found["bare detector"], [0.25, 0.5, 0.75])
        print(
            f"  {name:17} {np.median(each):7.1f} images/s, {middle:.2f} of the bare detector [{low:.2f} to {high:.2f}]"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a saved model")
    parser.add_argument("--run", type=Path, required=True, help="run folder with its detector")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8, help=f"at one time, each with {EACH} images a request")
    args = parser.parse_args()
    guard = Guard.load(args.model, args.run)
    data = load_dataset("menagerie", size=guard.size, train=2, test=args.images, seed=11)
    server = Server(guard, Settings(port=0))
    taken = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    client = GuardClient(f"http://127.0.0.1:{taken.getsockname()[1]}", timeout=300)
    while not client.ready():
        time.sleep(0.05)
    print(
        f"{args.images} images of {guard.size} px, {guard.classifier.architecture}, {args.repeats} alternating repeats"
    )
    for name, share in TRAFFIC.items():
        print(name)
        measured(guard, client, mixed(guard, data.test.pixels, share), args.repeats, args.clients)
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
