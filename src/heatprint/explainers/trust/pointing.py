"""Where a map points, against a mask that is known to be right: the animal, or a planted artefact."""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput


def share_inside(heat: Tensor, mask: Tensor) -> Tensor:
    """Share of positive relevance inside the mask, float [N] in [0, 1].

    Arras et al. 2022 ("relevance mass accuracy"). An even map has the mask's share of the image, which is what a
    number must be read against. NaN where the mask is empty or no relevance is positive.

    Args:
        heat: float [N, H, W].
        mask: bool [N, H, W].
    """
    _check(heat, mask)
    positive = heat.double().clamp_min(0)
    whole = positive.sum((1, 2))
    return ((positive * mask).sum((1, 2)) / whole).where(mask.any(2).any(1), torch.nan)


def pointing_game(heat: Tensor, mask: Tensor) -> Tensor:
    """1 where the most relevant pixel lies in the mask, else 0, float [N]; NaN where the mask is empty.

    Zhang et al. 2018, without their tolerance of 15 pixels, which belongs to large images. Where several pixels
    share the peak, the share of them inside the mask counts, so that a constant map hits as often as chance.

    Args:
        heat: float [N, H, W].
        mask: bool [N, H, W].
    """
    _check(heat, mask)
    peak = heat == heat.amax((1, 2), keepdim=True)
    hit = (peak & mask).sum((1, 2)) / peak.sum((1, 2)).double()
    return hit.where(mask.any(2).any(1), torch.nan)


def _check(heat: Tensor, mask: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != heat.shape or heat.ndim != 3:
        raise InvalidInput(
            f"pointing: masks must be bool of the maps' shape {list(heat.shape)}, got {mask.dtype} {list(mask.shape)}."
        )
