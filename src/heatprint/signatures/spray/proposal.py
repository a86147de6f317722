"""How many strategies there are: the eigengap, held against how well the groups it stands for are really separated."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from heatprint.signatures.spray.graph import Spectrum

RESTARTS = 10


def groups(spectrum: Spectrum, count: int, *, seed: int = 0) -> np.ndarray:
    """k-means on the rows of the first `count` eigenvectors: int64 [M]."""
    if count == 1:
        return np.zeros(len(spectrum.vectors), dtype=np.int64)
    fit = KMeans(count, n_init=RESTARTS, random_state=seed % 2**32)
    with threadpool_limits(1):  # its threads wait for each other longer than they work
        return np.asarray(fit.fit_predict(spectrum.rows(count)), dtype=np.int64)


def conductance(graph: sparse.csr_matrix, labels: np.ndarray) -> float:
    """The worst group's share of edge weight that leaves it, 0 to 1."""
    kinds = np.unique(labels)
    marks = sparse.csr_matrix((labels[:, None] == kinds[None]).astype(np.float64))
    between = (marks.T @ graph @ marks).toarray()
    volume = between.sum(1)
    return float(((volume - between.diagonal()) / volume).max())


def separation(graph: sparse.csr_matrix, spectrum: Spectrum, labels: np.ndarray) -> float:
    """How well a graph falls into these k groups: the eigenvalue k + 1 over the worst group's conductance.

    The quantity of Peng, Sun and Zanetti (2015, "Partitioning well-clustered graphs"): what holds each group together,
    over what ties it to the others. Around 1 or below where one even cloud is cut up, infinite where groups are not
    connected at all.
    """
    cut = conductance(graph, labels)
    inner = float(spectrum.values[len(np.unique(labels))])
    if inner <= 0:
        return 0.0
    return inner / cut if cut > 0 else float("inf")


def candidates(graph: sparse.csr_matrix, spectrum: Spectrum, *, least: float, seed: int = 0) -> list[int]:
    """Counts of groups, two and more, that are well separated; the one before the largest eigengap comes first.

    Args:
        graph: The graph.
        spectrum: Of its Laplacian.
        least: Smallest `separation` that counts.
        seed: Of k-means.
    """
    values = spectrum.values
    found = []
    for count in range(2, len(values)):
        # a group's conductance is at least half its eigenvalue (Lee, Oveis Gharan and Trevisan 2014), so a small
        # ratio of eigenvalues rules the count out before any k-means
        ruled_out = values[count] < least / 2 * values[count - 1]
        if not ruled_out and separation(graph, spectrum, groups(spectrum, count, seed=seed)) >= least:
            found.append(count)
    return sorted(found, key=lambda count: (values[count - 1] - values[count], count))
