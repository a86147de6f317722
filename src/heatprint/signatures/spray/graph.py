"""The graph of maps that look alike, and the smallest eigenvalues of its Laplacian.

Part by part: the Laplacian of a graph that falls apart has one eigenvalue 0 for each part, and a Lanczos iteration
on the whole can miss some of them. Within a part the eigenvalue 0 occurs once and its eigenvector is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from heatprint.core.streams import stream
from heatprint.signatures.neighbours import nearest

DENSE = 400  # vertices up to which all eigenvalues are found at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """The smallest eigenvalues of a normalised Laplacian.

    Attributes:
        values: float64 [E], ascending, from 0 to at most 2.
        vectors: float64 [M, E], one column per eigenvalue.
    """

    values: np.ndarray
    vectors: np.ndarray

    def rows(self, count: int) -> np.ndarray:
        """Rows of the first `count` eigenvectors, each of length 1 (Ng, Jordan and Weiss 2002); zero rows stay."""
        rows = self.vectors[:, :count]
        sizes = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(np.divide(rows, sizes, out=np.zeros_like(rows), where=sizes > 0))


def neighbour_graph(vectors: np.ndarray, neighbours: int) -> sparse.csr_matrix:
    """The symmetric graph of nearest neighbours of distinct vectors [M, D].

    An edge weighs 1 where both vertices count each other among their nearest, 1/2 where one does.

    Args:
        vectors: Distinct.
        neighbours: How many; of fewer vectors all others.

    Returns:
        Sparse [M, M], with a zero diagonal.
    """
    size = len(vectors)
    found, _ = nearest(vectors, min(neighbours, size - 1))
    ends = np.arange(0, found.size + 1, found.shape[1])
    one_way = sparse.csr_matrix((np.ones(found.size), found.ravel(), ends), shape=(size, size))
    return ((one_way + one_way.T) / 2).tocsr()


def smallest(graph: sparse.csr_matrix, count: int, *, seed: int = 0) -> Spectrum:
    """The `count` smallest eigenvalues of I - D^-1/2 A D^-1/2, or all of a smaller graph.

    Args:
        graph: Symmetric, non-negative, every vertex with an edge, [M, M].
        count: How many eigenvalues.
        seed: Of the iteration's start.
    """
    size = graph.shape[0]
    scale = sparse.diags(1 / np.sqrt(np.asarray(graph.sum(1)).ravel()))
    affinity = (scale @ graph @ scale).tocsr()
    pieces, member = connected_components(graph, directed=False)
    parts = [np.flatnonzero(member == piece) for piece in range(pieces)]
    found = [_largest(affinity[inside][:, inside], min(count, len(inside)), seed) for inside in parts]
    every = np.concatenate([1 - largest for largest, _ in found])
    order = np.argsort(every, kind="stable")[:count]
    whole = np.zeros((size, len(order)))
    whose = [(part, own) for part, (largest, _) in enumerate(found) for own in range(len(largest))]
    for column, number in enumerate(order):
        part, own = whose[number]
        whole[parts[part], column] = found[part][1][:, own]
    return Spectrum(values=every[order].clip(0, 2), vectors=whole)


def _largest(affinity: sparse.csr_matrix, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of a connected part, falling, and their eigenvectors; each vector's sign is fixed."""
    size = affinity.shape[0]
    if size <= max(DENSE, 3 * count):
        values, vectors = np.linalg.eigh(affinity.toarray())
        values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    else:
        start = stream(seed, "spray/eigenvectors", size).standard_normal(size)
        values, vectors = eigsh(affinity, k=count, which="LA", v0=start, ncv=max(2 * count + 1, 40), tol=1e-8)
        order = np.argsort(-values)
        values, vectors = values[order], vectors[:, order]
    first = vectors[np.abs(vectors).argmax(0), np.arange(count)]
    return values, vectors * np.sign(first)
