"""Attack flows: from which strategy to which an attack moves the images, and which strategies fall first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatprint.atlas.cards import Card
from heatprint.core.errors import InvalidInput
from heatprint.evaluation import share
from heatprint.signatures.strategies import Clusterer, Strategies


@dataclass(frozen=True, kw_only=True, eq=False)
class Flows:
    """Strategies of clean, attacked and difference maps, found in one graph.

    Attributes:
        ids: Image ids, N of them.
        clean: int64 [N], the strategy of each clean map.
        attacked: int64 [N], the strategy of each attacked map.
        difference: int64 [N], the strategy of attacked minus clean; -1 where the attack left the map as it was.
        strategies: What was found in all maps together. Its labels are those of the maps that were clustered: the
            clean ones, then the changed attacked ones, then their differences, each in the order of sorted ids.
    """

    ids: tuple[str, ...]
    clean: np.ndarray
    attacked: np.ndarray
    difference: np.ndarray
    strategies: Strategies

    @property
    def matrix(self) -> np.ndarray:
        """int64 [S, S]: images whose clean map is of the row's strategy and whose attacked one of the column's."""
        counted = np.zeros((self.strategies.count, self.strategies.count), dtype=np.int64)
        np.add.at(counted, (self.clean, self.attacked), 1)
        return counted

    @property
    def stayed(self) -> dict[str, Any] | None:
        """Share of images that stayed in their strategy."""
        return share(int((self.clean == self.attacked).sum()), len(self.ids))

    def sizes(self, kind: np.ndarray) -> list[int]:
        """Maps of one kind (`clean`, `attacked` or `difference`) in each strategy."""
        found: list[int] = np.bincount(kind[kind >= 0], minlength=self.strategies.count).tolist()
        return found


def flows(
    clean_maps: np.ndarray,
    attacked_maps: np.ndarray,
    method: Clusterer,
    *,
    ids: Sequence[str],
    images: tuple[np.ndarray, np.ndarray] | None = None,
    count: int | None = None,
) -> Flows:
    """Where an attack moves heat maps, among strategies of clean, attacked and difference maps in one graph.

    A map that the attack left bit for bit as it was goes into the graph once, so that the image cannot leave its
    strategy; there is no difference to cluster either.

    Args:
        clean_maps: float32 [N, h, w], each for the class predicted then.
        attacked_maps: float32 [N, h, w] of the same images after the attack, likewise.
        method: A clustering, e.g. SpRAy.
        ids: Unique names of the N images; the result does not depend on their order.
        images: Clean and attacked images [N, 3, H, W], for methods that look at both; a difference goes with the
            attacked image.
        count: How many strategies to tell apart; None for as many as the maps propose.

    Raises:
        InvalidInput: The shapes differ, there are no images, or ids occur twice.
    """
    if clean_maps.shape != attacked_maps.shape or len(ids) != len(clean_maps) or not len(ids):
        raise InvalidInput(
            f"flows: {len(ids)} ids, clean maps {list(clean_maps.shape)} and attacked maps "
            f"{list(attacked_maps.shape)} do not belong together; give one of each per image, at least one."
        )
    if len(set(ids)) != len(ids):
        raise InvalidInput("flows: ids must be unique, since clean and attacked maps are joined by them.")
    order = np.array(sorted(range(len(ids)), key=lambda row: ids[row]))
    before, after = clean_maps[order], attacked_maps[order]
    moved = (before != after).any((1, 2))
    stack = np.concatenate([before, after[moved], after[moved] - before[moved]])
    seen = None
    if images is not None:
        first, second = images[0][order], images[1][order][moved]
        seen = np.concatenate([first, second, second])
    strategies = method.strategies(stack, seen, count=count)
    own, others, gaps = np.split(strategies.labels, [len(order), len(order) + int(moved.sum())])
    clean, attacked, difference = (np.empty(len(order), dtype=np.int64) for _ in range(3))
    clean[order], attacked[order], difference[order] = own, own, -1
    attacked[order[moved]], difference[order[moved]] = others, gaps
    return Flows(ids=tuple(ids), clean=clean, attacked=attacked, difference=difference, strategies=strategies)


def first_to_fall(cards: Sequence[Card], attack: str) -> list[Card]:
    """The strategies an attack was tried on, the first to fall first.

    By the median smallest gain, then by the share that held, where medians are equal or not known.
    """
    tried = [card for card in cards if attack in card.attacks and card.attacks[attack].held]

    def ease(card: Card) -> tuple[float, float]:
        fell = card.attacks[attack]
        return fell.gain.median if fell.gain else np.inf, fell.held["share"] if fell.held else 1.0

    return sorted(tried, key=ease)
