"""How far the neighbourhoods of a map are those of the signatures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heatprint.core.errors import InvalidInput
from heatprint.signatures.neighbours import distinct

BLOCK = 2**22  # distances held at a time, in each of the two spaces: 32 MiB


@dataclass(frozen=True, kw_only=True)
class Overall:
    """Means over the different vectors; 1 is perfect, NaN where there are fewer than three.

    Attributes:
        trustworthiness: Near 1 where neighbours in the plane are neighbours by signature.
        continuity: Near 1 where neighbours by signature are neighbours in the plane.
        preservation: Share of the nearest by signature that are among the nearest in the plane.
        chance: What preservation is expected to be for a map drawn at random.
    """

    trustworthiness: float
    continuity: float
    preservation: float
    chance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """The same per image.

    Attributes:
        trustworthiness: float64 [N], at most 1; one bad place may be below 0.
        continuity: float64 [N], likewise.
        preservation: float64 [N], 0 to 1.
        neighbours: How many neighbours were looked at; 0 where there are fewer than three different vectors.
        different: How many vectors are different.
        overall: The means over those.
    """

    trustworthiness: np.ndarray
    continuity: np.ndarray
    preservation: np.ndarray
    neighbours: int
    different: int
    overall: Overall


def quality(vectors: np.ndarray, points: np.ndarray, *, neighbours: int = 15) -> Quality:
    """Trustworthiness and continuity (Venna and Kaski 2001, eq. 2 and 3), and neighbourhood preservation, exactly.

    With M different vectors and k neighbours, the untrustworthiness of an image is the sum of ``rank - k`` over those
    of its k nearest in the plane that are not among its k nearest by signature, times ``2 / (k (2 M - 3 k - 1))``;
    rank is by Euclidean distance between signatures, and a tie counts as the better rank. Continuity exchanges the
    two spaces. Equal vectors count once, so that no image is its copy's neighbour. Distances are held in blocks.

    Args:
        vectors: Signatures [N, D].
        points: Their places [N, 2]; equal vectors have equal places.
        neighbours: k, at least 1; where fewer than ``2 k + 1`` vectors are different, as many as the formula allows.

    Raises:
        InvalidInput: Shapes do not belong together, or values are not finite.
    """
    if vectors.ndim != 2 or points.shape != (len(vectors), 2) or not len(vectors) or neighbours < 1:
        raise InvalidInput(
            f"quality: vectors [N, D], their places [N, 2] and at least one neighbour are needed, got "
            f"{list(vectors.shape)}, {list(points.shape)} and {neighbours}."
        )
    if not np.isfinite(points).all() or not np.isfinite(vectors).all():
        raise InvalidInput("quality: vectors or places are not finite.")
    different = distinct(vectors)
    places = np.empty((len(different.vectors), 2))
    places[different.place] = points
    count = min(neighbours, (len(places) - 1) // 2)
    measured = _measured(different.vectors.astype(np.float64), places, count)
    trust, keep, share = (values[different.place] for values in measured)
    means = [float(values.mean()) for values in measured]
    chance = count / (len(places) - 1) if count else float("nan")
    return Quality(
        trustworthiness=trust,
        continuity=keep,
        preservation=share,
        neighbours=count,
        different=len(places),
        overall=Overall(trustworthiness=means[0], continuity=means[1], preservation=means[2], chance=chance),
    )


def _measured(vectors: np.ndarray, places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trustworthiness, continuity and preservation of different vectors [M, D] at places [M, 2], each [M]."""
    from scipy.spatial.distance import cdist
    from sklearn.metrics import euclidean_distances

    total = len(vectors)
    trust, keep, share = (np.full(total, np.nan) for _ in range(3))
    if not count:
        return trust, keep, share
    vectors = vectors - vectors.mean(0)  # distances by inner products lose digits far from the origin
    scale = 2 / (count * (2 * total - 3 * count - 1))
    for rows in np.array_split(np.arange(total), -(-total * total // BLOCK)):
        signature = euclidean_distances(vectors[rows], vectors, squared=True)
        plane = cdist(places[rows], places, "sqeuclidean")
        own = np.arange(len(rows)), rows
        signature[own] = plane[own] = np.inf
        meant, shown = (np.argpartition(far, count - 1, axis=1)[:, :count] for far in (signature, plane))
        trust[rows] = 1 - scale * _late(shown, signature)
        keep[rows] = 1 - scale * _late(meant, plane)
        share[rows] = (meant[:, :, None] == shown[:, None, :]).any(2).mean(1)
    return trust, keep, share


def _late(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """How far neighbours near [n, k] rank beyond the k nearest by distances far [n, M], summed per row [n]."""
    late = np.zeros(len(near))
    for column in near.T:
        own = np.take_along_axis(far, column[:, None], 1)
        late += np.maximum((far < own).sum(1) + 1 - near.shape[1], 0)
    return late
