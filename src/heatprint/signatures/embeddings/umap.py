"""Uniform manifold approximation and projection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal

import numpy as np

from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.signatures.embeddings.pca import PCA
from heatprint.signatures.neighbours import nearest


@dataclass(frozen=True, kw_only=True)
class UMAP:
    """Uniform manifold approximation and projection (McInnes et al. 2018, arXiv:1802.03426), by umap-learn.

    Distances in the plane show neighbourhoods, not amounts: measure displacement in signature space
    (`heatprint.signatures.embeddings.floor.displacements`). It starts from the principal components, since the spectral
    start hangs on large data, and runs on one thread, since several would not give equal bits. For Euclidean
    distance it is handed the exact nearest neighbours, which is faster than its own search and saves half of the
    compilation. The first map of a process waits for that: see `warm`. `heatprint.signatures.embed` takes duplicates
    together, and places fewer than four different vectors by PCA.

    Attributes:
        neighbours: Size of a neighbourhood, the vector itself included, >= 2; smaller ones show finer structure.
            At most one fewer than there are vectors are used.
        min_dist: How close points may lie, 0 to 1.
        metric: Distance between signatures.
        seed: Of the layout, 0 to 2**32 - 1; equal seeds give equal maps.
    """

    neighbours: int = 15
    min_dist: float = 0.1
    metric: Literal["euclidean", "manhattan", "chebyshev", "cosine", "correlation"] = "euclidean"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.neighbours < 2 or not 0 <= self.min_dist <= 1 or not 0 <= self.seed < 2**32:
            raise InvalidInput(
                f"UMAP: neighbours = {self.neighbours} must be 2 or more, min_dist = {self.min_dist} from 0 to 1, "
                f"seed = {self.seed} from 0 to 2**32 - 1."
            )

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Points [N, 2] of different vectors [N, D], N at least 4 and D at least 2."""
        count = min(self.neighbours, len(vectors) - 1)
        fit = _library().UMAP(
            n_neighbors=count,
            min_dist=self.min_dist,
            metric=self.metric,
            random_state=self.seed,
            n_jobs=1,
            init=_start(vectors, self.seed),
            precomputed_knn=_neighbours(vectors, count) if self.metric == "euclidean" else (None, None, None),
        )
        return np.asarray(fit.fit_transform(vectors), dtype=np.float64)


def warm() -> Thread:
    """Import and compile UMAP in the background, so that the first map does not wait for it.

    Returns:
        The running thread; joining it is not necessary. It does not keep the process alive.
    """
    vectors = stream(0, "umap/warm").normal(size=(64, 8)).astype(np.float32)
    thread = Thread(target=UMAP().embed, args=(vectors,), name="umap/warm", daemon=True)
    thread.start()
    return thread


def _library() -> Any:
    # A filter for its own modules rather than a block without warnings, which would also silence whatever runs
    # beside `warm`, and might leave it silenced. It says that Tensorflow is missing, and that exact neighbours lack
    # the index for placing new points.
    warnings.filterwarnings("ignore", module=r"(umap|numba|pynndescent)\b")
    import umap

    return umap


def _start(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Principal components with a little noise, as umap-learn has them; its own depend on the number of threads."""
    points = PCA().embed(vectors)
    noise = stream(seed, "umap/start").normal(scale=1e-5 * np.abs(points).max(), size=points.shape)
    return np.asarray(points + noise, dtype=np.float32)


def _neighbours(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, None]:
    """Rows and distances [N, count] as umap-learn wants them: each vector is its own first neighbour."""
    others, far = nearest(vectors, count - 1)
    rows = np.column_stack([np.arange(len(vectors)), others])
    return rows, np.column_stack([np.zeros(len(vectors)), far]).astype(np.float32), None
