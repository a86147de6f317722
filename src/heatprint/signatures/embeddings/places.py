"""New images on a finished map, deterministically and within milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heatprint.core.errors import InvalidInput
from heatprint.signatures.neighbours import distinct, nearest


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Where new vectors lie on a map; to be shown as approximate.

    Attributes:
        points: float64 [M, 2].
        distance: float64 [M], Euclidean, to the nearest fitted vector in signature space.
        usual: How far a fitted vector lies from its nearest: the 99th percentile; 0 where only one is different.
        outside: bool [M], `distance` is above `usual`: the map knows nothing like it, and its place says little.
    """

    points: np.ndarray
    distance: np.ndarray
    usual: float
    outside: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A finished map that new points can be placed on; see `fitted`.

    Attributes:
        vectors: float32 [N, D], the different fitted ones, in the order of `distinct`.
        points: float64 [N, 2], their places.
        usual: See `Placed`.
    """

    vectors: np.ndarray
    points: np.ndarray
    usual: float

    def place(self, new: np.ndarray, *, neighbours: int = 5) -> Placed:
        """Places of new vectors [M, D]; see `place`."""
        if new.ndim != 2 or new.shape[1] != self.vectors.shape[1] or not np.isfinite(new).all():
            raise InvalidInput(
                f"place: finite vectors [M, {self.vectors.shape[1]}] like the fitted ones are needed, "
                f"got {list(new.shape)}. Sign the new images by the signer of the map."
            )
        if neighbours < 1:
            raise InvalidInput(f"place: neighbours = {neighbours} must be 1 or more, e.g. 5.")
        found = [self._one(vector, neighbours) for vector in new.astype(np.float32)]
        distance = np.array([far for _, far in found], dtype=np.float64)
        return Placed(
            points=np.array([point for point, _ in found], dtype=np.float64).reshape(-1, 2),
            distance=distance,
            usual=self.usual,
            outside=distance > self.usual,
        )

    def _one(self, vector: np.ndarray, neighbours: int) -> tuple[np.ndarray, float]:
        # one at a time and by differences: a product of matrices rounds by how many rows it has
        gap = self.vectors - vector
        square = np.einsum("nd,nd->n", gap, gap)
        near = np.argsort(square, kind="stable")[:neighbours]
        far = np.sqrt(np.square(gap[near], dtype=np.float64).sum(1))
        order = np.argsort(far, kind="stable")
        near, far = near[order], far[order]
        if far[0] == 0:
            return self.points[near[0]], 0.0
        weights = far[0] / far
        return weights @ self.points[near] / weights.sum(), float(far[0])


def fitted(points: np.ndarray, vectors: np.ndarray) -> Fitted:
    """A map ready for new points: what `place` needs to know of it, found once.

    Args:
        points: Places [N, 2], by `heatprint.signatures.embed`: equal vectors have equal places.
        vectors: Signatures [N, D], in the same order.

    Raises:
        InvalidInput: The two do not belong together, are empty or are not finite.
    """
    if vectors.ndim != 2 or points.shape != (len(vectors), 2) or not len(vectors):
        raise InvalidInput(
            f"place: places [N, 2] of vectors [N, D] are needed, got {list(points.shape)} and {list(vectors.shape)}."
        )
    if not np.isfinite(points).all() or not np.isfinite(vectors).all():
        raise InvalidInput("place: places or vectors are not finite.")
    different = distinct(vectors)
    places = np.empty((len(different.vectors), 2))
    places[different.place] = points
    usual = float(np.quantile(nearest(different.vectors, 1)[1], 0.99)) if len(places) > 1 else 0.0
    return Fitted(vectors=different.vectors, points=places, usual=usual)


def place(points: np.ndarray, vectors: np.ndarray, new: np.ndarray, *, neighbours: int = 5) -> Placed:
    """Places of new vectors on a map that stays as it is: the mean of the nearest fitted ones' places.

    Each counts by its inverse distance in signature space (Shepard 1968); a vector equal to a fitted one lies exactly
    on it. What else is placed at the same time changes nothing, and neither does the order of the rows. A place is
    never outside the fitted ones, however strange the vector: `Placed.outside` tells. For more than one call,
    `fitted(points, vectors).place(new)` measures the map only once.

    Args:
        points: Places [N, 2] of the fitted vectors.
        vectors: The fitted vectors [N, D].
        new: Vectors [M, D].
        neighbours: How many count, >= 1; all where fewer are different.

    Raises:
        InvalidInput: Shapes do not belong together, or values are not finite.
    """
    return fitted(points, vectors).place(new, neighbours=neighbours)
