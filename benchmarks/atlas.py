"""How long SpRAy takes and how much memory, over the number of signatures.

    python benchmarks/atlas.py scale --images 10000 50000
    python benchmarks/atlas.py corelay            # agreement with CoRelAy, where it is installed

The signatures are drawn: eight groups of unequal size, each a flat cloud of eight directions in 512, with a few
signatures halfway between two groups, so that the graph is connected and the eigenvalues are not trivial.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from sklearn.metrics import adjusted_rand_score

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


def corelay() -> None:
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition

    for seed in range(3):
        vectors, kind = drawn(1500, seed)
        maps = normalised(vectors).astype(np.float64)
        theirs = SpectralClustering(
            embedding=EigenDecomposition(n_eigval=GROUPS), clustering=KMeans(n_clusters=GROUPS, is_output=True)
        )(maps)
        labels = np.asarray(theirs[-1] if isinstance(theirs, tuple) else theirs)
        ours = SpRAy().strategies(vectors, count=GROUPS)
        print(
            f"seed {seed}: ARI between CoRelAy and heatprint {adjusted_rand_score(labels, ours.labels):.3f}, "
            f"CoRelAy and truth {adjusted_rand_score(labels, kind):.3f}, "
            f"heatprint and truth {adjusted_rand_score(ours.labels, kind):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("scale").add_argument("--images", type=int, nargs="+", default=[10_000, 50_000])
    commands.add_parser("corelay")
    args = parser.parse_args()
    scale(args.images) if args.command == "scale" else corelay()


if __name__ == "__main__":
    main()
