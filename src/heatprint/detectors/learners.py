"""Learners on tables of features, kept as bytes that cannot run: skops instead of pickle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args
from weakref import finalize

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits

from heatprint.core.errors import InvalidInput, StoreError
from heatprint.detectors.examples import CLEAN, KNOWN_MISTAKEN
from heatprint.detectors.opened import opened, skops

Learner = Literal["trees", "boosting", "logistic"]


def check_learner(who: str, name: str) -> Learner:
    """The name of a learner.

    Raises:
        InvalidInput: There is none of this name.
    """
    known: dict[str, Learner] = {one: one for one in get_args(Learner)}
    if name not in known:
        raise InvalidInput(f"{who}: learner = {name!r} is not known. Write one of {', '.join(known)}.")
    return known[name]


def learned(learner: Learner, table: np.ndarray, kinds: np.ndarray, weights: np.ndarray, *, seed: int) -> np.ndarray:
    """A classifier of rows [N, columns] into kinds [N], as bytes uint8.

    Args:
        learner: ``"boosting"``: gradient boosting on histograms; ``"trees"``: 200 extremely randomised trees (Geurts,
            Ernst and Wehenkel 2006), a little better on a few hundred rows and thirty times as large on disk;
            ``"logistic"``: logistic regression on columns mapped to a normal distribution by their quantiles.
        table: Features, finite.
        kinds: What each row is.
        weights: Of each row.
        seed: Of what is random.
    """
    made: dict[str, Any] = {
        "trees": lambda: ExtraTreesClassifier(200, min_samples_leaf=3, random_state=seed % 2**32),
        "boosting": lambda: HistGradientBoostingClassifier(
            max_iter=300, learning_rate=0.05, max_leaf_nodes=15, l2_regularization=1.0, random_state=seed % 2**32
        ),
        "logistic": lambda: make_pipeline(
            QuantileTransformer(output_distribution="normal", n_quantiles=min(1000, len(table)),
                                random_state=seed % 2**32),
            LogisticRegression(C=0.1, max_iter=2000),
        ),
    }  # fmt: skip
    model = made[learner]()
    named = {"logisticregression__sample_weight": weights} if learner == "logistic" else {"sample_weight": weights}
    with threadpool_limits(1):
        model.fit(table, kinds, **named)
    return np.frombuffer(skops().dumps(model), dtype=np.uint8).copy()


class Applied:
    """A learner read from its bytes, once.

    Raises:
        StoreError: The bytes are damaged, or hold anything but the learners of this file.
    """

    def __init__(self, content: np.ndarray) -> None:
        self._model = opened(np.asarray(content, dtype=np.uint8).tobytes())

    @property
    def kinds(self) -> np.ndarray:
        """What it tells apart, in the order of the probabilities."""
        return np.asarray(self._model.classes_)

    def probabilities(self, table: np.ndarray) -> np.ndarray:
        """float64 [N, kinds].

        Raises:
            StoreError: It learned from another number of columns.
        """
        learned_from = int(self._model.n_features_in_)
        if table.shape[1] != learned_from:
            raise StoreError(
                f"detector: it learned from {learned_from} columns of features, and these are {table.shape[1]}: it was "
                "fitted by another version of heatprint. Fit it again."
            )
        with threadpool_limits(1):
            return np.asarray(self._model.predict_proba(table), dtype=np.float64)


_read: dict[int, Applied] = {}


def applied(content: np.ndarray) -> Applied:
    """A learner from its bytes, read once for as long as this very array lives: a guard asks about image after image.

    Reading takes half a second, and even a digest of the bytes longer than an answer.
    """
    found = _read.get(id(content))
    if found is None:
        found = _read[id(content)] = Applied(content)
        finalize(content, _read.pop, id(content), None)
    return found


def evenly(kinds: Sequence[str], attacked: np.ndarray, *, least: int = 30) -> np.ndarray:
    """Weights [N] by which every kind counts the same among the attacked and among the others, and both sides alike.

    A kind of fewer than `least` images counts less, so that a handful cannot lead. Clean images count as three kinds,
    and those the classifier errs on though it learned from them as three more: they lie where attacked images lie.
    """
    names, place, counts = np.unique(np.asarray(kinds), return_inverse=True, return_counts=True)
    weights = (np.where(np.isin(names, (CLEAN, KNOWN_MISTAKEN)), 3.0, 1.0) / np.maximum(counts, least))[place]
    for side in (attacked, ~attacked):
        if side.any():
            weights[side] *= len(weights) / 2 / weights[side].sum()
    return np.asarray(weights)
