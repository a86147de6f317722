"""Principal components: the map that is always there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits


@dataclass(frozen=True, kw_only=True)
class PCA:
    """The two directions of largest variance (Pearson 1901), by singular values in float64.

    The sign of each direction is that which makes its largest loading positive, so that equal vectors give equal
    maps. It is linear: distances in it are never longer than between the vectors, and what does not fit into two
    directions is not seen. One vector lies at the origin; vectors on a line stay on a line.
    """

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Points [N, 2] of vectors [N, D], N and D at least 1; the missing axes of a single column are 0."""
        centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
        points = np.zeros((len(vectors), 2))
        with threadpool_limits(limits=1, user_api="blas"):  # the last bits depend on how many threads share the work
            # the triangle has the directions of the whole, and is far smaller where vectors outnumber columns
            triangle = np.linalg.qr(centred, mode="r")
            axes = np.linalg.svd(triangle, full_matrices=False)[2][:2]
            largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
            points[:, : len(axes)] = centred @ (axes * np.sign(largest)).T
        return points
