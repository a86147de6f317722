"""A denoising autoencoder: takes off what does not belong to an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput


class Autoencoder(nn.Module):
    """Images plus a correction that a small U-Net finds at three sizes (Ronneberger, Fischer and Brox 2015).

    Two convolutions of 3 x 3 with rectifiers at each size, means over 2 x 2 on the way down, repeated pixels and the
    finer maps beside them on the way up. The last convolution begins at zero, so that the untrained one is the identity
    on images in [0, 1], to which it clips. Gradients pass the clipping as if it were not there: pixels at 0 and 1 would
    have none, and an attacker would be shown less than there is.

    Args:
        channels: Filters at the full size, 1 to 1024; twice and four times as many at a half and a quarter of it.
        seed: Of the fresh weights.
    """

    def __init__(self, channels: float = 8, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= channels <= 1024 or channels != int(channels):
            raise InvalidInput(f"autoencoder: channels = {channels} must be a whole number, 1 to 1024.")
        wide = int(channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fine, self.middle, self.coarse = _pair(3, wide), _pair(wide, 2 * wide), _pair(2 * wide, 4 * wide)
            self.to_middle, self.to_fine = _pair(6 * wide, 2 * wide), _pair(3 * wide, wide)
            self.correction = nn.Conv2d(wide, 3, 3, padding=1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the same."""
        fine = self.fine(images)
        middle = self.middle(F.avg_pool2d(fine, 2))
        coarse = self.coarse(F.avg_pool2d(middle, 2))
        middle = self.to_middle(_beside(coarse, middle))
        fine = self.to_fine(_beside(middle, fine))
        cleaned: Tensor = images + self.correction(fine)
        return cleaned + (cleaned.clamp(0, 1) - cleaned).detach()


def _pair(inward: int, outward: int) -> nn.Sequential:
    convolutions = [nn.Conv2d(inward, outward, 3, padding=1), nn.Conv2d(outward, outward, 3, padding=1)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU())


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """Coarse maps brought to the size of fine ones, and those: [N, C + D, H, W]."""
    return torch.cat([F.interpolate(coarse, size=fine.shape[2:]), fine], 1)
