"""Whether a map stays the same when the image hardly changes and the answer does not change at all."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Explainer
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.explainers.conservation import ConservationWarning
from heatprint.explainers.door import explain
from heatprint.explainers.ranks import spearman
from heatprint.models.predict import predict


@dataclass(frozen=True, kw_only=True, eq=False)
class Stability:
    """What small noise does to the maps; NaN for an image all of whose draws were excluded.

    Attributes:
        max_change: float [N], the largest ||noisy map - map|| / ||map|| over the draws.
        mean_change: float [N], its mean.
        rank_correlation: float [N], mean Spearman correlation of the noisy maps with the map, over the draws in which
            it is defined; NaN where the map is constant.
        excluded: float [N], share of the draws that changed the prediction and therefore say nothing of the map.
    """

    max_change: Tensor
    mean_change: Tensor
    rank_correlation: Tensor
    excluded: Tensor


def stability(
    classifier: Classifier,
    batch: Batch,
    method: Explainer,
    *,
    target: Tensor | None = None,
    draws: int = 8,
    levels: int = 1,
    seed: int = 0,
) -> Stability:
    """How far the maps of a method move under uniform noise that no eye sees.

    Sensitivity after Yeh et al. 2019 (definition 3, max-sensitivity, by sampling) and its mean, with two changes: the
    noise is whole 8-bit levels, because images are bytes here, and draws that change the prediction are excluded and
    counted, because then another map is right. The class explained stays the same.

    Args:
        classifier: The classifier.
        batch: The images.
        method: The explainer.
        target: The class explained, int64 [N]; the predicted one.
        draws: Noisy copies of each image.
        levels: Largest change of a value, in levels of 1/255.
        seed: Of the noise; each image has its own.

    Raises:
        InvalidInput: `draws` or `levels` is not positive.
    """
    if draws < 1 or levels < 1:
        raise InvalidInput(f"stability: draws = {draws} and levels = {levels} must be 1 or more.")
    first = predict(classifier, batch.pixels).argmax(1)
    wanted = first if target is None else target
    heat = explain(classifier, batch, method, target=wanted).heat
    size = heat.flatten(1).norm(dim=1).double()
    changes, alike, kept = [], [], []
    for draw in range(draws):
        noisy = batch.with_pixels(_noisy(batch, levels, seed, draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConservationWarning)  # said already of the images themselves
            moved = explain(classifier, noisy, method, target=wanted).heat
        change = (moved - heat).flatten(1).norm(dim=1).double()
        changes.append(torch.where(size > 0, change / size.where(size > 0, 1.0), torch.where(change > 0, torch.inf, 0)))
        alike.append(spearman(heat, moved))
        kept.append(predict(classifier, noisy.pixels).argmax(1) == first)
    change, valid = torch.stack(changes), torch.stack(kept)
    return Stability(
        max_change=change.where(valid, -torch.inf).amax(0).where(valid.any(0), torch.nan),
        mean_change=change.where(valid, torch.nan).nanmean(0),
        rank_correlation=torch.stack(alike).where(valid, torch.nan).nanmean(0),
        excluded=1 - valid.double().mean(0),
    )


def _noisy(batch: Batch, levels: int, seed: int, draw: int) -> Tensor:
    shape = tuple(batch.pixels.shape[1:])
    noise = np.stack(
        [stream(seed, "trust/stability", i, counter=draw).integers(-levels, levels + 1, shape) for i in batch.ids]
    )
    return (batch.pixels.long() + torch.from_numpy(noise)).clamp(0, 255).to(torch.uint8)
