"""Cluster cards: what the images of each strategy have in common, how they fare, and how suspicious they look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatprint.atlas.gains import Median, gains, median
from heatprint.atlas.measures import agreement, edge, medoids
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Attacked, Batch
from heatprint.evaluation import share
from heatprint.signatures.spray.fisher import separability
from heatprint.signatures.spray.spray import normalised
from heatprint.signatures.strategies import Strategies

MEDOIDS = 3


@dataclass(frozen=True, kw_only=True)
class Fallen:
    """What one attack did to the images of a strategy.

    Attributes:
        held: Share still right after the attack, of those it was tried on (right before it); None where on none.
        gain: Median smallest gain that made one fall, in the attack's steps; None where the attack tells no steps.
        confusion: The class that most of the fallen went to, and how many; None where none fell.
    """

    held: Mapping[str, Any] | None
    gain: Median | None
    confusion: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """One strategy of one class.

    Attributes:
        strategy: Its label, from 0.
        rows: int64 [n], its images among those clustered.
        medoids: int64 [at most 3], the rows nearest to the mean map, nearest first.
        mean_map: float32 [h, w], mean of the maps, each divided by the sum of its absolute values.
        mean_image: uint8 [3, H, W].
        labels: True class to number of images, commonest first; a label of -1 is one that is not known.
        purity: Share of the commonest true class, of images whose true class is known; None where none is.
        accuracy: Share of images whose prediction is right, of the same.
        separability: Fisher separability from the rest of the class; 0 without a rest. A clustering made the groups, so
            they lie apart to some degree by construction: compare strategies, and read no evidence for groups in it.
        edge: Share of |relevance| in the outer frame, an eighth of the side wide; 0.38 at side 28 if it were even.
        agreement: Mean cosine of the maps to the mean map, at most 1.
        suspicion: See `suspicion`.
        attacks: By name, for those given.
    """

    strategy: int
    rows: np.ndarray
    medoids: np.ndarray
    mean_map: np.ndarray
    mean_image: np.ndarray
    labels: Mapping[int, int]
    purity: Mapping[str, Any] | None
    accuracy: Mapping[str, Any] | None
    separability: float
    edge: float
    agreement: float
    suspicion: float
    attacks: Mapping[str, Fallen]


def cards(
    strategies: Strategies,
    maps: np.ndarray,
    batch: Batch,
    predicted: np.ndarray,
    *,
    attacked: Mapping[str, Attacked] | None = None,
) -> list[Card]:
    """One card per strategy, in the order of their labels.

    Args:
        strategies: Of the maps.
        maps: Heat maps float32 [N, h, w] that explain one class.
        batch: The N images, in the same order.
        predicted: int64 [N], the class of each image's prediction.
        attacked: Attacks by name; their images are found by id, and need not be all.

    Raises:
        InvalidInput: The lengths differ, or there is a map that is not finite.
    """
    if not len(strategies.labels) == len(maps) == len(batch) == len(predicted):
        raise InvalidInput(
            f"cards: {len(strategies.labels)} labels, {len(maps)} maps, {len(batch)} images and {len(predicted)} "
            "predictions do not belong together; give one of each per image."
        )
    if not len(maps) or not np.isfinite(maps).all():
        raise InvalidInput(f"cards: finite maps [N, h, w] of at least one image are needed, got {list(maps.shape)}.")
    order = np.array(sorted(range(len(batch)), key=lambda row: batch.ids[row]))  # sums then never depend on the order
    vectors = normalised(maps[order])
    labels = strategies.labels[order]
    found = []
    for strategy in range(strategies.count):
        inside = labels == strategy
        if inside.any():
            own = order[inside]
            signs = separability(vectors, inside), agreement(vectors[inside]), edge(vectors[inside], maps.shape[1:])
            found.append(_card(strategy, own, vectors[inside], signs, maps, batch, predicted, attacked or {}))
    return found


def _card(
    strategy: int,
    rows: np.ndarray,
    vectors: np.ndarray,
    signs: tuple[float, float, float],
    maps: np.ndarray,
    batch: Batch,
    predicted: np.ndarray,
    attacked: Mapping[str, Attacked],
) -> Card:
    ids = [batch.ids[row] for row in rows]
    truth = batch.labels.numpy()[rows]
    known = truth >= 0
    counted = sorted(Counter(truth[known].tolist()).items(), key=lambda item: (-item[1], item[0]))
    apart, agreeing, outside = signs
    return Card(
        strategy=strategy,
        rows=np.sort(rows),
        medoids=rows[medoids(vectors, ids, MEDOIDS)],
        mean_map=vectors.mean(0, dtype=np.float64).reshape(maps.shape[1:]).astype(np.float32),
        mean_image=batch.pixels.numpy()[rows].mean(0, dtype=np.float64).round().astype(np.uint8),
        labels=dict(counted),
        purity=share(max(dict(counted).values(), default=0), int(known.sum())),
        accuracy=share(int((truth == predicted[rows])[known].sum()), int(known.sum())),
        separability=apart,
        edge=outside,
        agreement=agreeing,
        suspicion=suspicion(apart, agreeing, outside, alone=len(rows) == len(maps)),
        attacks={name: fallen(one, ids) for name, one in attacked.items()},
    )


def suspicion(separability: float, agreement: float, edge: float, *, alone: bool = False) -> float:
    """Where to look first, a number from 0 to 1: a heuristic to sort by, not a test.

    The product of three signs of a Clever Hans strategy: it stands apart from the rest of its class (J / (1 + J) of
    the Fisher separability J: the share of variance that lies between), its maps are one and the same map (because a
    caption or a mark stands still), and they lie at the edge, where photographs seldom have their object. A strategy
    that is alone in its class has no rest to stand apart from and is judged by the other two.

    It misses an artefact in the middle, or one that moves about, and accuses honest strategies whose object
    lies at the edge. The counterfactual test decides, not this.
    """
    apart = 1.0 if alone else separability / (1 + separability)
    return apart * max(agreement, 0.0) * edge


def fallen(attacked: Attacked, ids: list[str]) -> Fallen:
    """What an attack did to the images with these ids, as far as it was tried on them."""
    row = {name: place for place, name in enumerate(attacked.clean.ids)}
    tried = [row[name] for name in ids if name in row and not attacked.skipped[row[name]]]
    answers = attacked.logits.argmax(1)[tried]
    right = answers == attacked.clean.labels[tried]
    wrong = sorted(Counter(answers[~right].tolist()).items(), key=lambda item: (-item[1], item[0]))
    return Fallen(
        held=share(right.sum(), len(tried)),
        gain=median(gains(attacked)[tried]),
        confusion=wrong[0] if wrong else None,
    )
