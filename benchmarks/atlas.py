"""How long SpRAy takes and how much memory, over the number of signatures.

    python benchmarks/atlas.py scale --images 10000 50000
    python benchmarks/atlas.py corelay --run runs/real    # agreement with CoRelAy, where it is installed

The signatures are drawn: eight groups of unequal size, each a flat cloud of eight directions in 512, with a few
signatures halfway between two groups, so that the graph is connected and the eigenvalues are not trivial.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from heatprint.core.store import Store
from heatprint.signatures.spray.spray import SpRAy, normalised

GROUPS, WIDTH, FLAT = 8, 512, 8


def drawn(images: int, seed: int = 0, *, between: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Signatures float32 [images, 512] and their groups."""
    rng = np.random.default_rng(seed)
    shares = np.linspace(1, 3, GROUPS)
    kind = rng.choice(GROUPS, images, p=shares / shares.sum())
    centres = rng.standard_normal((GROUPS, WIDTH)).astype(np.float32)
    spans = rng.standard_normal((GROUPS, FLAT, WIDTH)).astype(np.float32)
    vectors = np.empty((images, WIDTH), np.float32)
    for group in range(GROUPS):
        rows = np.flatnonzero(kind == group)
        where = rng.standard_normal((len(rows), FLAT)).astype(np.float32) * 0.4
        vectors[rows] = centres[group] + where @ spans[group] / np.sqrt(FLAT)
        vectors[rows] += 0.1 * rng.standard_normal((len(rows), WIDTH)).astype(np.float32)
    halfway = rng.choice(images, int(between * images), replace=False)
    vectors[halfway] = (vectors[halfway] + vectors[rng.choice(images, len(halfway))]) / 2
    return vectors, kind


def scale(sizes: list[int]) -> None:
    SpRAy().strategies(drawn(500)[0])  # warm-up
    for images in sizes:
        vectors, kind = drawn(images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        found = SpRAy().strategies(vectors)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{images:6d} x {WIDTH}: {seconds:6.1f} s, peak {peak:.0f} MiB of the process ({before:.0f} before), "
            f"proposed {found.proposed} of {GROUPS}, ARI {adjusted_rand_score(kind, found.labels):.3f}, "
            f"stability {found.stability:.3f}; a dense float64 matrix would be {8 * images**2 / 2**30:.1f} GiB",
            flush=True,
        )


def of_corelay(maps: np.ndarray, count: int) -> np.ndarray:
    """The labels of CoRelAy's pipeline on the same maps."""
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition

    pipeline = SpectralClustering(
        embedding=EigenDecomposition(n_eigval=count), clustering=KMeans(n_clusters=count, is_output=True)
    )
    found = pipeline(normalised(maps).astype(np.float64))
    return np.asarray(found[-1] if isinstance(found, tuple) else found)


def corelay(run: Path | None) -> None:
    spray = SpRAy(relevance="signed", parts=0, shuffles=0)
    for seed in range(3):
        vectors, kind = drawn(1500, seed)
        theirs, ours = of_corelay(vectors, GROUPS), spray.strategies(vectors, count=GROUPS).labels
        print(
            f"drawn, seed {seed}: ARI of CoRelAy and heatprint {adjusted_rand_score(theirs, ours):.3f}, with the truth "
            f"{adjusted_rand_score(theirs, kind):.3f} and {adjusted_rand_score(ours, kind):.3f}"
        )
    if run is None:
        return
    part = Store(run).read("atlas/images", 0)
    predicted = np.array(part.rows["predicted"])
    for name in sorted(set(predicted)):
        maps = part.arrays["maps"].astype(np.float32)[predicted == name]
        maps = maps[np.abs(maps).sum((1, 2)) > 0]  # CoRelAy divides by zero
        for count in (2, 3, 4):
            agreed = adjusted_rand_score(of_corelay(maps, count), spray.strategies(maps, count=count).labels)
            print(f"{name}, {len(maps)} maps in {count}: ARI of CoRelAy and heatprint {agreed:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("scale").add_argument("--images", type=int, nargs="+", default=[10_000, 50_000])
    commands.add_parser("corelay").add_argument("--run", type=Path, help="also the maps of this run folder")
    args = parser.parse_args()
    scale(args.images) if args.command == "scale" else corelay(args.run)


if __name__ == "__main__":
    main()
