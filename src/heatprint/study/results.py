"""The two cards of a run: what was done (`run.json`) and what came out (`metrics.json`)."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.store import Part
from heatprint.core.values import Attacked, PlanLine
from heatprint.data.sources import Dataset
from heatprint.evaluation import attack_summary
from heatprint.study.places import summarised as summarised_places
from heatprint.study.recipe import AttackTable, Recipe

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "umap-learn", "pillow", "pyarrow")


def run_card(
    recipe: Recipe, data: Dataset, arms: Sequence[Classifier], plan: Sequence[PlanLine], device: torch.device
) -> dict[str, Any]:
    """Everything needed to know what was run, and to run it again."""
    return {
        "heatprint": version("heatprint"),
        "recipe_name": recipe.name,
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": str(device),
        "data": {
            "source": recipe.data.source,
            "name": data.name,
            "classes": list(data.classes),
            "train": len(data.train),
            "test": len(data.test),
            "fingerprint": digest(data.train.ids, data.train.pixels, data.test.ids, data.test.pixels),
            "skipped": [asdict(s) for s in data.skipped],
        },
        "models": {
            arm.name: {
                "title": arm.name.replace("_", " "),
                "architecture": arm.architecture,
                "digest": arm.digest,
                "parameters": sum(p.numel() for p in arm.trainable.parameters()),
            }
            for arm in arms
        },
        "attacks": {a.name: _attack_card(a) for a in (*recipe.attacks, recipe.strong)},
        "explainer": {
            "method": recipe.explainer.method,
            "settings": recipe.explainer.settings,
            "plan": [asdict(line) for line in plan],
        },
        "signature": recipe.map.signature,
        "embedding": recipe.map.umap,
    }


def metrics(
    recipe: Recipe,
    data: Dataset,
    cards: Sequence[dict[str, Any]],
    old: Mapping[str, Attacked],
    for_training: Mapping[str, Attacked],
    places: Part,
    pairs: Mapping[str, Any],
) -> dict[str, Any]:
    """The numbers of a run; no time, no path, no version: equal inputs give equal bytes."""
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "classes": list(data.classes),
        "table1": _table1(cards, recipe),
        "arms": list(cards),
        "attacks": {
            name: {
                "test": attack_summary(hit, data.classes),
                **({"train": attack_summary(for_training[name], data.classes)} if name in for_training else {}),
            }
            for name, hit in old.items()
        },
        "map": summarised_places(places),
        "pairs": dict(pairs),
    }


def _table1(cards: Sequence[dict[str, Any]], recipe: Recipe) -> list[dict[str, Any]]:
    """The rows of the paper's Table 1: the clear model on each test set, then each immune model on its own."""
    by_name = {card["name"]: card for card in cards}
    clear = by_name["clear"]
    rows = [{"model": "clear", "test_set": "clear_test", "attack": None, "share": clear["clean"]}]
    retrained = [a for a in recipe.attacks if a.retrain]
    pairs = [("clear", a.name) for a in retrained] + [(f"{a.name}_immune", a.name) for a in retrained]
    for model, name in pairs:
        share = by_name[model]["attacks"][name]["mixture"]
        rows.append({"model": model, "test_set": f"clear+{name}_test", "attack": name, "share": share})
    return rows


def _attack_card(table: AttackTable) -> dict[str, Any]:
    method = table.make()
    return {
        "title": table.title or table.name,
        "method": table.method,
        "settings": asdict(method),  # type: ignore[call-overload]
        "taxonomy": asdict(method.taxonomy),
    }
