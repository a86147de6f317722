"""Monte Carlo dropout in the head, with masks that never change."""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.models.head import begin, masked


class DropoutHead(nn.Module):
    """A network whose head is run many times with neurons left out: the mean of the log-probabilities.

    What lies before the head is run once. The masks are drawn once, and all images meet the same ones: the answer is a
    function of the image, with a gradient, and repeats itself.

    Args:
        network: Takes images in [0, 1], returns logits.
        passes: Of the head, 1 to 1000.
        rate: Share of the inputs of each linear layer that is left out, 0 or more and below 1.
        seed: Of the masks.
    """

    folds = ("network",)
    around = True

    def __init__(self, network: nn.Module, passes: float = 30, rate: float = 0.3, seed: float = 0) -> None:
        super().__init__()
        if not 1 <= passes <= 1000 or passes != int(passes):
            raise InvalidInput(f"dropout: passes = {passes} must be a whole number, 1 to 1000.")
        if not 0 <= rate < 1:
            raise InvalidInput(f"dropout: rate = {rate} must be 0 or more and below 1. Write 0.3 for three in ten.")
        self.network, self.passes, self.rate, self.seed = network, int(passes), rate, int(seed)
        self._first: int | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Mean log-probabilities [N, K]."""
        if self._first is None:  # of a copy: training mode would count the one image into batch norm
            self._first = begin(copy.deepcopy(self.network).eval(), images[:1].detach())
        return masked(self.network, images, self._first, self.passes, self._mask).log_softmax(2).mean(0)

    def _mask(self, layer: int, width: int) -> Tensor:
        return kept(self.seed, layer, self.passes, width, self.rate)


@lru_cache(maxsize=16)
def kept(seed: int, layer: int, passes: int, width: int, rate: float) -> Tensor:
    """What the inputs of a layer of the head are multiplied with: 0 or 1 / (1 - rate), float32 [passes, width]."""
    drawn = stream(seed, "dropout head", layer).random((passes, width)) >= rate
    return torch.from_numpy(drawn.astype(np.float32) / np.float32(1 - rate))
