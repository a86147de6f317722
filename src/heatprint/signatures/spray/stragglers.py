"""Maps far from nearly all others: groups too small to be a strategy, which would hide the ones that are.

In a large set a dozen maps always lie by themselves. Each such group puts a small eigenvalue between those of the
strategies and the gap behind them, however few edges it hangs by (Zhang and Rohe 2018, "Understanding regularized
spectral clustering via graph conductance", who add a constant to the graph instead; leaving the few out keeps it sparse
and the other eigenvalues as they are).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from heatprint.signatures.neighbours import nearest
from heatprint.signatures.spray.graph import Spectrum, smallest


def without_stragglers(
    graph: sparse.csr_matrix, rare: float, count: int, *, seed: int = 0
) -> tuple[np.ndarray, Spectrum]:
    """The vertices of frequent groups and the smallest eigenvalues of the graph among them.

    Args:
        graph: Symmetric, every vertex with an edge, [M, M].
        rare: Share of the vertices below which a group is left out, 0 to below 1.
        count: How many eigenvalues; fewer where fewer vertices are left.
        seed: Of the eigenvectors' start.

    Returns:
        Rows int64 [K], ascending, and the spectrum of ``graph[rows][:, rows]``, where every vertex has an edge. What
        is left out is never the larger half: where every part is rare, that is what the set is like, and all rows are
        kept. Never fewer than `count` rows of a graph that has so many.
    """
    size = graph.shape[0]
    fewest, enough = rare * size, max(min(count, size), size / 2)
    kept = np.arange(size)
    left = _frequent(graph, kept, fewest)
    while len(left) >= enough:
        kept = left
        spectrum = smallest(graph[kept][:, kept], count, seed=seed)
        hanging = _hanging(spectrum, fewest)
        if not hanging.any():
            return kept, spectrum
        left = _frequent(graph, kept[~hanging], fewest)
    return kept, smallest(graph[kept][:, kept], count, seed=seed)


def joins(vectors: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """For each of the vectors [M, D] the place among the kept ones, int64 [M]: its own, or that of the nearest."""
    places = np.full(len(vectors), -1, dtype=np.int64)
    places[kept] = np.arange(len(kept))
    others = np.flatnonzero(places < 0)
    if len(others):
        places[others] = nearest(vectors[kept], 1, queries=vectors[others])[0][:, 0]
    return places


def _frequent(graph: sparse.csr_matrix, rows: np.ndarray, fewest: float) -> np.ndarray:
    """Those of the rows in connected parts of at least `fewest` vertices."""
    if not len(rows):
        return rows
    _, part = connected_components(graph[rows][:, rows], directed=False)
    return np.asarray(rows[np.bincount(part)[part] >= fewest])


def _hanging(spectrum: Spectrum, fewest: float) -> np.ndarray:
    """Which vertices carry an eigenvector that lives on fewer than so many, bool [K].

    An eigenvector of length 1 lives on 1 / sum v^4 vertices (the inverse participation ratio); at most `fewest` of
    its squares are above 1 / `fewest`. Its eigenvalue is the share of edges that leave these vertices, about: from 1/2
    they hang on to more others than to each other.
    """
    if fewest <= 1:
        return np.zeros(len(spectrum.vectors), dtype=bool)
    squares = spectrum.vectors**2
    local = (1 / (squares**2).sum(0) < fewest) & (spectrum.values < 0.5)
    return np.asarray((squares[:, local] > 1 / fewest).any(1))
