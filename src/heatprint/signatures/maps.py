"""Heat maps of many images, small enough to be compared: pooled by sums, so that relevance is kept."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.values import Batch
from heatprint.explainers import explain
from heatprint.explainers.conservation import ConservationWarning
from heatprint.explainers.target import Which
from heatprint.signatures.copies import distinct_images

PIECE = 256  # maps of full size held at a time: 150 MB at 224 x 224 with three channels


def heat_maps(
    classifier: Classifier,
    batch: Batch,
    explainer: Explainer,
    *,
    side: int = 28,
    target: Tensor | Which = "predicted",
    progress: Progress = silent,
) -> np.ndarray:
    """Heat maps of a batch, channels added up and pixels pooled by sums (Lapuschkin et al. 2019, methods: SpRAy).

    Equal images are explained once, and what they are explained beside does not depend on the order of the batch: a
    failed attack has bit for bit the map of its original.

    Args:
        classifier: The classifier; untouched afterwards.
        batch: Images.
        explainer: An explainer, e.g. ``explainers.make("lrp.sequential_preset_a_flat")``.
        side: Of the maps, in pixels; images that are no larger keep their own size.
        target: As in `heatprint.explainers.explain`.
        progress: Told how many different images are explained.

    Returns:
        float32 [N, side, side], signed; each sums to the relevance of its image's input.

    Warns:
        ConservationWarning: See `explain`; once, for the first images.

    Raises:
        InvalidInput: The side is not positive, there are no images, or the targets do not fit.
    """
    if side < 1:
        raise InvalidInput(f"heat_maps: side = {side}; write a number of pixels, 1 or more.")
    rows, place = distinct_images(batch.pixels, _asked(batch, target))
    pooled: list[np.ndarray] = []
    for start in range(0, max(len(rows), 1), PIECE):  # no images: `explain` says so
        part = rows[start : start + PIECE]

        def shown(done: int, total: int, note: object = "", start: int = start) -> None:
            progress(start + done, len(rows), note)

        with warnings.catch_warnings():
            if start:
                warnings.simplefilter("ignore", ConservationWarning)
            wanted = target[part] if isinstance(target, Tensor) else target
            explained = explain(classifier, batch.take(part), explainer, target=wanted, progress=shown)
        pooled.append(sum_pooled(explained.heat, min(side, *explained.heat.shape[1:])))
    return np.take(np.concatenate(pooled), place.numpy(), axis=0)


def sum_pooled(maps: np.ndarray | Tensor, side: int) -> np.ndarray:
    """Maps pooled by sums: a pixel that lies across a border is shared by the area on either side of it.

    Where `side` divides the maps' sides this is the sum over blocks. The sum of each map is kept, up to rounding.

    Args:
        maps: Finite, [N, H, W].
        side: Of the pooled maps, from 1 to the smaller of H and W.

    Returns:
        float32 [N, side, side].

    Raises:
        InvalidInput: Another shape, values that are not finite, or a side that would enlarge the maps.
    """
    tensor = maps.detach() if isinstance(maps, Tensor) else torch.from_numpy(np.ascontiguousarray(maps))
    if tensor.ndim != 3 or not 1 <= side <= min(tensor.shape[1:]):
        raise InvalidInput(
            f"sum_pooled: maps {list(tensor.shape)} to side {side}; give maps [N, H, W], and a side from 1 to the "
            "smaller of H and W: pooling only shrinks."
        )
    if not bool(tensor.isfinite().all()):
        raise InvalidInput("sum_pooled: the maps have values that are not finite; leave those maps out.")
    parts = [pool(part, side).float().cpu() for part in torch.split(tensor, PIECE)]
    return torch.cat(parts).numpy()


def pool(maps: Tensor, side: int) -> Tensor:
    """Finite maps [..., H, W] pooled to float64 [..., side, side]; see `sum_pooled`."""
    down, across = (_overlap(length, side).to(maps.device) for length in maps.shape[-2:])
    return down @ maps.double() @ across.T


def _overlap(length: int, side: int) -> Tensor:
    """The share of each of `length` pixels that lies in each of `side` cells, float64 [side, length]."""
    pixels, cells = np.arange(length) * side, np.arange(side) * length  # in units of 1 / (length * side)
    ends = np.minimum(pixels[None] + side, cells[:, None] + length)
    return torch.from_numpy(np.maximum(ends - np.maximum(pixels[None], cells[:, None]), 0) / side)


def _asked(batch: Batch, target: Tensor | Which) -> Tensor | None:
    """What else two images must share for one map to do for both."""
    if not isinstance(target, Tensor):
        return batch.labels if target in ("true", "contrast") else None
    if len(target) != len(batch):
        raise InvalidInput(f"heat_maps: {len(target)} targets for {len(batch)} images; give one class per image.")
    return target
