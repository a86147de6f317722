"""Spectral relevance analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.signatures.neighbours import Distinct, check_finite, distinct
from heatprint.signatures.spray.fisher import separability
from heatprint.signatures.spray.graph import Spectrum, neighbour_graph, smallest
from heatprint.signatures.spray.proposal import candidates, groups
from heatprint.signatures.spray.stragglers import joins, without_stragglers
from heatprint.signatures.strategies import Strategies, by_size, one_strategy

FEWEST = 4  # different maps, below which nothing can be told apart
PART = 0.8  # of the maps are in each part that the stability is measured on
MOST_IN_PART, MOST_SHUFFLED = 2000, 5000  # maps

Relevance = Literal["absolute", "signed", "as given"]


@dataclass(frozen=True, kw_only=True)
class SpRAy:
    """Spectral relevance analysis (Lapuschkin et al. 2019): the strategies of a network, from its heat maps.

    Each map is divided by its sum of |relevance|; the maps are joined to their nearest ones; the small eigenvalues of
    the normalised Laplacian say into how many groups they fall, and k-means on its eigenvectors says which. Give it
    the maps of one class, sum-pooled (`signatures.maps.heat_maps`).

    The number of strategies is that before the largest eigengap whose groups are well separated and are found again
    in random parts of the maps; where there is no such number it is 1. The eigengap alone cannot say 1: one
    stretched-out cloud of maps has gaps, too.

    Equal maps (of failed attacks) are one vertex, and vertices are ordered by value: the order of the maps changes
    nothing. A map of zeros stays zeros. Fewer than four different maps are one strategy.

    Attributes:
        neighbours: Of each map; fewer maps than that are all neighbours. 10 as in CoRelAy; the paper takes about log N.
        most: Largest number of strategies proposed.
        separation: How much more must hold a group together than ties it to the others, as the ratio of
            `proposal.separation`; 5 lies between what we measured of one drawn strategy (up to 2.5) and of two (18 up).
        stable: Smallest mean adjusted Rand index with the groups of random parts.
        parts: How many random parts; each holds 80 % of the maps, at most 2000.
        rare: Share of the different maps below which a group that nothing or next to nothing joins to the rest of the
            graph is no strategy of its own: its maps go with their nearest others. A few maps far from all others would
            otherwise use up the numbers up to `most` and hide the gap behind the strategies. Where that would be the
            larger half of the maps, none is left out; 0 takes every group seriously.
        shuffles: How many times maps are shuffled for the null spectrum, 0 for never; at most 5000 of them.
        seed: Of the parts, the shuffles, k-means and the eigenvectors' start.
        relevance: ``"absolute"`` compares maps by where the relevance is, ``"signed"`` also by its sign, as the paper;
            ``"as given"`` leaves vectors undivided, whose lengths mean something. Signed maps of images near the
            decision border are a group by themselves: where biases decide, the rest speaks against the class, and
            the same map comes out negative.
    """

    neighbours: int = 10
    most: int = 12
    separation: float = 5.0
    stable: float = 0.8
    parts: int = 10
    rare: float = 0.01
    shuffles: int = 2
    seed: int = 0
    relevance: Relevance = "absolute"

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.most < 1 or self.parts < 0 or self.shuffles < 0 or self.seed < 0:
            raise InvalidInput(
                f"SpRAy: neighbours = {self.neighbours} and most = {self.most} must be 1 or more, "
                f"parts = {self.parts}, shuffles = {self.shuffles} and seed = {self.seed} 0 or more."
            )
        if not 0 <= self.rare < 1:
            raise InvalidInput(f"SpRAy: rare = {self.rare}; write a share of the maps from 0 up to but not 1.")
        if not self.separation > 0 or not -1 <= self.stable <= 1:
            raise InvalidInput(
                f"SpRAy: separation = {self.separation} must be above 0, stable = {self.stable} from -1 to 1."
            )
        if self.relevance not in get_args(Relevance):
            raise InvalidInput(f"SpRAy: relevance = {self.relevance!r}; write one of {', '.join(get_args(Relevance))}.")

    def strategies(self, maps: np.ndarray, images: np.ndarray | None = None, *, count: int | None = None) -> Strategies:
        """See `heatprint.signatures.strategies.Clusterer`; the images are not used.

        Raises:
            InvalidInput: No maps, values that are not finite, a count of less than 1, or one of more than 1 for fewer
                than four different maps.
        """
        del images
        found = distinct(self._vectors(maps))
        size = len(found.vectors)
        if count is not None and count < 1:
            raise InvalidInput(f"SpRAy: count = {count}; write 1 or more, or None.")
        if size >= FEWEST:
            with threadpool_limits(1, user_api="blas"):  # the last bits depend on how many threads share the work
                return self._told_apart(found, count and min(count, size))
        if count is not None and count > 1:
            raise InvalidInput(
                f"SpRAy: count = {count} of {size} different maps; fewer than {FEWEST} cannot be told apart. Write "
                "None, or give more maps."
            )
        return one_strategy(len(found.place))

    def _told_apart(self, found: Distinct, count: int | None) -> Strategies:
        """The strategies of enough different maps."""
        whole = neighbour_graph(found.vectors, self.neighbours)
        kept, spectrum = without_stragglers(whole, self.rare, self.most + 1, seed=self.seed)
        proposed, stability = self._proposed(found.vectors[kept], whole[kept][:, kept], spectrum)
        chosen = proposed if count is None else count
        if chosen > self.most:  # a longer spectrum, after what is proposed: that must not depend on what is asked for
            kept = kept if len(kept) >= chosen else np.arange(len(found.vectors))
            spectrum = smallest(whole[kept][:, kept], chosen + 1, seed=self.seed)
        labels = groups(spectrum, chosen, seed=self.seed)
        if chosen not in (1, proposed):
            stability = self._stability(found.vectors[kept], labels, chosen)
        with_whom = joins(found.vectors, kept)
        labels = labels[with_whom]
        return Strategies(
            labels=by_size(labels, found.copies)[found.place],
            count=chosen,
            proposed=proposed,
            eigenvalues=spectrum.values,
            null=self._null(found.vectors, len(spectrum.values)),
            embedding=spectrum.rows(len(spectrum.values))[with_whom][found.place],
            stability=stability if chosen > 1 else float("nan"),
            separability=separability(found.vectors, labels),
        )

    def _vectors(self, maps: np.ndarray) -> np.ndarray:
        if self.relevance == "as given":
            return checked(maps).astype(np.float32)
        vectors = normalised(maps)
        return vectors if self.relevance == "signed" else np.abs(vectors)

    def _proposed(self, vectors: np.ndarray, graph: sparse.csr_matrix, spectrum: Spectrum) -> tuple[int, float]:
        """The number of strategies and how stable they are."""
        for count in candidates(graph, spectrum, least=self.separation, seed=self.seed):
            stability = self._stability(vectors, groups(spectrum, count, seed=self.seed), count)
            if not self.parts or stability >= self.stable:
                return count, stability
        return 1, float("nan")

    def _stability(self, vectors: np.ndarray, labels: np.ndarray, count: int) -> float:
        """Mean adjusted Rand index with the groups found in random parts of the maps; NaN without parts."""
        size = max(min(int(PART * len(vectors)), MOST_IN_PART), count + 1)
        scores = []
        for number in range(self.parts if size < len(vectors) else 0):
            rows = _some(stream(self.seed, "spray/part", number), len(vectors), size)
            graph = neighbour_graph(vectors[rows], self.neighbours)
            again = groups(smallest(graph, count, seed=self.seed), count, seed=self.seed)
            scores.append(adjusted_rand_score(labels[rows], again))
        return float(np.mean(scores)) if scores else float("nan")

    def _null(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """Mean eigenvalues of maps whose values were shuffled among the maps, place by place."""
        drawn = []
        for number in range(self.shuffles):
            rng = stream(self.seed, "spray/shuffle", number)
            rows = vectors if len(vectors) <= MOST_SHUFFLED else vectors[_some(rng, len(vectors), MOST_SHUFFLED)]
            shuffled = distinct(self._vectors(rng.permuted(rows, axis=0))).vectors
            drawn.append(smallest(neighbour_graph(shuffled, self.neighbours), count, seed=self.seed).values)
        shortest = min(map(len, drawn), default=0)
        return np.mean([values[:shortest] for values in drawn], axis=0) if drawn else np.empty(0)


def normalised(maps: np.ndarray) -> np.ndarray:
    """Maps [N, ...] as vectors float32 [N, D], each divided by its sum of absolute values; zeros stay zeros.

    Not by its signed sum, which turns a map round where it is negative and blows it up where it is near zero.

    Raises:
        InvalidInput: See `checked`.
    """
    vectors = checked(maps)
    sizes = np.abs(vectors).sum(1, keepdims=True)
    divided = np.divide(vectors, sizes, out=np.zeros_like(vectors), where=sizes > 0)
    return np.asarray(divided, dtype=np.float32)


def checked(maps: np.ndarray) -> np.ndarray:
    """Maps [N, ...] as vectors float64 [N, D].

    Raises:
        InvalidInput: No maps, or values that are not finite in float32.
    """
    vectors = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1) if len(maps) else np.empty((0, 0))
    if not vectors.size:
        raise InvalidInput("SpRAy: there are no maps; give at least one, as an array [N, ...].")
    check_finite("SpRAy", "maps", vectors)
    return vectors


def _some(rng: np.random.Generator, total: int, count: int) -> np.ndarray:
    """`count` of so many rows, ascending."""
    return np.sort(rng.choice(total, count, replace=False))
