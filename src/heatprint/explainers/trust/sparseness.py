"""How concentrated a map is: few pixels that carry it, or all of them a little.

Neither direction is better by itself: a map of one wrong pixel is as sparse as can be. It says how a map reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput


def gini(heat: Tensor) -> Tensor:
    """Gini index of |relevance|, float [N]: 0 where all pixels carry the same, 1 - 1 / (H * W) where one carries all.

    Hurley and Rickard 2009, equation for a sorted vector, as Chalasani et al. 2020 use it on attributions. A map of
    zeros carries nothing unevenly: 0.

    Args:
        heat: float [N, H, W].
    """
    sizes = heat.flatten(1).abs().double().sort(1).values
    count = sizes.shape[1]
    rank = torch.arange(1, count + 1, dtype=sizes.dtype, device=sizes.device)
    whole = sizes.sum(1)
    index = 1 - 2 * (sizes * (count - rank + 0.5)).sum(1) / (count * whole.where(whole > 0, 1.0))
    return index.where(whole > 0, 0.0)


def top_share(heat: Tensor, *, part: float = 0.1) -> Tensor:
    """Share of |relevance| in the most relevant `part` of the pixels, float [N]; `part` itself for an even map.

    Args:
        heat: float [N, H, W].
        part: Share of the pixels, in (0, 1]; at least one pixel is taken.

    Raises:
        InvalidInput: `part` is not a share.
    """
    if not 0 < part <= 1:
        raise InvalidInput(f"top_share: part = {part} must be in (0, 1].")
    sizes = heat.flatten(1).abs().double()
    count = max(1, round(part * sizes.shape[1]))
    whole = sizes.sum(1)
    share = sizes.topk(count, dim=1).values.sum(1) / whole.where(whole > 0, 1.0)
    return share.where(whole > 0, count / sizes.shape[1])
