"""Fitted learners as a forger writes them: trees that lead out of themselves or in circles, other objects."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from heatprint.detectors.learners import Learner, learned
from heatprint.detectors.opened import TRUSTED, skops

COLUMNS, ROWS = 5, 120


def table() -> np.ndarray:
    """Features that learners of this file can be asked about, float32 [ROWS, COLUMNS]."""
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)


@cache
def honest(learner: Learner) -> bytes:
    """A learner that is one."""
    kinds = np.where(table()[:, 0] > 0, "clean", "pgd")
    return learned(learner, table(), kinds, np.ones(ROWS), seed=0).tobytes()


def forged() -> Iterator[tuple[str, bytes]]:
    """Learners that must be refused before they are asked anything."""
    for name, change in {
        "circle": lambda nodes: nodes["left"].__setitem__(0, 0),
        "back": lambda nodes: nodes["right"].__setitem__(0, 0),
        "far": lambda nodes: nodes["left"].__setitem__(0, 10_000_000),
        "column": lambda nodes: nodes["feature"].__setitem__(0, 1_000_000),
        "before": lambda nodes: nodes["feature"].__setitem__(0, -5),
    }.items():
        yield f"trees, {name}", _changed("trees", _extra(change))
        yield f"boosting, {name}", _changed("boosting", _boosted(change))
    yield "boosting, categories", _changed("boosting", _boosted(lambda nodes: nodes["categories"].fill(1)))
    yield "boosting, columns", _changed("boosting", lambda model: setattr(model, "n_features_in_", 0))
    yield "boosting, stages", _changed("boosting", lambda model: setattr(model, "n_trees_per_iteration_", 10**12))
    yield "no kinds", _changed("logistic", lambda model: setattr(model.steps[-1][1], "classes_", np.array([])))
    yield "other steps", skops().dumps(make_pipeline(StandardScaler()).fit(table()))
    yield "a function", skops().dumps(make_pipeline(FunctionTransformer(os.system)))
    yield "a method", skops().dumps("text".upper)
    yield "a list", skops().dumps([1, 2, 3])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * 50_000_000)
    yield "packed", packed.getvalue()


def _changed(learner: Learner, change: Callable[[Any], None]) -> bytes:
    model = skops().loads(_short(learner), trusted=TRUSTED)
    change(model)
    content: bytes = skops().dumps(model)
    return content


@cache
def _short(learner: Learner) -> bytes:
    """A learner with its first trees alone, which are quickly read."""
    model = skops().loads(honest(learner), trusted=TRUSTED)
    for trees in ("estimators_", "_predictors"):
        if hasattr(model, trees):
            setattr(model, trees, getattr(model, trees)[:2])
    content: bytes = skops().dumps(model)
    return content


def _extra(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Any], None]:
    def forge(model: Any) -> None:
        tree = model.estimators_[0].tree_
        state = tree.__getstate__()
        nodes = state["nodes"]
        change({"left": nodes["left_child"], "right": nodes["right_child"], "feature": nodes["feature"]})
        tree.__setstate__(state)

    return forge


def _boosted(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Any], None]:
    def forge(model: Any) -> None:
        nodes = model._predictors[0][0].nodes
        change({"left": nodes["left"], "right": nodes["right"], "feature": nodes["feature_idx"],
                "categories": nodes["is_categorical"]})  # fmt: skip

    return forge
