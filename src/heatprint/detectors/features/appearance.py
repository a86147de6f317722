"""The heat map looked at as a picture: what the paper's claim, as usually read, would have to be seen in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.detectors.features.depths import at_depths
from heatprint.detectors.features.picture import (
    concentration,
    evenness,
    kurtosis,
    likeness,
    overlap,
    place,
    positive,
    shares,
    texture,
)
from heatprint.detectors.filters import spread3
from heatprint.detectors.look import Look
from heatprint.explainers import EXPLAINERS
from heatprint.explainers.lrp.explainer import LRP

PARTS = (0.001, 0.01, 0.05)  # of the pixels
DEPTHS = 4
TAILS = (0.05, 0.95)
SAMPLE = 16_384  # values of a layer at least, evenly spaced, whose dispersion is taken where it has more
TOP = ("top 0.1 %", "top 1 %", "top 5 %", "gini", "entropy", "kurtosis")
WHERE = ("row", "column", "spread", "elongation", "frame")
TEXTURE = ("roughness", "next pixel", "coarse", "largest block")
LAYER = ("width", "entropy", "kurtosis", "positive", "channels")


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How the heat map and the slope of the margin look, at the input and inside; of the image only edges are seen.

    Klawikowska et al. 2020 propose that heat maps differ by attack. Measured are, of the relevance of the predicted
    class and of the size of the margin's slope, both added up over the channels: concentration (share in the largest
    0.1 %, 1 % and 5 % of the pixels, Gini index, entropy, kurtosis), place (centre, spread, elongation, share in the
    frame), texture (second differences, correlation with the next pixel, what averaging leaves, largest of 7 x 7
    blocks) and whether they follow the image's edges; the share of positive relevance; how much the maps of the
    predicted class and of the runner-up agree (contrastive maps), and relevance and slope; and at four depths of the
    network the dispersion of activation times slope (Yang et al. 2020, "ML-LOO", whose leave-one-out scores these are
    to first order): the distance from the 5th to the 95th percentile over the standard deviation (quartiles are 0
    where most neurons are silent), entropy, kurtosis, positive share, and the entropy of the channels' sums.

    Kept as a labelled ablation beside ``key`` and ``undo``, which multiply the same maps with the image.

    No column is a sum of relevance: multiplying the network's logits by a constant changes none but "rival size", and
    that by the rule's epsilon alone. The columns in `follows_margin` are the margin all the same: the sizes of two
    classes' maps go with their logits, and activation times slope adds up to the margin in some layers; near the input
    that product is already the map used as a key. Low margins change the picture itself, so that the others may still
    tell it; the equal-margin AUROC (`evaluation.detection.equal_margin`) shows what is left.

    In an image of a single colour all places tie in every maximum, so that rounding decides where relevance goes: its
    maps count as empty.

    Costs three forward and backward passes besides the look's own.

    Attributes:
        method: An ``lrp.`` explainer; the default draws the paper's heat maps.
    """

    method: str = "lrp.sequential_preset_a_flat"

    def __post_init__(self) -> None:
        if not issubclass(EXPLAINERS.load(self.method), LRP):
            raise InvalidInput(f"Appearance: method = {self.method!r} propagates no relevance; write an 'lrp.' one.")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        heat = [f"heat {name}" for name in ("positive", *TOP, *WHERE, *TEXTURE, "edges")]
        slope = [f"slope {name}" for name in (*TOP, *WHERE, *TEXTURE, "edges")]
        classes = ["classes alike", "classes overlap", "heat and slope alike", "rival size"]
        return (*heat, *slope, *classes, *(f"depth {depth} {name}" for depth in range(DEPTHS) for name in LAYER))

    @property
    def follows_margin(self) -> tuple[str, ...]:
        """Columns that are the logits' ratio, or near the margin over a size that grows with it."""
        return ("rival size", *(f"depth {depth} positive" for depth in range(DEPTHS)))

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns].

        Raises:
            Unsupported: The network has an operation that relevance cannot pass.
        """
        order = look.logits.argsort(dim=1, descending=True, stable=True)
        varied = (look.pixels != look.pixels[..., :1, :1]).any((1, 2, 3)).float()
        heat, rival = (self._map(look, order[:, k]) * varied[:, None, None] for k in (0, 1))
        slope = look.slopes[:, 0] * varied[:, None, None, None]
        size = slope.abs().sum(1)
        edges = spread3(look.images).mean(1)
        layers = [
            _layer(values * varied.view(-1, *[1] * (values.ndim - 1)))
            for values in at_depths(look.classifier, look.images, DEPTHS)
        ]
        return torch.cat([
            positive(heat)[:, None], concentration(heat, PARTS), place(heat), texture(heat),
            likeness(heat.abs(), edges)[:, None],
            concentration(size, PARTS), place(size), texture(slope.sum(1)), likeness(size, edges)[:, None],
            _between(heat, rival, size), *layers,
        ], 1).float()  # fmt: skip

    def _map(self, look: Look, target: Tensor) -> Tensor:
        method = EXPLAINERS.make(self.method)
        explained, _ = method.attribute(look.classifier, look.classifier.normalise(look.images), target)
        return explained.relevance.sum(1)


def _between(heat: Tensor, rival: Tensor, slope: Tensor) -> Tensor:
    own, other = (values.abs().flatten(1).double().sum(1) for values in (heat, rival))
    part = torch.where(own + other > 0, other / (own + other).where(own + other > 0, 1), 0.5)
    return torch.stack([likeness(heat, rival), overlap(heat, rival, PARTS[2]), likeness(heat.abs(), slope), part], 1)


def _layer(values: Tensor) -> Tensor:
    """Dispersion of a layer's values, [N, ...] to [N, 5]."""
    flat = values.flatten(1)
    some = flat[:, :: max(1, flat.shape[1] // SAMPLE)].double()
    low, high = (some.kthvalue(max(1, round(part * some.shape[1])), dim=1).values for part in TAILS)
    spread = some.std(1, correction=0)
    width = (high - low) / spread.where(spread > 0, 1)
    sums = values.flatten(2).sum(2) if values.ndim == 4 else values.sum(1) if values.ndim == 3 else values
    return torch.stack([width, evenness(shares(some)), kurtosis(some), positive(flat), evenness(shares(sums))], 1)
