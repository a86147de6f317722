"""Strategies: groups of images for which a network relied on the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from heatprint.core.display import Displayed


@dataclass(frozen=True, kw_only=True, eq=False)
class Strategies(Displayed):
    """What a clustering of heat maps found.

    Attributes:
        labels: int64 [N], the strategy of each map: 0 is the largest, then by falling size.
        count: How many strategies the labels tell apart.
        proposed: How many the data propose; 1 where nothing separates. Differs from `count` only where another
            count was asked for.
        eigenvalues: float64 [E], the smallest of the normalised Laplacian, ascending from 0; empty where there was
            no graph.
        null: float64 [E], the same of shuffled maps (mean over draws), which have the values but no structure.
        embedding: float64 [N, E], the rows of the eigenvectors, of length 1.
        stability: Mean adjusted Rand index between the labels and those found again from random parts of the maps;
            1 is perfect, NaN where it was not measured.
        separability: Fisher separability of the strategies, the largest ratio of the variance between them to that
            within along any direction (Anders et al. 2022); 0 for one strategy. The class to look at first is that
            with the largest.
        note: Why the maps were not told apart, where no clustering was made; else empty.
    """

    labels: np.ndarray
    count: int
    proposed: int
    eigenvalues: np.ndarray
    null: np.ndarray
    embedding: np.ndarray
    stability: float
    separability: float
    note: str = ""

    def sizes(self) -> np.ndarray:
        """Images in each strategy, int64 [count]."""
        return np.bincount(self.labels, minlength=self.count)


@runtime_checkable
class Clusterer(Protocol):
    """Groups heat maps into strategies."""

    def strategies(self, maps: np.ndarray, images: np.ndarray | None = None, *, count: int | None = None) -> Strategies:
        """Strategies of maps [N, ...] that explain one class, with the images [N, 3, h, w] where they are used.

        Args:
            maps: Heat maps, or signatures.
            images: What the maps explain, in the same order.
            count: How many strategies to tell apart, or as many as differ if these are fewer; None for as many as the
                maps propose.
        """
        ...


def one_strategy(maps: int, *, note: str = "") -> Strategies:
    """All of so many maps together, where there is no graph to tell them apart; `note` may say why."""
    nothing = np.empty(0)
    return Strategies(
        labels=np.zeros(maps, dtype=np.int64),
        count=1,
        proposed=1,
        eigenvalues=nothing,
        null=nothing,
        embedding=np.empty((maps, 0)),
        stability=float("nan"),
        separability=0.0,
        note=note,
    )


def by_size(labels: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """The same groups, numbered by falling number of maps; of equal ones the smaller label comes first.

    Args:
        labels: int [M].
        copies: int [M], how many maps each entry stands for.
    """
    _, place = np.unique(labels, return_inverse=True)
    sizes = np.bincount(place, weights=copies)
    number = np.empty(len(sizes), dtype=np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.asarray(number[place])
