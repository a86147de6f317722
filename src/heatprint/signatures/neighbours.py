"""Exact nearest neighbours in blocks, and vectors that occur more than once.

Attacks that fail leave an image as it was, so equal signatures are the normal case here. They are taken together
before anything is asked about neighbours: an image cannot fill the neighbourhood of its own copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

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


def check_finite(who: str, what: str, rows: np.ndarray) -> None:
    """Refuse rows [N, D] that hold NaN or infinity, or will when they are made float32.

    Raises:
        InvalidInput: With the number of such rows, in the words given.
    """
    values, most = np.asarray(rows), np.finfo(np.float32).max
    finite = (values.max(1, initial=0) <= most) & (values.min(1, initial=0) >= -most)
    if not finite.all():
        raise InvalidInput(
            f"{who}: {(~finite).sum()} of {len(rows)} {what} hold NaN, infinity or values beyond float32; leave these "
            "images out."
        )


def distinct(vectors: np.ndarray) -> Distinct:
    """The different rows of vectors [N, D]; whatever is computed from them cannot depend on the order of the rows."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    whole = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, first, place, copies = np.unique(whole, return_index=True, return_inverse=True, return_counts=True)
    return Distinct(vectors=rows[first], place=place.ravel(), copies=copies)


def nearest(points: np.ndarray, count: int, *, queries: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of points [M, D] by Euclidean distance; ties go to the lower row.

    Candidates come from inner products, which are fast and rounded, and are then ordered by differences. Where the
    rounding may have hidden a nearer point, the query is repeated in double precision, and if need be by differences
    to all points. Memory beyond the vectors is one block of distances, whatever M is.

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
    rows, far = np.empty((len(asked), count), np.int64), np.empty((len(asked), count))
    unsure = np.arange(len(asked))
    for kind in (np.float32, np.float64):
        if not len(unsure):
            break
        base, moved, scale = _centred(points, asked, kind)
        missed = np.zeros(len(asked), dtype=bool)
        for part in _blocks(unsure, len(points)):
            found, beyond = _candidates(base, moved[part], min(count + SPARE + own, len(points)))
            rows[part], far[part] = _first(_gaps(points, asked, part, found), found, part if own else None, count)
            missed[part] = np.square(far[part, -1] / scale) >= beyond
        unsure = np.flatnonzero(missed)
    for part in _blocks(unsure, len(points)):
        found = np.broadcast_to(np.arange(len(points)), (len(part), len(points)))
        exact = cdist(asked[part], points, "sqeuclidean")
        rows[part], far[part] = _first(exact, found, part if own else None, count)
    return rows, far


def _blocks(rows: np.ndarray, points: int) -> Iterator[np.ndarray]:
    """The rows in blocks whose distances to so many points fit into memory."""
    size = max(1, BLOCK // points)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _centred(points: np.ndarray, asked: np.ndarray, kind: type[np.floating]) -> tuple[Tensor, Tensor, float]:
    """Both in units of a power of two near their largest value, less the points' mean, and that unit.

    Inner products lose digits far from the origin, and squares of very large and very small values leave the range.
    A power of two rounds nothing.
    """
    _, power = np.frexp(max(np.abs(points).max(initial=0), np.abs(asked).max(initial=0)))
    wide = np.result_type(points, kind)
    base = np.ldexp(points, -power).astype(wide, copy=False)
    mean = base.mean(0, dtype=np.float64).astype(wide)
    moved = base if asked is points else np.ldexp(asked, -power).astype(wide, copy=False)
    first, second = (torch.from_numpy((values - mean).astype(kind, copy=False)) for values in (base, moved))
    return first, first if asked is points else second, float(np.ldexp(1.0, power))


def _candidates(base: Tensor, queries: Tensor, held: int) -> tuple[np.ndarray, np.ndarray]:
    """So many points [n, held] near each query, in ascending row order, and what no other's square distance is below.

    The bound [n] is that of Higham (2002, "Accuracy and Stability of Numerical Algorithms", section 3.1) for inner
    products in any order, with room for the rounding of the vectors themselves.
    """
    sizes, own = base.square().sum(1), queries.square().sum(1)
    # |q|^2 is the same for all candidates of a query, so the order does not need it
    close = torch.addmm(sizes[None], queries, base.T, alpha=-2.0).topk(held, dim=1, largest=False, sorted=False)
    found = close.indices.sort(1).values.numpy()
    if held == len(base):
        return found, np.full(len(queries), np.inf)
    rounding = (base.shape[1] + 8) * torch.finfo(base.dtype).eps / 2 * (own.sqrt() + sizes.max().sqrt()).square()
    return found, (close.values.amax(1).double() + own - rounding).numpy()


def _gaps(points: np.ndarray, asked: np.ndarray, part: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Square distances [n, held] of candidates, without cancellation."""
    exact = np.empty(found.shape)
    for column in range(found.shape[1]):  # one column at a time bounds the memory
        gap = points[found[:, column]].astype(np.float64) - asked[part]
        exact[:, column] = np.einsum("nd,nd->n", gap, gap)
    return exact


def _first(exact: np.ndarray, found: np.ndarray, own: np.ndarray | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of points found [n, held], in ascending row order, at these square distances, and how far they are.

    `own` [n] are points that do not count, being the queries themselves.
    """
    if own is not None:
        exact[found == own[:, None]] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(found, order, 1), np.sqrt(np.take_along_axis(exact, order, 1))
