"""Exact nearest neighbours in blocks, and vectors that occur more than once.

Attacks that fail leave an image as it was, so equal signatures are the normal case here. They are taken together
before anything is asked about neighbours: an image cannot fill the neighbourhood of its own copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from heatprint.core.errors import InvalidInput

BLOCK = 2**25  # distances held at a time: 128 MiB
SPARE = 8  # candidates kept beyond those asked for, because their first distances are rounded


@dataclass(frozen=True, kw_only=True, eq=False)
class Distinct:
    """The different ones among some vectors, in an order that depends on their values alone.

    Attributes:
        vectors: float32 [M, D].
        place: int64 [N], the row of `vectors` that each original one is.
        copies: int64 [M], how often each occurs.
    """

    vectors: np.ndarray
    place: np.ndarray
    copies: np.ndarray


def distinct(vectors: np.ndarray) -> Distinct:
    """The different rows of vectors [N, D]; whatever is computed from them cannot depend on the order of the rows."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    whole = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, first, place, copies = np.unique(whole, return_index=True, return_inverse=True, return_counts=True)
    return Distinct(vectors=rows[first], place=place.ravel(), copies=copies)


def nearest(points: np.ndarray, count: int, *, queries: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of points [M, D] by Euclidean distance; ties go to the lower row.

    Memory beyond the vectors is one block of distances, whatever M is.

    Args:
        points: Where to look.
        count: How many, at most M, or M - 1 of the points' own.
        queries: Whose neighbours, [N, D]; None for the points' own, where no point is its own neighbour.

    Returns:
        Rows int64 [N, count], nearest first, and distances float64 [N, count].

    Raises:
        InvalidInput: More are asked for than there are.
    """
    own = queries is None
    asked = points if queries is None else queries
    if not 1 <= count <= len(points) - own:
        raise InvalidInput(f"nearest: {count} neighbours of {len(points)} points; ask for 1 to {len(points) - own}.")
    base = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
    base = base - base.mean(0)  # distances by inner products lose digits far from the origin
    moved = (
        base if own else torch.from_numpy(np.ascontiguousarray(asked, np.float32) - points.mean(0, dtype=np.float32))
    )
    sizes = base.square().sum(1)
    rows, far = np.empty((len(asked), count), np.int64), np.empty((len(asked), count))
    held = min(count + SPARE + own, len(points))
    for part in torch.split(torch.arange(len(asked)), max(1, BLOCK // len(points))):
        # |q|^2 is the same for all candidates of a query, so the order does not need it
        close = torch.addmm(sizes[None], moved[part], base.T, alpha=-2.0)
        found = close.topk(held, dim=1, largest=False, sorted=False).indices.sort(1).values.numpy()
        rows[part], far[part] = _refined(points, asked, part.numpy(), found, count, own=own)
    return rows, far


def _refined(
    points: np.ndarray, asked: np.ndarray, part: np.ndarray, found: np.ndarray, count: int, *, own: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest among candidates [n, held], in ascending row order, by distances without cancellation."""
    exact = np.empty(found.shape)
    for column in range(found.shape[1]):  # one column at a time bounds the memory
        gap = points[found[:, column]].astype(np.float64) - asked[part]
        exact[:, column] = np.einsum("nd,nd->n", gap, gap)
    if own:
        exact[found == part[:, None]] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(found, order, 1), np.sqrt(np.take_along_axis(exact, order, 1))
