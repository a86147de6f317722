"""A standardised logistic regression as four arrays: fitted by scikit-learn, applied in numpy, never pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

CS = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse strengths of the penalty that are tried; without folds the middle one
FOLDS = 5


def groups(sources: Sequence[str]) -> np.ndarray:
    """A number per source, int64 [N]: images made from one clean image share it."""
    return np.asarray(np.unique(np.asarray(sources), return_inverse=True)[1], dtype=np.int64).ravel()


def folds_by_source(sources: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to five splits into rows to fit on and rows held out; images of one source are never split apart.

    Empty where there is one source only.
    """
    group = groups(sources)
    count = min(FOLDS, len(np.unique(group)))
    return list(GroupKFold(count).split(group, groups=group)) if count > 1 else []


def standardisation(features: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and scale float64 [F] of features [N, F]; constant columns are only centred."""
    mean, scale = features.mean(0), features.std(0)
    still = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)  # what rounding leaves of a constant
    return {"mean": mean, "scale": np.where(still, 1.0, scale)}


def fit_logistic(features: np.ndarray, attacked: np.ndarray, sources: Sequence[str]) -> dict[str, np.ndarray]:
    """The log-odds that an image was attacked, linear in its features.

    Both kinds count as much in total. The penalty C is the one with the smallest log-loss on sources held out; each
    fold is standardised by its own fit part.

    Args:
        features: float [N, F], finite.
        attacked: bool [N], both kinds present.
        sources: Ids [N] of the clean images that these were made from.

    Returns:
        ``mean``, ``scale`` and ``weights`` float64 [F], ``bias`` float64 [1].
    """
    features, attacked = np.asarray(features, dtype=np.float64), np.asarray(attacked, dtype=bool)
    losses = np.zeros(len(CS))
    with threadpool_limits(1):  # the same bits on every number of cores
        for fit, held in folds_by_source(sources):
            if attacked[fit].all() or not attacked[fit].any():
                continue
            for place, strength in enumerate(CS):
                found = _fitted(features[fit], attacked[fit], strength)
                losses[place] += _loss(apply_logistic(found, features[held]), attacked[held])
        best = int(np.argmin(losses)) if losses.any() else len(CS) // 2  # of equal ones the stronger penalty
        return _fitted(features, attacked, CS[best])


def apply_logistic(learned: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Log-odds float64 [N] of features [N, F], as `fit_logistic` has learned them."""
    weights = learned["weights"] / learned["scale"]
    # a sum over each row, not a matrix product, whose rounding would depend on how many rows there are
    return np.asarray(((features - learned["mean"]) * weights).sum(1) + learned["bias"][0])


def _fitted(features: np.ndarray, attacked: np.ndarray, strength: float) -> dict[str, np.ndarray]:
    arrays = standardisation(features)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=10_000)
    model.fit((features - arrays["mean"]) / arrays["scale"], attacked)
    return {**arrays, "weights": model.coef_[0].astype(np.float64), "bias": model.intercept_.astype(np.float64)}


def _loss(scores: np.ndarray, attacked: np.ndarray) -> float:
    """Log-loss in which both kinds count as much, as in the fit."""
    each = np.logaddexp(0, np.where(attacked, -scores, scores))
    return float(sum(each[kind].mean() for kind in (attacked, ~attacked) if kind.any()))
