"""Gaussian kernel density of vectors, class by class, with a bandwidth that no kernel's own point can flatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

BANDWIDTHS = 2.0 ** np.linspace(-5, 3, 33)  # tried, in units of the vectors' deviation
BLOCK = 512  # vectors at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Density:
    """Kernels of one width around centres.

    Attributes:
        centres: float32 [M, D].
        classes: int64 [M], the class of each.
        bandwidth: Standard deviation of the kernels, in the vectors' unit.
        sources: int64 [M], what each was made from, where that is known: its own kernel is then left out of a vector's
            density.
    """

    centres: np.ndarray
    classes: np.ndarray
    bandwidth: float
    sources: np.ndarray | None = None

    def log(self, vectors: np.ndarray, classes: np.ndarray, *, sources: np.ndarray | None = None) -> np.ndarray:
        """Log density at vectors [N, D] under the kernels of one class each, float64 [N].

        Where fewer than two sources of a class have kernels, those of all classes count.

        Args:
            vectors: Where.
            classes: int64 [N], whose kernels.
            sources: int64 [N]; kernels of the same source are left out (leave-one-out). None where the vectors are of
                images that no kernel was made from.
        """
        found = np.empty(len(vectors))
        for start in range(0, len(vectors), BLOCK):
            part = np.arange(start, min(start + BLOCK, len(vectors)))
            for label in np.unique(classes[part]):
                rows = part[classes[part] == label]
                kernels = self.kernels(int(label))
                square = cdist(
                    vectors[rows].astype(np.float64), self.centres[kernels].astype(np.float64), "sqeuclidean"
                )
                if sources is not None and self.sources is not None:
                    square[sources[rows, None] == self.sources[kernels]] = np.inf
                found[rows] = log_kernels(square, self.bandwidth, self.centres.shape[1])
        return found

    def kernels(self, label: int) -> np.ndarray:
        """Which kernels count for a class, rows [m]."""
        own = np.flatnonzero(self.classes == label)
        different = len(own) if self.sources is None else len(np.unique(self.sources[own]))
        return own if different >= 2 else np.arange(len(self.classes))


def log_kernels(square: np.ndarray, bandwidth: float, dimensions: int) -> np.ndarray:
    """Log mean of Gaussian kernels [N] at square distances [N, M]; infinite distances stand for kernels left out."""
    counted = np.isfinite(square).sum(1)
    constant = np.log(counted) + dimensions * (np.log(bandwidth) + 0.5 * np.log(2 * np.pi))
    found: np.ndarray = logsumexp(-square / (2 * bandwidth**2), axis=1) - constant
    return found


def fitted(centres: np.ndarray, classes: np.ndarray, sources: np.ndarray) -> Density:
    """Kernels around these centres, as wide as makes each centre likeliest under the other sources' kernels.

    That is likelihood cross-validation, leaving one source out at a time (Habbema, Hermans and van den Broek 1974;
    Duin 1976). Dimensions in which no centre differs from another do not count, or they would ask for a width of zero.

    Args:
        centres: float32 [M, D], of two sources or more.
        classes: int64 [M].
        sources: int64 [M]; copies of one image share it.
    """
    varied = max(1, int((np.ptp(centres, axis=0) > 0).sum()))
    scale = float(np.sqrt(centres.astype(np.float64).var(0).sum() / varied)) or 1.0
    density = Density(centres=centres, classes=classes, bandwidth=scale, sources=sources)
    likelihood = np.zeros(len(BANDWIDTHS))
    for label in np.unique(classes):
        own, kernels = np.flatnonzero(classes == label), density.kernels(int(label))
        square = cdist(centres[own].astype(np.float64), centres[kernels].astype(np.float64), "sqeuclidean")
        square[sources[own, None] == sources[kernels]] = np.inf
        likelihood += [log_kernels(square, scale * width, varied).sum() for width in BANDWIDTHS]
    bandwidth = scale * float(BANDWIDTHS[likelihood.argmax()])
    return Density(centres=centres, classes=classes, bandwidth=bandwidth, sources=sources)
