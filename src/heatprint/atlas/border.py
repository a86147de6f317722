"""Is an image near the border of the map easier to attack? The impression of the paper's Fig. 4 to 6, as a statistic.

Klawikowska et al. 2020 see in their maps of signatures that images close to the other class need the smaller change.
Here a distance to the border is measured for every image, in the plane or in signature space, and ranked against the
smallest gain; the margin of the logits, which needs no explanation at all, is the baseline to beat.

Two things would flatter the map. A plane fitted together with the copies that an attack succeeded on has seen which
images fell, so the plane asked here must be one of the clean images alone. And where one class mostly holds and another
mostly falls, any difference between the two becomes a correlation, though no image of either is told from its like: so
images are compared within their predicted class, and the correlation over all classes stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.signatures.neighbours import distinct, nearest

NEIGHBOURS = 5
RESAMPLES = 2000
BLOCK = 2**21  # values held at a time
FEWEST = 6  # below it even a perfect order can be chance


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Spearman's rank correlation of a distance to the border and the gain, within groups.

    Attributes:
        rho: From -1 to 1; above 0, images near the border fall to smaller gains. NaN where it is undefined: where
            fewer than six images fell, groups are so small that six images have more possible orders, or distances or
            gains are equal in every group.
        low: Lower end of the 95 % percentile bootstrap interval over images.
        high: Upper end.
        p: Two-sided permutation p-value against no relation within groups.
        pooled: The correlation of the same images ranked all together, as if there were no groups.
        images: How many were compared.
        censored: How many of them never fell; they are tied beyond every gain.
    """

    rho: float
    low: float
    high: float
    p: float
    pooled: float
    images: int
    censored: int


def border_distance(places: np.ndarray, predicted: np.ndarray, *, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """How far inside its own class each image lies, float64 [N]; below 0 it lies among the others.

    The hypothesis margin of a nearest-neighbour classifier (Gilad-Bachrach, Navot, Tishby 2004): half the
    distance to the nearest images of another predicted class less half that to the nearest of its own. As in ReliefF
    (Kononenko 1994) it is a mean over a few neighbours, which steadies it. Equal points count once.

    Args:
        places: [N, D], in the plane or in signature space.
        predicted: [N], the predicted class.
        neighbours: How many of either kind; fewer where there are fewer.

    Returns:
        NaN where an image has no other class, or nothing but copies of itself in its own.

    Raises:
        InvalidInput: The lengths differ, or places are not finite.
    """
    if places.ndim != 2 or len(places) != len(predicted) or not np.isfinite(places).all():
        raise InvalidInput(
            f"border_distance: places {list(places.shape)} and {len(predicted)} classes; give finite places [N, D] "
            "and one class each."
        )
    found = np.full(len(places), np.nan)
    for own in np.unique(predicted):
        inside = predicted == own
        kin, others = distinct(places[inside]), distinct(places[~inside])
        if len(kin.vectors) > 1 and len(others.vectors):
            _, hit = nearest(kin.vectors, min(neighbours, len(kin.vectors) - 1))
            _, miss = nearest(others.vectors, min(neighbours, len(others.vectors)), queries=kin.vectors)
            found[inside] = (0.5 * (miss.mean(1) - hit.mean(1)))[kin.place]
    return found


def logit_margin(logits: np.ndarray) -> np.ndarray:
    """The largest logit less the second largest, [N], of logits [N, K]: the baseline of a distance to the border."""
    two = np.sort(logits.astype(np.float64), axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def border_relation(places: np.ndarray, predicted: np.ndarray, gain: np.ndarray, *, seed: int = 0) -> Relation:
    """Whether, among images of one predicted class, those near the border of a map need the smaller gain.

    Args:
        places: [N, D], in the plane or in signature space.
        predicted: [N], the predicted class.
        gain: float [N], the smallest gain; infinite where the image never fell, NaN where it is not known.
        seed: Of bootstrap and permutations.
    """
    return relation(border_distance(places, predicted), gain, within=predicted, seed=seed)


def relation(distance: np.ndarray, gain: np.ndarray, *, within: np.ndarray | None = None, seed: int = 0) -> Relation:
    """Spearman's correlation of a distance and the gain, among images of one group.

    With groups it is the stratified coefficient (Taylor 1987): images are ranked within their group, the group's mean
    is taken off, and all groups go into one correlation. Ranks are divided by the group's size + 1 (van Elteren 1960),
    so that groups of different sizes are on one scale. With one group it is Spearman's own. The interval is from
    samples of all images, ranked anew; the p-value from pairings within groups alone. Undefined where fewer than six
    images fell: the interval would know no more than which.

    Args:
        distance: float [N]; an image with NaN here or in `gain` is left out.
        gain: float [N], the smallest gain; infinite where the image never fell.
        within: [N], the group of each image; None for one group. An image alone in its group is left out.
        seed: Of bootstrap and permutations.

    Raises:
        InvalidInput: The lengths differ.
    """
    groups = np.zeros(len(distance)) if within is None else np.asarray(within)
    if distance.ndim != 1 or not distance.shape == gain.shape == groups.shape:
        raise InvalidInput(
            f"relation: distances {list(distance.shape)}, gains {list(gain.shape)} and groups {list(groups.shape)} "
            "must be alike, [N]."
        )
    far, gain, group = _compared(distance, gain, groups)
    low = high = p = rho = pooled = np.nan
    if np.isfinite(gain).sum() >= FEWEST:
        rho, pooled = _rho(far, gain, group), _rho(far, gain, np.zeros_like(group))
    if not np.isnan(rho):
        low, high = np.nanquantile(_resampled(far, gain, group, seed), [0.025, 0.975]).tolist()
        p = _p(far, gain, group, rho, seed)
    return Relation(
        rho=rho,
        low=low,
        high=high,
        p=p,
        pooled=pooled,
        images=len(far),
        censored=int(np.isinf(gain).sum()),
    )


def _compared(distance: np.ndarray, gain: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances, gains and groups, numbered from 0, of the images that have another to be compared with.

    They are sorted, first by group: random draws then never depend on the order of the images.
    """
    known = np.flatnonzero(~(np.isnan(distance) | np.isnan(gain)))
    _, place, sizes = np.unique(groups[known], return_inverse=True, return_counts=True)
    known = known[sizes[place] > 1]
    _, group = np.unique(groups[known], return_inverse=True)
    order = np.lexsort((gain[known], distance[known], group))
    return distance[known][order], gain[known][order], group[order]


def _rho(far: np.ndarray, gain: np.ndarray, group: np.ndarray) -> float:
    """The correlation; NaN where there are fewer orders within groups than `FEWEST` images have."""
    if gammaln(np.bincount(group) + 1).sum() < gammaln(FEWEST + 1):
        return np.nan
    return float(_spearman(far, gain, group, np.ones((1, len(far))))[0])


def _spearman(first: np.ndarray, second: np.ndarray, group: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Correlations of ranks, float64 [R], where image i occurs times[r, i] times; NaN where either is constant."""
    one, two = _scores(first, group, times), _scores(second, group, times)
    size = np.sqrt((times * one**2).sum(1) * (times * two**2).sum(1))
    found = np.divide((times * one * two).sum(1), size, out=np.full(len(times), np.nan), where=size > 0)
    return np.asarray(found.clip(-1, 1))


def _scores(values: np.ndarray, group: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ranks within groups, less their mean, over the group's size + 1; ties share the middle.

    Args:
        values: [N].
        group: int [N], from 0 and rising.
        times: [R, N], how often each value occurs in each of R samples.

    Returns:
        float64 [R, N], between -1/2 and 1/2.
    """
    _, place = np.unique(values, return_inverse=True)
    _, place = np.unique(group * (len(values) + 1) + place, return_inverse=True)  # equal value, equal group
    order = np.argsort(place, kind="stable")
    ties = np.add.reduceat(times[:, order], np.searchsorted(place[order], np.arange(place.max() + 1)), axis=1)
    sizes = np.add.reduceat(times, np.searchsorted(group, np.arange(group.max() + 1)), axis=1)
    middle = np.cumsum(ties, axis=1) - (ties - 1) / 2  # ranks that run on from group to group
    mean = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return np.asarray((middle[:, place] - mean[:, group]) / (sizes + 1)[:, group])


def _blocks(count: int) -> list[int]:
    """How many resamples of so many images to make at a time."""
    at_once = max(1, BLOCK // count)
    return [min(at_once, RESAMPLES - done) for done in range(0, RESAMPLES, at_once)]


def _resampled(far: np.ndarray, gain: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray:
    """Correlations in `RESAMPLES` samples of all images with replacement."""
    count = len(far)
    draw, even = stream(seed, "atlas/border/bootstrap", count), np.full(count, 1 / count)
    return np.concatenate(
        [_spearman(far, gain, group, draw.multinomial(count, even, size=part)) for part in _blocks(count)]
    )


def _p(far: np.ndarray, gain: np.ndarray, group: np.ndarray, rho: float, seed: int) -> float:
    """Share of random pairings within groups whose correlation is at least as strong, the one found counted in."""
    one, two = (_scores(values, group, np.ones((1, len(far))))[0] for values in (far, gain))
    draw = stream(seed, "atlas/border/permutation", len(far))
    bound = abs(rho) * np.sqrt((one @ one) * (two @ two)) * (1 - 1e-12)
    beaten = 0
    for part in _blocks(len(far)):
        paired = two[np.argsort(group + draw.random((part, len(far))), axis=1)]  # shuffled, but each group in its place
        beaten += int((abs(paired @ one) >= bound).sum())
    return (1 + beaten) / (1 + RESAMPLES)
