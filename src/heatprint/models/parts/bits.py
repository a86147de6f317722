"""Fewer levels of each colour."""

from __future__ import annotations

from torch import Tensor, nn

from heatprint.core.errors import InvalidInput


class Bits(nn.Module):
    """Colours rounded to 2**depth levels (Xu, Evans and Qi 2018); its gradient is zero everywhere.

    Args:
        depth: Bits that are left of eight, 1 to 8.
    """

    def __init__(self, depth: float = 4) -> None:
        super().__init__()
        if not 1 <= depth <= 8 or depth != int(depth):
            raise InvalidInput(f"bits: depth = {depth} must be a whole number, 1 to 8.")
        self.levels = 2 ** int(depth) - 1

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the same."""
        rounded: Tensor = (images * self.levels).round() / self.levels
        return rounded
