"""The engine of every removal curve: many altered copies of many images, asked in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.models.predict import batch_size

Picture = Callable[[Tensor, Tensor], Tensor]
"""Images [M, 3, H, W] in [0, 1] from rows int64 [M] (which image) and steps int64 [M] (how far along its curve)."""


def curve(classifier: Classifier, images: int, steps: int, picture: Picture) -> Tensor:
    """Logits float [images, steps, K] on the CPU, along the curve of every image.

    Args:
        classifier: Who is asked.
        images: Number of images.
        steps: Points of each curve.
        picture: Makes the altered images that are asked about; called with a batch of (image, step) pairs.
    """
    # all images of one step together: imputing them takes equally long, and a batch waits for its slowest
    pairs = torch.arange(images * steps, device=classifier.device)
    with torch.no_grad():
        parts = [
            classifier(picture(part % images, part // images)).cpu()
            for part in torch.split(pairs, batch_size(classifier))
        ]
    return torch.cat(parts).view(steps, images, -1).transpose(0, 1)


def replaced(start: Tensor, end: Tensor, ranks: Tensor, counts: Tensor) -> Picture:
    """Copies of `start` whose first `counts[step]` pixels, in the order of `ranks`, are those of `end`.

    Args:
        start: float [N, 3, H, W].
        end: float [N, 3, H, W].
        ranks: int64 [N, H, W].
        counts: int64 [steps].
    """

    def picture(rows: Tensor, steps: Tensor) -> Tensor:
        changed = ranks[rows] < counts[steps][:, None, None]
        return torch.where(changed[:, None], end[rows], start[rows])

    return picture


def pixel_counts(pixels: int, steps: int) -> Tensor:
    """How many of the pixels have been changed at each of `steps` + 1 points from none to all, int64 [steps + 1].

    Raises:
        InvalidInput: Not a whole number, fewer than one step, or more steps than pixels.
    """
    if not isinstance(steps, int) or not 1 <= steps <= pixels:
        raise InvalidInput(f"trust: steps = {steps!r} must be a whole number from 1 to {pixels}, the number of pixels.")
    return torch.linspace(0, pixels, steps + 1, dtype=torch.float64).round().long()


def area(values: Tensor, counts: Tensor) -> Tensor:
    """Area under curves [N, points] over the share of changed pixels: their mean height, float [N]."""
    share = counts.to(values.dtype) / counts[-1]
    return torch.trapezoid(values, share, dim=1)
