"""How unlike anything learned an image is: in what a learner answers, and in where its features lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

SHRINK, RIDGE = 0.3, 0.05  # share of the common covariance in each class's own; added to the diagonal
GRID = 201  # quantiles kept of each column
FLOOR = 1e-3  # below which tails are not told apart


@dataclass(frozen=True, kw_only=True, eq=False)
class Strangeness:
    """Two marks of an image from nowhere, added up as -log of their tails among known images.

    One is the entropy of the learner's answer: an image between two classes. The other is the squared Mahalanobis
    distance to the class answered (Lee et al. 2018, eq. 2, with a covariance of each class shrunk towards the common
    one), on columns brought to a normal distribution by their quantiles: an image away from all classes, about which a
    learner is often very sure.

    Attributes:
        quantiles: float64 [201, C], of each column among the images learned from.
        means: float64 [G, C], of each class, after that.
        precisions: float64 [G, C, C], inverse covariances.
        entropies: Ascending, of the images it was calibrated on.
        distances: The same.
        usual: Their strangeness, ascending.
    """

    quantiles: np.ndarray
    means: np.ndarray
    precisions: np.ndarray
    entropies: np.ndarray
    distances: np.ndarray
    usual: np.ndarray

    @classmethod
    def fit(cls, table: np.ndarray, place: np.ndarray, held_out: np.ndarray, probabilities: np.ndarray) -> Strangeness:
        """Learn where classes lie, and calibrate.

        Args:
            table: Features learned from, [N, C].
            place: int [N], class of each, 0 to G - 1.
            held_out: Features of other images of known classes, [M, C].
            probabilities: float64 [M, G], the learner's answer to these.
        """
        quantiles = np.quantile(table.astype(np.float64), np.linspace(0, 1, GRID), axis=0)
        normal = _normal(table, quantiles)
        groups = [normal[place == k] for k in range(probabilities.shape[1])]
        means = np.stack([group.mean(0) for group in groups])
        ridge = RIDGE * np.eye(table.shape[1])
        common = np.cov(np.concatenate([group - mean for group, mean in zip(groups, means, strict=True)]).T) + ridge
        own = [(1 - SHRINK) * np.cov(group.T) + SHRINK * common for group in groups]
        empty = np.empty(0)
        raw = cls(quantiles=quantiles, means=means, precisions=np.linalg.inv(np.stack(own)), entropies=empty,
                  distances=empty, usual=empty)  # fmt: skip
        entropies, distances = (np.sort(values) for values in raw._marks(held_out, probabilities))
        ready = cls(**{**raw.arrays(), "entropies": entropies, "distances": distances})
        marks = zip((entropies, distances), ready._marks(held_out, probabilities), strict=True)
        usual = sum(-np.log(_tail(known, values, among=True) + FLOOR) for known, values in marks)
        return cls(**{**ready.arrays(), "usual": np.sort(np.asarray(usual))})

    def of(self, table: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Strangeness of each image, float64 [N], 0 or more."""
        marks = zip((self.entropies, self.distances), self._marks(table, probabilities), strict=True)
        return np.asarray(sum(-np.log(_tail(known, values) + FLOOR) for known, values in marks))

    def credibility(self, table: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The conformal p-value, float64 [N]: the share of calibration images that are at least as strange."""
        found = self.of(table, probabilities)
        return (len(self.usual) - np.searchsorted(self.usual, found, side="left") + 1) / (len(self.usual) + 1)

    def check(self, classes: int) -> None:
        """Refuse arrays that are not those of so many classes.

        Raises:
            ValueError: Their shapes do not fit together.
        """
        columns = self.means.shape[-1]
        shapes = [self.quantiles.shape[1:], self.means.shape, self.precisions.shape]
        lists = [self.entropies.ndim, self.distances.ndim, self.usual.ndim]
        if shapes != [(columns,), (classes, columns), (classes, columns, columns)] or lists != [1, 1, 1]:
            raise ValueError(f"arrays of shapes {shapes} are not those of {classes} classes")

    def arrays(self) -> Mapping[str, np.ndarray]:
        """What is kept, by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _marks(self, table: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        entropy = -(probabilities * np.log(probabilities.clip(1e-12))).sum(1)
        answered = probabilities.argmax(1)
        away = _normal(table, self.quantiles) - self.means[answered]
        squares = np.empty(len(away))
        for k in np.unique(answered):
            rows = answered == k
            squares[rows] = np.einsum("nc,cd,nd->n", away[rows], self.precisions[k], away[rows])
        return entropy, squares


def _normal(table: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Columns by their rank among those learned from, as normal deviates within four standard deviations."""
    levels = np.linspace(0, 1, len(quantiles))
    below = np.stack([np.interp(table[:, k], quantiles[:, k], levels) for k in range(table.shape[1])], 1)
    return np.asarray(ndtri(below.clip(3.2e-5, 1 - 3.2e-5)))


def _tail(known: np.ndarray, values: np.ndarray, *, among: bool = False) -> np.ndarray:
    """Share of known values, each new one counted with them, that are at least as large.

    Values that are `among` the known ones are not counted twice, or new ones would look stranger than they are.
    """
    count = len(known) + (0 if among else 1)
    return 1 - np.searchsorted(known, values, side="left") / max(count, 1)
