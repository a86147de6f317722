"""The mean over noise that never changes."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream


class Smoothed(nn.Module):
    """A network asked under Gaussian noise: the logarithm of the mean probabilities (Salman et al. 2019, eq. 4).

    The noise is drawn once, and all images meet the same: the answer is a function of the image, with a gradient, and
    repeats itself. It stands for the smoothed classifier of Cohen et al. (2019), the vote under fresh noise; a
    certificate is of that one (`defences.smoothing.certify`), not of these few draws.

    Args:
        network: Takes images in [0, 1], returns logits.
        draws: Of the noise, 1 to 1000; each costs a forward pass.
        sigma: Standard deviation of the noise, pixel values in [0, 1]; above 0.
        seed: Of the noise.
    """

    folds = ("network",)
    around = True

    def __init__(self, network: nn.Module, draws: float = 16, sigma: float = 0.12, seed: float = 0) -> None:
        super().__init__()
        if not 1 <= draws <= 1000 or draws != int(draws) or not 0 < sigma < math.inf:
            raise InvalidInput(
                f"smoothed: draws = {draws} must be a whole number, 1 to 1000, and sigma = {sigma} above 0; pixels are "
                "in [0, 1]."
            )
        self.network, self.draws, self.sigma, self.seed = network, int(draws), sigma, int(seed)

    def forward(self, images: Tensor) -> Tensor:
        """Logarithm of the mean probabilities, [N, K]."""
        noise = drawn(self.seed, self.draws, (images.shape[2], images.shape[3])).to(images) * self.sigma
        each = torch.stack([self.network(images + one).log_softmax(1) for one in noise])
        return each.logsumexp(0) - math.log(self.draws)


@lru_cache(maxsize=4)
def drawn(seed: int, draws: int, size: tuple[int, int]) -> Tensor:
    """Standard normal noise, float32 [draws, 3, H, W]."""
    return torch.from_numpy(stream(seed, "smoothed").standard_normal((draws, 3, *size), dtype=np.float32))
