"""Global explanations for bias identification, as published: two views, Isomap, spectral clustering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from heatprint.core.errors import InvalidInput
from heatprint.signatures.neighbours import distinct
from heatprint.signatures.spray.fisher import separability
from heatprint.signatures.spray.spray import checked
from heatprint.signatures.spray.views import isomap, shrunk
from heatprint.signatures.strategies import Strategies, by_size


@dataclass(frozen=True, kw_only=True)
class GEBI:
    """GEBI with its published settings (Mikolajczyk et al. 2020, arXiv:2005.02269, and its code).

    Images and heat maps are shrunk, each is divided by its largest absolute value, each view is reduced by Isomap of 8
    neighbours and scaled to [0, 1] per component, and the two are joined. Spectral clustering on the affinities
    exp(-gamma d^2) of all pairs follows. (The code asks for 8 neighbours there too, but does not use them, because its
    affinity stays the default.) The number of strategies is not proposed but given.

    Deviations: the heat map is the signed one and not the red channel of its picture; images are shrunk by the means
    of areas; what occurs more than once counts once; the pairs are given and not read from two folders in the order
    of the file system; eigenvectors by a dense solver, so that equal input gives equal bits.

    Attributes:
        clusters: How many strategies.
        rescale: The shrunk side as a fraction of the image's, in (0, 1]; heat maps that come smaller stay so.
        map_components: Isomap dimensions of the heat maps.
        image_components: Isomap dimensions of the images.
        gamma: Of the affinity, for components in [0, 1].
        seed: Of the clustering, 0 to 2**32 - 1.
    """

    clusters: int = 4
    rescale: float = 0.2
    map_components: int = 20
    image_components: int = 10
    gamma: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.clusters, self.map_components, self.image_components) < 1:
            raise InvalidInput(
                f"GEBI: clusters = {self.clusters}, map_components = {self.map_components} and image_components = "
                f"{self.image_components} must be 1 or more."
            )
        if not 0 <= self.seed < 2**32:
            raise InvalidInput(f"GEBI: seed = {self.seed}; write a number from 0 to 2**32 - 1.")
        if not (0 < self.rescale <= 1 and 0 < self.gamma < np.inf):
            raise InvalidInput(
                f"GEBI: rescale = {self.rescale} must be in (0, 1] and gamma = {self.gamma} positive; the published "
                "ones are 0.2 and 1."
            )

    def strategies(self, maps: np.ndarray, images: np.ndarray | None = None, *, count: int | None = None) -> Strategies:
        """See `heatprint.signatures.strategies.Clusterer`; the images are needed.

        Raises:
            InvalidInput: No images, or not one per map; values that are not finite; fewer than about 40 different maps
                or images, or more than 5,000.
        """
        from sklearn.cluster import SpectralClustering

        wanted = self.clusters if count is None else count
        if wanted < 1:
            raise InvalidInput(f"GEBI: count = {count}; write 1 or more, or None.")
        with threadpool_limits(1, user_api="blas"):  # the last bits depend on how many threads share the work
            found = distinct(self._combined(maps, images))
            wanted = min(wanted, len(found.vectors) - 1)  # of which the solver can find no more
            fit = SpectralClustering(
                n_clusters=wanted, assign_labels="discretize", gamma=self.gamma, random_state=self.seed
            )
            grouped = fit.fit_predict(found.vectors.astype(np.float64))
        labels = by_size(grouped, found.copies)[found.place]
        several = int(labels.max()) + 1
        nothing = np.empty(0)
        return Strategies(
            labels=labels,
            count=several,
            proposed=several,
            eigenvalues=nothing,
            null=nothing,
            embedding=np.empty((len(labels), 0)),
            stability=np.nan,
            separability=separability(found.vectors, grouped),
        )

    def _combined(self, maps: np.ndarray, images: np.ndarray | None) -> np.ndarray:
        """Both views reduced to [0, 1] and joined, [N, C]."""
        side = 1 if images is None else max(1, round(self.rescale * min(images.shape[2:], default=1)))
        views = shrunk(images, len(maps), side), shrunk(maps[:, None], len(maps), side) if maps.ndim == 3 else maps
        counts = self.image_components, self.map_components
        return np.hstack([_view(view, components) for view, components in zip(views, counts, strict=True)])


def _view(values: np.ndarray, components: int) -> np.ndarray:
    """One view [N, ...] reduced by Isomap, each component in [0, 1]."""
    from sklearn.preprocessing import minmax_scale

    vectors = checked(values).astype(np.float32)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    found = distinct(np.divide(vectors, largest, out=np.zeros_like(vectors), where=largest > 0))
    return np.asarray(minmax_scale(isomap(found.vectors, components))[found.place])
