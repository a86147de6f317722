"""What the heat maps of a group have in common. They come normalised: as vectors whose |values| add up to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def agreement(vectors: np.ndarray) -> float:
    """Mean cosine of normalised maps [n, D] to their mean: 1 where all are the same map, 0 where all are zero."""
    mean = vectors.mean(0, dtype=np.float64)
    sizes = np.linalg.norm(vectors.astype(np.float64), axis=1) * np.linalg.norm(mean)
    cosines = np.divide(vectors @ mean, sizes, out=np.zeros(len(vectors)), where=sizes > 0)
    return float(cosines.mean())


def edge(vectors: np.ndarray, shape: tuple[int, int]) -> float:
    """Mean share of |relevance| of normalised maps [n, h * w] in the outer frame, an eighth of the side wide."""
    height, width = shape
    rows, columns = max(1, height // 8), max(1, width // 8)
    frame = np.ones(shape, dtype=bool)
    frame[rows : height - rows, columns : width - columns] = False
    return float(np.abs(vectors[:, frame.ravel()]).sum(1, dtype=np.float64).mean())


def medoids(vectors: np.ndarray, ids: Sequence[str], count: int) -> np.ndarray:
    """The rows nearest to the mean of vectors [n, D], nearest first, int64 [at most count]; ties go by id."""
    away = np.linalg.norm(vectors - vectors.mean(0, dtype=np.float64), axis=1)
    # rounded, because equal maps in other company may differ in the last digits
    order = sorted(range(len(vectors)), key=lambda row: (round(float(away[row]), 9), ids[row]))
    return np.array(order[:count], dtype=np.int64)
