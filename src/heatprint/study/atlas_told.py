"""What ``metrics.json`` says of strategies, cards and flows, as plain values: no NaN, floats to six places."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from heatprint.atlas import Card, Flows, Median, first_to_fall
from heatprint.core.store import Part
from heatprint.signatures.strategies import Strategies

EIGENVALUES = 16


def spelled(value: Any) -> np.ndarray:
    """A value as JSON in bytes, to be kept among the arrays of a part."""
    return np.frombuffer(json.dumps(_plain(value), allow_nan=False).encode(), dtype=np.uint8)


def read(part: Part) -> Any:
    """What `spelled` wrote under ``told``."""
    return json.loads(bytes(part.arrays["told"]))


def strategy_name(kind: str, label: int) -> str:
    """The name of a strategy of a class: the class and a number from 1."""
    return f"{kind} {label + 1}"


def letter(label: int) -> str:
    """The name of a strategy of a flow: A, B, ..., Z, AA, AB, ...; empty for -1."""
    return letter(label // 26 - 1) + chr(ord("A") + label % 26) if label >= 0 else ""


def graph(found: Strategies) -> dict[str, Any]:
    """How many strategies there are, and the spectrum they were read from."""
    return {
        "proposed": found.proposed,
        "count": found.count,
        "forced": found.count != found.proposed,
        "note": found.note,
        "stability": found.stability,
        "separability": found.separability,
        "eigenvalues": found.eigenvalues[:EIGENVALUES].tolist(),
        "null": found.null[:EIGENVALUES].tolist(),
    }


def by_rank(told: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Classes, the one to look at first in front: those whose maps propose strategies, the most separable first.

    A partition into strategies that were asked for is separable by construction and comes after those.
    """
    return sorted(told, key=lambda one: (one["proposed"] == 1, -one["separability"], one["class"]))


def card(name: str, found: Card, classes: Sequence[str], units: Mapping[str, str]) -> dict[str, Any]:
    """A card without its pictures.

    Args:
        name: Of the strategy.
        found: The card.
        classes: Names of the classes.
        units: What the step of each attack counts.
    """
    return {
        "name": name,
        "class": name.rpartition(" ")[0],
        "strategy": found.strategy,
        "images": len(found.rows),
        "labels": {classes[k]: count for k, count in found.labels.items()},
        "purity": found.purity,
        "accuracy": found.accuracy,
        "separability": found.separability,
        "edge": found.edge,
        "agreement": found.agreement,
        "suspicion": found.suspicion,
        "attacks": {
            attack: {
                "held": one.held,
                "gain": _gain(one.gain),
                "unit": units.get(attack, "steps"),
                "confusion": one.confusion and {"class": classes[one.confusion[0]], "count": one.confusion[1]},
            }
            for attack, one in found.attacks.items()
        },
    }


def falls(named: Mapping[str, Card], attack: str) -> list[dict[str, Any]]:
    """Strategies by name, the first to fall first."""
    names = {id(found): name for name, found in named.items()}
    return [
        {"name": names[id(one)], "held": one.attacks[attack].held, "gain": _gain(one.attacks[attack].gain)}
        for one in first_to_fall(list(named.values()), attack)
    ]


def flow(found: Flows, classes: Sequence[str]) -> dict[str, Any]:
    """A flow; `classes` are those that the clean images are predicted as, [N]."""
    sizes = zip(*(found.sizes(kind) for kind in (found.clean, found.attacked, found.difference)), strict=True)
    return {
        "images": len(found.ids),
        "proposed": found.strategies.proposed,
        "count": found.strategies.count,
        "forced": found.strategies.count != found.strategies.proposed,
        "note": found.strategies.note,
        "stability": found.strategies.stability,
        "strategies": [
            {
                "name": letter(label), "clean": clean, "attacked": attacked, "difference": difference,
                "classes": _counted([kind for kind, own in zip(classes, found.clean, strict=True) if own == label]),
            }
            for label, (clean, attacked, difference) in enumerate(sizes)
        ],
        "matrix": found.matrix.tolist(),
        "stayed": found.stayed,
    }  # fmt: skip


def _counted(names: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _gain(found: Median | None) -> dict[str, float] | None:
    return asdict(found) if found else None


def _plain(value: Any) -> Any:
    """Mappings, sequences and numbers as JSON has them; what is not finite is null."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
