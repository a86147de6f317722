"""What is checked before a study begins: that it can end, and that its folder holds no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.errors import HeatprintError, InvalidInput, StoreError
from heatprint.core.reading import read_json
from heatprint.core.store import Store, write_json
from heatprint.core.values import Batch
from heatprint.explainers import explain
from heatprint.models.train import Training
from heatprint.signatures import sign
from heatprint.study.recipe import Recipe


def rehearse(classifier: Classifier, recipe: Recipe) -> int:
    """Meet on one grey image what would otherwise end the study after an hour: sizes, rules, layers.

    Returns:
        How many numbers a signature has.

    Raises:
        InvalidInput: The network cannot take images of a training stage's size, or there is no such layer.
        Unsupported: The explainer has no rule for one of its operations.
    """
    trainings = [recipe.training, recipe.retraining.training]
    others = [getattr(table.make(), "training", None) for table in recipe.defences]
    trainings += [one for one in others if isinstance(one, Training)]
    for size in sorted({size or classifier.size for one in trainings for _, size in one.stages}):
        try:
            with torch.no_grad():
                classifier.network(torch.zeros(2, 3, size, size, device=classifier.device))
        except (RuntimeError, AssertionError) as error:
            raise InvalidInput(
                f"training: stages has size {size}, which {recipe.architecture} for images of {recipe.data.size} "
                f"pixels cannot take ({error}). Write {recipe.data.size}."
            ) from error
    pixels = torch.full((1, 3, recipe.data.size, recipe.data.size), 128, dtype=torch.uint8)
    grey = Batch(ids=("grey",), pixels=pixels, labels=torch.zeros(1, dtype=torch.long))
    explain(classifier, grey, recipe.explainer.make())
    return len(sign(classifier, grey, recipe.map.signer()).vectors[0])


def same_study(store: Store, recipe: Recipe) -> None:
    """Refuse a folder that holds another study; where its images lie, device, resources and atlas may differ.

    The atlas is the last that is computed, and nothing else depends on it: its table may be mended without a new study.

    Raises:
        StoreError: The folder was begun with another recipe or seed, or what it was begun with cannot be read.
    """
    path = store.root / "recipe.json"
    whole = json.loads(recipe.model_dump_json(exclude={"device": True, "data": {"source"}}))
    if path.exists() and _before_atlas(_with_defaults(_written(path))) != _before_atlas(whole):
        raise StoreError(
            f"study: {store.root} holds a study of another recipe or seed, which would be overwritten. "
            "Name another folder, or delete this one."
        )
    write_json(path, whole)


def _written(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"study: {path} is damaged ({error}). Remove it to go on with the recipe you gave: nothing that another "
            "one computed is taken for its own."
        ) from error


def _with_defaults(written: Any) -> Any:
    """A recipe as an older version wrote it, with the fields it did not know; itself where it is none."""
    try:
        return json.loads(Recipe.model_validate(written).model_dump_json(exclude={"device": True, "data": {"source"}}))
    except (ValueError, HeatprintError):
        return written


def _before_atlas(recipe: Any) -> Any:
    free = ("atlas", "resources")
    return {name: value for name, value in recipe.items() if name not in free} if isinstance(recipe, dict) else recipe
