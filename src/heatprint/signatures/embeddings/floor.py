"""What of a movement on a map is noise, and how far attacked images really moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Embedder
from heatprint.core.streams import stream
from heatprint.signatures.door import embed
from heatprint.signatures.neighbours import check_finite, distinct, nearest

ROUNDING = 1e-5  # by which another batch size or number of threads changes a float32 signature, relatively


@dataclass(frozen=True, kw_only=True)
class Floor:
    """How far vectors that are the same but for rounding lie from each other.

    Attributes:
        images: How many had a twin.
        median: Distance between twins on the map.
        high: Its 95th percentile: an arrow that is no longer shows nothing.
        most: The largest.
        rounding: 95th percentile of the distance between twins in signature space.
    """

    images: int
    median: float
    high: float
    most: float
    rounding: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Displacement:
    """How far each image moved, in signature space; the plane only shows it.

    Attributes:
        distance: float64 [N], Euclidean distance between the two signatures.
        relative: float64 [N], the same in units of `unit`: 1 is as far as to another image of the kind. 0 for an image
            that did not move at all, whatever the unit; else NaN where there is no unit.
        unit: Median distance between clean signatures and their nearest different one.
        moved: bool [N], `distance` is more than rounding.
        shown: float64 [N], distance on the map.
        beyond: bool [N], `shown` is more than the floor's `high`: the arrow means something.
    """

    distance: np.ndarray
    relative: np.ndarray
    unit: float
    moved: np.ndarray
    shown: np.ndarray
    beyond: np.ndarray


def with_floor(vectors: np.ndarray, method: Embedder, *, seed: int, count: int = 200) -> tuple[np.ndarray, Floor]:
    """A map of vectors, and its noise floor.

    Equal vectors have the same place by construction, which says nothing of noise. So some get a twin, whose values
    are changed relatively by normal noise of `ROUNDING`, as another batch size would, and which is fitted with the
    rest: how far twins come to lie from each other is what the map cannot tell from nothing. Which vectors get one
    depends on the values and the seed, not on the order of the rows.

    Args:
        vectors: Signatures [N, D], clean and attacked together, at least four.
        method: An embedder.
        seed: Of the choice and the noise.
        count: How many twins, at least 1; where fewer vectors are different, one each.

    Returns:
        Places float64 [N, 2] without the twins, and the floor.

    Raises:
        InvalidInput: Fewer than four vectors, values that are not finite in float32, or no twin is asked for.
    """
    if count < 1:
        raise InvalidInput(f"with_floor: count = {count} must be 1 or more, e.g. 200.")
    if vectors.ndim != 2 or len(vectors) < 4 or not vectors.shape[1]:
        raise InvalidInput(f"with_floor: at least four finite vectors [N, D] are needed, got {list(vectors.shape)}.")
    check_finite("with_floor", "vectors", vectors)
    different = distinct(vectors).vectors
    draws = stream(seed, "embeddings/floor")
    originals = different[draws.choice(len(different), size=min(count, len(different)), replace=False)]
    noise = 1 + ROUNDING * draws.standard_normal(originals.shape)
    twins = (originals * noise).astype(np.float32)
    points = embed(np.concatenate([vectors.astype(np.float32), originals, twins]), method)
    ends = points[len(vectors) :].reshape(2, -1, 2)
    shown = np.linalg.norm(ends[1] - ends[0], axis=1)
    median, high, most = np.quantile(shown, (0.5, 0.95, 1)).tolist()
    rounding = float(np.quantile(_distance(originals, twins), 0.95))
    return points[: len(vectors)], Floor(images=len(shown), median=median, high=high, most=most, rounding=rounding)


def displacements(
    clean: np.ndarray,
    attacked: np.ndarray,
    clean_points: np.ndarray,
    attacked_points: np.ndarray,
    floor: Floor,
    *,
    unit: float | None = None,
) -> Displacement:
    """How far attacked images moved from their originals, in signature space and on a map of both.

    An image that an attack left as it was has moved by exactly 0, and is never beyond the floor.

    Args:
        clean: Signatures [N, D].
        attacked: Those of the attacked copies, in the same order.
        clean_points: Places [N, 2] on a map fitted to both together.
        attacked_points: Likewise.
        floor: That of the map.
        unit: See `Displacement`; None for that of the clean ones given. Give `usual_distance` of all clean images where
            these are those that fell to one attack of several.

    Raises:
        InvalidInput: Shapes do not belong together, or values are not finite.
    """
    shapes = [list(values.shape) for values in (clean, attacked, clean_points, attacked_points)]
    if clean.ndim != 2 or shapes[0] != shapes[1] or shapes[2:] != [[len(clean), 2]] * 2:
        raise InvalidInput(
            f"displacements: vectors [N, D] twice and places [N, 2] twice are needed, in one order; got {shapes}."
        )
    for values in (clean, attacked, clean_points, attacked_points):
        check_finite("displacements", "signatures or places", values)
    distance = _distance(clean, attacked)
    unit = usual_distance(clean) if unit is None else unit
    shown = np.linalg.norm(attacked_points - clean_points, axis=1)
    return Displacement(
        distance=distance,
        relative=np.divide(distance, unit, out=np.zeros_like(distance), where=distance > 0),
        unit=unit,
        moved=distance > floor.rounding,
        shown=shown,
        beyond=shown > floor.high,
    )


def usual_distance(vectors: np.ndarray) -> float:
    """Median Euclidean distance of vectors [N, D] to their nearest different one; NaN where there is none."""
    different = distinct(vectors).vectors if len(vectors) else vectors
    return float(np.median(nearest(different, 1)[1])) if len(different) > 1 else float("nan")


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance [N] of each pair of float32 vectors, which is how `distinct` sees them."""
    gap = first.astype(np.float32).astype(np.float64) - second.astype(np.float32)
    return np.asarray(np.linalg.norm(gap, axis=1))
