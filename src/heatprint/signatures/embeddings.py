"""Maps of signatures in the plane."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heatprint.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class PCA:
    """The two directions of largest variance; the sign of each is fixed by its largest loading."""

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """See `heatprint.core.protocols.Embedder`."""
        from sklearn.decomposition import PCA as Fit

        return np.asarray(Fit(n_components=2, svd_solver="full").fit_transform(vectors.astype(np.float64)))


@dataclass(frozen=True, kw_only=True)
class UMAP:
    """Uniform manifold approximation and projection (McInnes et al. 2018), by umap-learn.

    Distances in the plane show neighbourhoods, not amounts: measure displacement in signature space.

    Attributes:
        neighbours: Size of a neighbourhood; smaller ones show finer structure.
        min_dist: How close points may lie.
        metric: Distance between signatures.
        seed: Of the layout; equal seeds give equal maps.
    """

    neighbours: int = 15
    min_dist: float = 0.1
    metric: Literal["euclidean", "manhattan", "chebyshev", "cosine", "correlation"] = "euclidean"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.neighbours < 2 or not 0 <= self.min_dist <= 1:
            raise InvalidInput(
                f"UMAP: neighbours = {self.neighbours} must be 2 or more, min_dist = {self.min_dist} from 0 to 1."
            )

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """See `heatprint.core.protocols.Embedder`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numba, and of n_jobs being one when a seed is set
            from umap import UMAP as Fit

            fit = Fit(
                n_neighbors=min(self.neighbours, len(vectors) - 1),
                min_dist=self.min_dist,
                metric=self.metric,
                random_state=self.seed,
                n_jobs=1,
                init="pca" if len(vectors) > self.neighbours else "random",
            )
            return np.asarray(fit.fit_transform(vectors), dtype=np.float64)
