"""All checks of a method on one classifier, each beside maps that know nothing of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.values import Batch
from heatprint.explainers.door import explain
from heatprint.explainers.target import Which
from heatprint.explainers.trust.bootstrap import Better, Interval, interval, paired_verdict
from heatprint.explainers.trust.heat import values
from heatprint.explainers.trust.pointing import pointing_game, share_inside
from heatprint.explainers.trust.randomisation import randomisation, verdict
from heatprint.explainers.trust.removal import area_of_logit, area_of_probability, removal_curve
from heatprint.explainers.trust.rivals import Edges, edge_map, random_map
from heatprint.explainers.trust.road import road
from heatprint.explainers.trust.sparseness import gini, top_share
from heatprint.explainers.trust.stability import stability

Masks = Tensor | Mapping[str, Tensor]
Scores = dict[str, tuple[Better, Tensor]]

HEAD = ("measure", "better", "map", "95 %", "random", "edges", "than random", "than edges", "images")
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of ROAD: half of its usual ones, for half the time
WEIGHTS = "similarity after randomising all weights"
ORDER = f"{WEIGHTS}: |Spearman|"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure.

    Attributes:
        measure: Its name.
        better: Which direction is better; "neither" describes the map without judging it.
        value: Of the method's maps.
        random: Mean of random maps of the same images; None where a random map has no part.
        edges: Mean of their edge maps.
        than_random: "better", "worse", "not distinguishable" or "too few images" by the paired bootstrap; empty where
            nothing is judged.
        than_edges: The same against the edge maps.
        images: Images that were counted.
    """

    measure: str
    better: Better
    value: Interval
    random: float | None
    edges: float
    than_random: str
    than_edges: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the checks found.

    Attributes:
        rows: One per measure.
        randomisation_passed: Whether the map changes when the network's weights are randomised; None where that is
            not decided, because every map before or after is constant.
        excluded: Share of the noisy copies that changed the prediction and were left out of the stability rows.
    """

    rows: tuple[Row, ...]
    randomisation_passed: bool | None
    excluded: float

    def table(self) -> list[tuple[str, ...]]:
        """The rows as text, a head first: measure, direction, value, interval, rivals, verdicts, images."""
        return [HEAD, *(_spelled(row) for row in self.rows)]


def check(
    classifier: Classifier,
    batch: Batch,
    method: Explainer,
    *,
    target: Tensor | Which = "predicted",
    masks: Masks | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Checked:
    """Whether the maps of a method can be trusted, in numbers.

    Args:
        classifier: The classifier; untouched afterwards.
        batch: Images; some dozens give usable intervals, fewer than six no verdict.
        method: The explainer.
        target: The class explained, and followed by every measure; see `explain`. Not a contrast, which has no
            probability to follow.
        masks: Where the evidence is known to be, bool [N, H, W], or several by name: the share of positive relevance
            inside and the pointing game are added. An image with an empty mask is left out of its rows.
        seed: Of random maps, noise, randomised weights and the bootstrap; equal seeds give equal results.
        progress: Told after each part.

    Raises:
        InvalidInput: Masks or targets do not fit the images, or the target is a contrast.
    """
    refuse_contrast(target)
    known = _named(masks, batch)
    parts = 6
    explained = explain(classifier, batch, method, target=target)
    progress(1, parts, "maps")
    maps = {"method": values(batch, explained), "random": random_map(batch, seed=seed), "edges": edge_map(batch)}
    scores = {}
    for number, (name, heat) in enumerate(maps.items(), start=2):
        scores[name] = _of_map(classifier, batch, heat, explained.target, known, seed)
        progress(number, parts, f"removal, {name}")
    behaviour, excluded = _of_method(classifier, batch, method, explained.target, seed)
    progress(5, parts, "stability, randomisation")
    edges, _ = _of_method(classifier, batch, Edges(), explained.target, seed)
    progress(6, parts, "stability, randomisation, edges")
    rows = [_row(name, scores["method"], scores["random"], scores["edges"], seed) for name in scores["method"]]
    rows += [_row(name, behaviour, None, edges, seed) for name in behaviour]
    return Checked(rows=tuple(rows), randomisation_passed=verdict(behaviour[ORDER][1]), excluded=excluded)


def refuse_contrast(target: Tensor | Which) -> None:
    """The measures follow the logit or probability of one class.

    Raises:
        InvalidInput: The target is a contrast.
    """
    if isinstance(target, str) and target == "contrast":
        raise InvalidInput("check: a contrast is no single class that could be followed. Check 'true' or 'runner-up'.")


def _named(masks: Masks | None, batch: Batch) -> Mapping[str, Tensor]:
    known = {} if masks is None else {"mask": masks} if isinstance(masks, Tensor) else masks
    wanted = (len(batch), *batch.pixels.shape[2:])
    for name, mask in known.items():
        if mask.dtype != torch.bool or tuple(mask.shape) != wanted:
            raise InvalidInput(
                f"check: mask {name!r} must be bool {list(wanted)}, got {mask.dtype} {list(mask.shape)}."
            )
    return known


def _of_map(
    classifier: Classifier, batch: Batch, heat: Tensor, target: Tensor, masks: Mapping[str, Tensor], seed: int
) -> Scores:
    """What can be said of any map. Deletion and pixel flipping share their most-relevant-first curve."""
    most, least = (removal_curve(classifier, batch, heat, order=order, seed=seed) for order in ("most", "least"))
    back = removal_curve(classifier, batch, heat, fill="blur", insert=True, seed=seed)
    found: Scores = {
        "insertion": ("higher", area_of_probability(back, target, batch)),
        "deletion": ("lower", area_of_probability(most, target, batch)),
        "pixel flipping": ("higher", area_of_logit(least, target, batch) - area_of_logit(most, target, batch)),
        "ROAD": ("higher", road(classifier, batch, heat, target=target, shares=SHARES, seed=seed)),
    }
    for name, mask in masks.items():
        found[f"relevance inside {name}"] = ("higher", share_inside(heat, mask))
        found[f"peak inside {name}"] = ("higher", pointing_game(heat, mask))
    found["Gini index"] = ("neither", gini(heat))
    found["relevance in the top 10 %"] = ("neither", top_share(heat))
    return found


def _of_method(
    classifier: Classifier, batch: Batch, method: Explainer, target: Tensor, seed: int
) -> tuple[Scores, float]:
    """What needs new maps: of noisy images, and of a network that has forgotten everything."""
    steady = stability(classifier, batch, method, target=target, draws=4, seed=seed)
    blank = randomisation(classifier, batch, method, target=target, stops=1, seed=seed)
    found: Scores = {
        "largest change under noise": ("lower", steady.max_change),
        "rank correlation under noise": ("higher", steady.rank_correlation),
        ORDER: ("lower", blank.spearman[-1].abs()),
        f"{WEIGHTS}: SSIM": ("lower", blank.ssim[-1]),
    }
    return found, float(steady.excluded.mean())


def _row(name: str, own: Scores, random: Scores | None, edges: Scores, seed: int) -> Row:
    better, found = own[name]
    drawn = None if random is None else random[name][1]
    return Row(
        measure=name,
        better=better,
        value=interval(found, seed=seed),
        random=None if drawn is None else float(drawn.double().nanmean()),
        edges=float(edges[name][1].double().nanmean()),
        than_random="" if drawn is None else paired_verdict(found, drawn, better, seed=seed),
        than_edges=paired_verdict(found, edges[name][1], better, seed=seed),
        images=int((~found.isnan()).sum()),
    )


def _spelled(row: Row) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "" if value is None or math.isnan(value) else f"{value:.3f}"

    return (
        row.measure,
        row.better,
        number(row.value.mean),
        f"{number(row.value.low)} to {number(row.value.high)}",
        number(row.random),
        number(row.edges),
        row.than_random,
        row.than_edges,
        str(row.images),
    )
