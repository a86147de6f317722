"""Two views of each image, the image itself and its heat map, on one footing."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from heatprint.core.errors import InvalidInput
from heatprint.signatures.maps import sum_pooled
from heatprint.signatures.neighbours import distinct
from heatprint.signatures.spray.spray import SpRAy, normalised
from heatprint.signatures.strategies import Strategies

LIMIT = 5000  # different vectors that Isomap takes: 600 MB of distances, minutes of eigenvectors
BLOCK = 4096  # vectors whose double precision copies are held at a time


@dataclass(frozen=True, kw_only=True)
class TwoViews:
    """Image-and-heat-map SpRAy (Mikolajczyk et al. 2020, arXiv:2005.02269): each view reduced, combined, clustered.

    Maps and images alike are divided by their sums of absolute values. Each view is reduced to a few components and
    scaled until its mean square distance is 1, and the two are joined with weights sqrt(alpha) and sqrt(1 - alpha):
    the square distance of two images is alpha times that of their maps plus (1 - alpha) times that of their pixels.
    Vectors that occur more than once count once in the reduction.

    Deviations from the paper, which `GEBI` repeats: the views are weighted by alpha and not by the number of their
    components, and clustered by SpRAy on a graph of neighbours, which proposes the number of strategies.

    Attributes:
        alpha: 0 for the images alone to 1 for the heat maps alone; what has no weight is not looked at.
        reduce: ``"pca"``, or ``"isomap"`` as published, for 5,000 different maps at most.
        map_components: Most dimensions kept of the heat maps.
        image_components: Most dimensions kept of the images.
        side: The images are shrunk to so many pixels a side; smaller ones keep their size.
        spray: Clusters the combined vectors as they are and without a null spectrum, so that its own `relevance` and
            `shuffles` do not count. (Components shuffled one by one keep the heaps along the first, which is no null.)
    """

    alpha: float = 0.5
    reduce: Literal["pca", "isomap"] = "pca"
    map_components: int = 20
    image_components: int = 10
    side: int = 28
    spray: SpRAy = field(default_factory=SpRAy)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InvalidInput(f"TwoViews: alpha = {self.alpha}; write 0 (images alone) to 1 (heat maps alone).")
        if self.reduce not in ("pca", "isomap"):
            raise InvalidInput(f"TwoViews: reduce = {self.reduce!r}; write 'pca' or 'isomap'.")
        if min(self.map_components, self.image_components, self.side) < 1:
            raise InvalidInput(
                f"TwoViews: map_components = {self.map_components}, image_components = {self.image_components} and "
                f"side = {self.side} must be 1 or more."
            )

    def strategies(self, maps: np.ndarray, images: np.ndarray | None = None, *, count: int | None = None) -> Strategies:
        """See `heatprint.signatures.strategies.Clusterer`; refuses what `combined` refuses."""
        spray = replace(self.spray, relevance="as given", shuffles=0)
        return spray.strategies(self.combined(maps, images), count=count)

    def combined(self, maps: np.ndarray, images: np.ndarray | None = None) -> np.ndarray:
        """The vectors that are clustered.

        Args:
            maps: [N, ...], heat maps or signatures.
            images: [N, C, h, w]; None only with ``alpha=1``.

        Returns:
            float32 [N, C], in no meaningful units: their mean square distance is about 1.

        Raises:
            InvalidInput: No maps, no images where they count, or another number of them; values that are not finite;
                too many or too few for Isomap.
        """
        views = []
        with threadpool_limits(1, user_api="blas"):  # the last bits depend on how many threads share the work
            if self.alpha > 0:
                views.append(math.sqrt(self.alpha) * self._view(normalised(maps), self.map_components))
            if self.alpha < 1:
                seen = normalised(shrunk(images, len(maps), self.side))
                views.append(math.sqrt(1 - self.alpha) * self._view(seen, self.image_components))
        return np.hstack(views).astype(np.float32)

    def _view(self, vectors: np.ndarray, components: int) -> np.ndarray:
        """One view [N, D] reduced to float64 [N, C], of mean square distance 1, or 0 where all are the same."""
        found = distinct(vectors)
        points = (isomap if self.reduce == "isomap" else principal)(found.vectors, components)
        # over all pairs, the mean square distance is twice the variance
        spread = 2 * points.var(axis=0, ddof=1).sum() if len(points) > 1 else 0.0
        return np.asarray((points / math.sqrt(spread) if spread else points)[found.place])


def shrunk(images: np.ndarray | None, count: int, side: int) -> np.ndarray:
    """Images [N, C, h, w] pooled to at most `side` pixels a side, float32.

    Raises:
        InvalidInput: No images, or not one per map.
    """
    if images is None or images.ndim != 4 or len(images) != count:
        came = "none" if images is None else list(images.shape)
        raise InvalidInput(f"two views: one image per map is needed, [{count}, C, h, w]; got {came}.")
    side = min(side, *images.shape[2:])
    return sum_pooled(images.reshape(-1, *images.shape[2:]), side).reshape(*images.shape[:2], side, side)


def principal(vectors: np.ndarray, components: int) -> np.ndarray:
    """Different vectors [M, D] along their directions of largest variance, float64 [M, at most `components`]."""
    mean, size = vectors.mean(axis=0, dtype=np.float64), vectors.shape[1]
    scatter = np.zeros((size, size))
    for start in range(0, len(vectors), BLOCK):
        centred = vectors[start : start + BLOCK] - mean
        scatter += centred.T @ centred
    kept = min(components, *vectors.shape)
    directions = eigh(scatter, subset_by_index=(size - kept, size - 1))[1][:, ::-1]
    parts = [(vectors[start : start + BLOCK] - mean) @ directions for start in range(0, len(vectors), BLOCK)]
    return np.concatenate(parts)


def isomap(vectors: np.ndarray, components: int, neighbours: int = 8) -> np.ndarray:
    """Different vectors [M, D] by Isomap (Tenenbaum et al. 2000), float64 [M, components].

    Raises:
        InvalidInput: More than 5,000, or too few for so many neighbours and components.
    """
    from sklearn.manifold import Isomap

    if len(vectors) > LIMIT:
        raise InvalidInput(
            f"isomap: {len(vectors)} different vectors; all their distances are held at once, so {LIMIT} are the "
            "most. Write reduce='pca'."
        )
    if len(vectors) > max(neighbours, components):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a graph in parts, which are joined where they are closest
                fit = Isomap(n_neighbors=neighbours, n_components=components, eigen_solver="dense")
                return np.asarray(fit.fit_transform(vectors.astype(np.float64)))
        except ValueError:
            pass  # geodesics of few vectors do not fit into so many dimensions
    raise InvalidInput(
        f"isomap: {len(vectors)} different vectors are too few for {components} components of {neighbours} "
        "neighbours. Ask for fewer components, take more images, or write reduce='pca'."
    )
