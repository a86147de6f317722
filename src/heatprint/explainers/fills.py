"""Images without the evidence: what a method puts in place of the pixels it takes away."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput

Fill = Literal["black", "grey", "mean", "blur"]
"""Black or mid-grey pixels, the image's own mean colour, or the image blurred until only large patches of colour are
left. None is neutral: black is no change at all to a black object, and a blur keeps an object's colour."""

BLUR = 1 / 16  # standard deviation as a fraction of the side; Sturmfels et al. 2020 use 20 of 299 pixels


def check_fill(who: str, fill: str) -> None:
    """Refuse a word that is no fill."""
    if fill not in get_args(Fill):
        raise InvalidInput(f"{who} = {fill!r} must be one of {', '.join(get_args(Fill))}.")


def filled(fill: Fill, classifier: Classifier, inputs: Tensor) -> Tensor:
    """The fill for each image.

    Args:
        fill: See `Fill`.
        classifier: Whose normalisation says which input is a black or a grey pixel.
        inputs: Normalised images [N, 3, H, W].

    Returns:
        Normalised images of the same shape and type.
    """
    if fill == "mean":
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    if fill == "blur":
        return _blurred(inputs)
    return normalised(classifier, inputs, 0.0 if fill == "black" else 0.5).expand_as(inputs)


def normalised(classifier: Classifier, like: Tensor, level: float) -> Tensor:
    """A pixel level in [0, 1] as the network's input, [1, 3, 1, 1] in the type of `like`."""
    mean, std = like.new_tensor(classifier.mean), like.new_tensor(classifier.std)
    return ((level - mean) / std).view(1, 3, 1, 1)


def _blurred(inputs: Tensor) -> Tensor:
    """A Gaussian over rows and columns; at the border the weights inside the image are scaled up to one."""
    tall, wide = (_gaussian(side, inputs) for side in inputs.shape[2:])
    return torch.einsum("ij,ncjk,lk->ncil", tall, inputs, wide)


def _gaussian(side: int, like: Tensor) -> Tensor:
    """Weights [side, side] of all pixels of a line for each of them."""
    at = torch.arange(side, dtype=like.dtype, device=like.device)
    weights = torch.exp(-0.5 * ((at[:, None] - at) / (BLUR * side)) ** 2)
    return weights / weights.sum(1, keepdim=True)
