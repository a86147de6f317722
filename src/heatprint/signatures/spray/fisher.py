"""How far apart groups of vectors lie, along the direction that separates them best."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh
from sklearn.decomposition import PCA

COMPONENTS = 20  # of largest variance: beyond them the variance within groups is known too badly
RIDGE = 1e-3  # of the variance per component


def separability(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Fisher's separability: the largest ratio of the variance between groups to that within (Anders et al. 2022).

    Args:
        vectors: [N, D].
        labels: [N], the group of each.

    Returns:
        0 or more; 0 for one group. Measured among the principal components, at most one for four vectors, and with a
        ridge on the variance within groups: few images must not separate by chance alone.
    """
    kinds, place = np.unique(labels, return_inverse=True)
    count = min(COMPONENTS, len(vectors) // 4, vectors.shape[1])
    if len(kinds) < 2 or count < 1 or not (vectors != vectors[0]).any():  # equal vectors are not apart
        return 0.0
    points = PCA(count, svd_solver="randomized", random_state=0).fit_transform(vectors.astype(np.float64))
    means = np.stack([points[place == number].mean(0) for number in range(len(kinds))])
    inner = points - means[place]
    within, between = inner.T @ inner / len(points), means[place].T @ means[place] / len(points)
    ridge = RIDGE * float(np.trace(within + between)) / count
    if ridge <= 0:
        return 0.0
    return float(eigh(between, within + ridge * np.eye(count), eigvals_only=True)[-1])
