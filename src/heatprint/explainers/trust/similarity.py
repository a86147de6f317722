"""How alike two maps of an image are in their structure; see `heatprint.explainers.ranks` for their order."""

from __future__ import annotations

from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.explainers.trust.filters import blurred, gaussian

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III.B
K1, K2 = 0.01, 0.03


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of maps [N, H, W], float [N] in [-1, 1], the mean over all whole windows.

    Wang et al. 2004, equation 13: a Gaussian window of 11 pixels, sigma 1.5 (a smaller one where the map is smaller).
    Each map is first divided by its largest absolute value: what is compared is the picture, and zero stays zero.

    Raises:
        InvalidInput: The maps are of different shapes.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise InvalidInput(f"ssim: maps must both be [N, H, W], got {list(a.shape)} and {list(b.shape)}.")
    x, y = (m.double() / m.double().abs().amax((1, 2), keepdim=True).clamp_min(1e-300) for m in (a, b))
    x, y = x[:, None], y[:, None]
    radius = min(WINDOW // 2, (min(a.shape[1:]) - 1) // 2)
    window = gaussian(SIGMA, radius, like=x)
    mean_x, mean_y, xx, yy, xy = (blurred(m, window, padded=False) for m in (x, y, x * x, y * y, x * y))
    c1, c2 = (K1 * 2) ** 2, (K2 * 2) ** 2  # values span 2, from -1 to 1
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (structure * light).mean((1, 2, 3))
