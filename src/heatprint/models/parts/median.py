"""The median of the surroundings: takes single pixels out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput


class Median(nn.Module):
    """The median over a square, channel by channel, edges mirrored (Xu, Evans and Qi 2018, spatial smoothing).

    Args:
        side: Of the square in pixels; 2 to 31. An even one lies towards the top left, as in SciPy.
    """

    def __init__(self, side: float = 3) -> None:
        super().__init__()
        if not 2 <= side <= 31 or side != int(side):
            raise InvalidInput(f"median: side = {side} must be a whole number, 2 to 31.")
        self.side = int(side)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the same."""
        before, after = self.side // 2, self.side - 1 - self.side // 2
        wide = F.pad(images, (before, after, before, after), mode="reflect")
        height, width = images.shape[2:]
        places = [wide[..., y : y + height, x : x + width] for y in range(self.side) for x in range(self.side)]
        stacked = torch.stack(places).sort(dim=0).values
        middle = len(places) // 2
        return stacked[middle] if len(places) % 2 else (stacked[middle - 1] + stacked[middle]) / 2
