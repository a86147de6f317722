"""Learners from bytes that may be a stranger's: nothing in them runs, and no tree leads out of its own nodes.

skops makes objects of types it trusts only. Trees are walked by compiled code that believes every index it meets, so a
forged one could read other memory or walk in circles; it is refused before it is asked.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import QuantileTransformer
from sklearn.tree import ExtraTreeClassifier

from heatprint.core.errors import StoreError

TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "sklearn.tree._tree.Tree"]
BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, MemoryError, EOFError,
          ArithmeticError, ImportError, zipfile.BadZipFile)  # fmt: skip
"""What skops, sklearn and numpy raise on damaged bytes."""


def opened(content: bytes) -> Any:
    """The learner that `skops.io.dumps` made these bytes of.

    Raises:
        StoreError: They are damaged, or hold anything but the learners of `learners.learned`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is packed, which no learner of heatprint is")
        foreign = sorted(set(skops().get_untrusted_types(data=content)) - set(TRUSTED))
        if foreign:
            raise StoreError(f"detector: what it learned holds foreign code ({', '.join(foreign)}) and is not loaded.")
        model = skops().loads(content, trusted=TRUSTED)
        _check(model)
    except BROKEN as error:
        told = f"{type(error).__name__}: {str(error)[:200]}"
        raise StoreError(f"detector: what it learned is damaged ({told}). Fit it again.") from error
    return model


def skops() -> Any:
    """skops.io, which on import looks at every name of every loaded module and so wakes others' warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("skops.io")


def _check(model: Any) -> None:
    """Refuse what is no learner of heatprint, or one whose parts do not fit together."""
    kinds = np.asarray(model.classes_)
    if kinds.ndim != 1 or not 2 <= len(kinds) <= 1000:
        raise ValueError("it tells nothing apart")
    if type(model) is Pipeline:
        if [type(one) for _, one in model.steps] != [QuantileTransformer, LogisticRegression]:
            raise ValueError("it is another chain of steps")
        return
    columns = int(model.n_features_in_)
    for feature, left, right in _trees(model, kinds):
        rows = np.arange(len(feature))
        inner = left >= 0
        ways = np.stack([left[inner], right[inner]])
        if not len(rows) or (ways <= rows[inner]).any() or (ways >= len(rows)).any():
            raise ValueError("a tree leads out of itself, or back")
        if not ((feature[inner] >= 0) & (feature[inner] < columns)).all():
            raise ValueError("a tree asks for a column that is not there")


def _trees(model: Any, kinds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every tree the column each node asks for, and its ways on, below 0 where it has none; int64."""
    if type(model) is ExtraTreesClassifier and all(type(one) is ExtraTreeClassifier for one in model.estimators_):
        for one in model.estimators_:
            tree = one.tree_
            yield tree.feature, tree.children_left, tree.children_right
    elif type(model) is HistGradientBoostingClassifier and model._preprocessor is None:
        if model.n_trees_per_iteration_ != (1 if len(kinds) == 2 else len(kinds)):
            raise ValueError("it has another number of trees than of kinds")
        for stage in model._predictors:
            for one in stage:
                nodes = one.nodes
                if nodes["is_categorical"].any():
                    raise ValueError("a tree asks for categories, and there are none")
                leaf = nodes["is_leaf"] != 0
                left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
                yield nodes["feature_idx"].astype(np.int64), left, right
    else:
        raise ValueError(f"a {type(model).__name__} is no learner of heatprint")
