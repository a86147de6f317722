"""Before and after: the explanation of an image beside that of its attacked copy, and how far the two agree.

Heat maps of two images can be compared by order (rank correlation), by shape (cosine) and by amount (relevance
moved); none of the three depends on how large the relevance is. Where the attack changed pixels, the share of
relevance on them says whether the explanation shows the attack, beside the share that chance alone would put there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.values import Batch, Explained
from heatprint.explainers.door import explain
from heatprint.explainers.ranks import spearman
from heatprint.explainers.target import Which

MEASURES = (
    *("rank_correlation", "cosine", "moved", "moved_unsigned"),
    *("on_changed", "clean_on_changed", "chance", "peak_distance"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Explanations of N images and of their attacked copies, and what differs.

    Every measure is float64 [N] and is taken on the heat maps (relevance summed over channels). A share is one of the
    sum of |heat| over the map. A measure that has no meaning for a pair is NaN: those of a map that is zero everywhere
    (for the rank correlation: everywhere the same), and those about changed pixels where no pixel was changed.

    Attributes:
        clean: Explanations of the clean images.
        adversarial: Explanations of the attacked ones, same ids.
        changed: bool [N, H, W], pixels in which the two images differ.
    """

    clean: Explained
    adversarial: Explained
    changed: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(self.clean.heat.shape), tuple(self.adversarial.heat.shape), tuple(self.changed.shape)]
        if len(set(shapes)) > 1 or self.changed.dtype != torch.bool or self.clean.ids != self.adversarial.ids:
            raise InvalidInput(
                f"Compared: clean maps {list(shapes[0])}, attacked maps {list(shapes[1])} and changed pixels "
                f"{self.changed.dtype} {list(shapes[2])} do not belong together; give the same ids, one shape, bool."
            )

    @property
    def difference(self) -> Tensor:
        """Heat of the attacked image minus heat of the clean one, [N, H, W]."""
        return self.adversarial.heat - self.clean.heat

    @cached_property
    def rank_correlation(self) -> Tensor:
        """Spearman's rank correlation of the signed heats, -1 to 1 (Adebayo et al. 2018; Ghorbani et al. 2019)."""
        return spearman(self.clean.heat, self.adversarial.heat)

    @cached_property
    def cosine(self) -> Tensor:
        """Cosine of the signed heats, -1 to 1."""
        return _cosine(*self._shares)

    @cached_property
    def moved(self) -> Tensor:
        """Relevance moved, 0 to 1: half the L1 distance of the two maps, each divided by its sum of |heat|.

        0 for equal maps, 1 for maps that share no pixel. Relevance that turns from positive to negative counts as
        moved, so the negative of a map is 1 away from it.
        """
        before, after = self._shares
        return (after - before).abs().sum(1) / 2

    @cached_property
    def moved_unsigned(self) -> Tensor:
        """The same of |heat|, 0 to 1: what lies elsewhere, whatever its sign; 0 for a map and its negative.

        Where the score changes its sign, so does a map that adds up to it: `moved` is then near 1 though the network
        still looks at the same places. The total variation distance of two distributions of |heat|.
        """
        before, after = self._shares
        return (after.abs() - before.abs()).abs().sum(1) / 2

    @cached_property
    def on_changed(self) -> Tensor:
        """Share of the attacked image's |heat| that lies on the changed pixels, 0 to 1."""
        return self._on_changed(self._shares[1])

    @cached_property
    def clean_on_changed(self) -> Tensor:
        """Share of the clean image's |heat| that lay on those pixels already, 0 to 1."""
        return self._on_changed(self._shares[0])

    @cached_property
    def chance(self) -> Tensor:
        """Share that relevance spread evenly would have there: changed pixels over all pixels, 0 to 1."""
        return self._where_changed(self.changed.flatten(1).double().mean(1))

    @cached_property
    def peak_distance(self) -> Tensor:
        """Distance in pixels from the attacked map's largest |heat| to the nearest changed pixel; 0 on one."""
        share = self._shares[1]
        width = self.changed.shape[2]
        peak = share.abs().argmax(1)
        y, x = torch.meshgrid(*(torch.arange(s) for s in self.changed.shape[1:]), indexing="ij")
        away = torch.hypot(y - (peak // width).view(-1, 1, 1).double(), x - (peak % width).view(-1, 1, 1).double())
        nearest = away.masked_fill(~self.changed, math.inf).flatten(1).amin(1)
        has_peak = ~share.isnan().any(1)
        return self._where_changed(torch.where(has_peak, nearest, math.nan))

    def scale(self, percentile: float = 100.0) -> Tensor:
        """What the ends of the colours stand for when both maps of a pair are drawn, float64 [N].

        Args:
            percentile: Of |heat| over both maps, 0 to 100: 100 is the largest one, 99.5 keeps a single hot pixel from
                bleaching the rest.

        Returns:
            Positive numbers: the largest |heat| where the percentile is 0, and 1 where both maps are zero.
        """
        if not 0 <= percentile <= 100:
            raise InvalidInput(f"Compared.scale: percentile = {percentile}; write a number from 0 to 100.")
        size = torch.cat([_flat(self.clean.heat), _flat(self.adversarial.heat)], dim=1).abs()
        largest = size.amax(1)
        limit = torch.from_numpy(np.percentile(size.numpy(), percentile, axis=1))
        limit = torch.where(limit > 0, limit, largest)
        return torch.where(limit > 0, limit, 1.0)

    def rows(self) -> list[dict[str, Any]]:
        """One row per pair: id, classes explained, scores, changed pixels and every measure."""
        before, after = self.clean, self.adversarial
        columns: dict[str, list[Any]] = {
            "id": list(before.ids),
            "clean_target": before.target.tolist(),
            "target": after.target.tolist(),
            "clean_score": before.score.tolist(),
            "score": after.score.tolist(),
            "changed": self.changed.flatten(1).sum(1).tolist(),
            **{name: getattr(self, name).tolist() for name in MEASURES},
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Median, quartiles and counts of every measure; see `spread`."""
        return {name: spread(getattr(self, name).tolist()) for name in MEASURES}

    @cached_property
    def _shares(self) -> tuple[Tensor, Tensor]:
        """Both maps divided by their sums of |heat|, [N, H * W] each; NaN where a map is zero."""
        before, after = (_flat(seen.heat) for seen in (self.clean, self.adversarial))
        return before / before.abs().sum(1, keepdim=True), after / after.abs().sum(1, keepdim=True)

    def _on_changed(self, share: Tensor) -> Tensor:
        return self._where_changed((share.abs() * self.changed.flatten(1)).sum(1))

    def _where_changed(self, values: Tensor) -> Tensor:
        return torch.where(self.changed.flatten(1).any(1), values, math.nan)


def compare(
    classifier: Classifier,
    clean: Batch,
    adversarial: Batch,
    method: Explainer,
    *,
    target: Tensor | Which = "predicted",
    progress: Progress = silent,
) -> Compared:
    """Explain images and their attacked copies, and measure how far the explanations agree.

    Args:
        classifier: The classifier; untouched afterwards.
        clean: The images before.
        adversarial: The same images after an attack: the same ids in the same order (`Attacked` holds both).
        method: An explainer, e.g. ``explainers.make("lrp.sequential_preset_a_flat")``.
        target: What is explained, of each image by itself: ``"predicted"``, so that a successful attack is explained
            for the class it reached; ``"true"``, the same class before and after; ``"contrast"``, the true class minus
            the most likely other one; or see `explain`.
        progress: Told how far it is, clean and attacked images counted together.

    Raises:
        InvalidInput: The two batches do not hold the same images.
    """
    if clean.ids != adversarial.ids or clean.pixels.shape != adversarial.pixels.shape:
        raise InvalidInput(
            f"compare: {len(clean)} clean images of {list(clean.pixels.shape[2:])} and {len(adversarial)} attacked "
            f"ones of {list(adversarial.pixels.shape[2:])} are not pairs; attacked copies carry the ids of their "
            "originals: write clean.with_pixels(...)."
        )
    both = 2 * len(clean)

    def first(done: int, total: int, note: object = "") -> None:
        progress(done, both, note)

    def second(done: int, total: int, note: object = "") -> None:
        progress(total + done, both, note)

    return Compared(
        clean=explain(classifier, clean, method, target=target, progress=first),
        adversarial=explain(classifier, adversarial, method, target=target, progress=second),
        changed=(clean.pixels != adversarial.pixels).any(1).cpu(),
    )


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of the values that are defined, rounded to six places so that equal values give equal text.

    Returns:
        ``{"count": n, "undefined": m, "median": ..., "low": lower quartile, "high": upper quartile}``; the last three
        are None when every value is NaN.
    """
    known = [v for v in values if not math.isnan(v)]
    low, median, high = np.percentile(known, (25, 50, 75)).round(6).tolist() if known else (None, None, None)
    return {"count": len(known), "undefined": len(values) - len(known), "median": median, "low": low, "high": high}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows of one shape as columns, as tables are stored."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _flat(heat: Tensor) -> Tensor:
    return heat.double().flatten(1)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of the rows; 0 / 0, and so NaN, where one of them is zero."""
    both = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    cosine: Tensor = (one * other).sum(1) / both
    return cosine.clamp(-1, 1)
