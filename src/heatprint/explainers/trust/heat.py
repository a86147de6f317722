"""What every measure needs of a map: its values, the class it explains, the order of its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.core.values import Batch, Explained
from heatprint.models.predict import predict

Heat = Explained | Tensor
"""An explanation, or one value per pixel, float [N, H, W]."""


def values(batch: Batch, heat: Heat) -> Tensor:
    """The map of every image, float [N, H, W] on the CPU.

    Raises:
        InvalidInput: The maps are not those of these images, or are not finite.
    """
    if isinstance(heat, Explained) and heat.ids != batch.ids:
        raise InvalidInput("trust: the explanation is of other images than the batch. Give explain(classifier, batch).")
    found = heat.heat if isinstance(heat, Explained) else heat
    wanted = (len(batch), *batch.pixels.shape[2:])
    if not found.is_floating_point() or tuple(found.shape) != wanted:
        raise InvalidInput(f"trust: maps must be float {list(wanted)}, got {found.dtype} {list(found.shape)}.")
    if not bool(found.isfinite().all()):
        raise InvalidInput("trust: the maps hold values that are not finite, which cannot be put in order.")
    return found.detach().cpu()


def explained_class(classifier: Classifier, batch: Batch, heat: Heat, target: Tensor | None) -> Tensor:
    """The class whose evidence the map claims to show, int64 [N]: as given, of the explanation, or the predicted one.

    Raises:
        InvalidInput: The classes given do not fit.
    """
    if target is None and isinstance(heat, Explained):
        target = heat.target
    if target is None:
        return predict(classifier, batch.pixels).argmax(1)
    count = len(classifier.classes)
    if (
        target.dtype != torch.int64
        or tuple(target.shape) != (len(batch),)
        or bool(((target < 0) | (target >= count)).any())
    ):
        raise InvalidInput(f"trust: target must be one class per image, int64 [{len(batch)}], 0 to {count - 1}.")
    return target.cpu()


def removal_ranks(batch: Batch, heat: Heat, *, seed: int = 0) -> Tensor:
    """When each pixel is removed, most relevant first: int64 [N, H, W], 0 to H * W - 1.

    Pixels of equal relevance come in an order drawn for the image's id. In reading order a constant map would
    remove the image from the top, and would no longer be worth what a random map is worth.
    """
    found = values(batch, heat).flatten(1)
    pixels = found.shape[1]
    shuffle = torch.stack(
        [torch.from_numpy(stream(seed, "trust/ties", name).permutation(pixels)) for name in batch.ids]
    )
    order = shuffle.gather(1, found.gather(1, shuffle).argsort(dim=1, descending=True, stable=True))
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(pixels).expand_as(order))
    return ranks.view(-1, *batch.pixels.shape[2:])
