"""Few changed pixels: projection onto the L0 ball, and the fewest pixels that still do.

A pixel counts once whatever number of its channels moves, so nothing is lost by moving all three as far as they help.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.norms import length
from heatprint.core.protocols import Access

ROUNDS = 3  # of pruning: each looks at the gradient where the last one ended


def top_pixels(rank: Tensor, count: Tensor) -> Tensor:
    """Mask [N, 1, H, W] of the `count` [N] pixels of highest rank [N, H, W], those of rank 0 or less left out."""
    flat = rank.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    chosen = torch.arange(flat.shape[1], device=flat.device) < count.to(flat.device)[:, None]
    mask = torch.zeros_like(chosen).scatter_(1, order, chosen) & (flat > 0)
    return mask.view_as(rank)[:, None]


def corners(clean: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Where every channel raises a value most, to first order, and by how much each pixel then does.

    Returns:
        Images of zeros and ones (the clean value where the gradient is 0), and ranks [N, H, W], 0 or more.
    """
    corner = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, 0.0, clean))
    return corner, (gradient * (corner - clean)).sum(1)


def fewest(gradient: Tensor, clean: Tensor, lead: Tensor) -> Tensor:
    """How many pixels, moved to their corners, make up for a lead [N] to first order, [N], at least 1."""
    _, rank = corners(clean, gradient)
    gain = rank.flatten(1).sort(1, descending=True).values.double().cumsum(1)
    return ((gain < lead.double()[:, None]).sum(1) + 1).clamp_max(gain.shape[1])


def prune(access: Access, images: Tensor, attacked: Tensor, rows: Tensor) -> Tensor:
    """Undo the changed pixels that an adversarial image can do without.

    Each round takes one gradient of the margin and looks, by bisection, for the fewest pixels of three families: the
    changed pixels as they are, the changed pixels moved to their corners, and any pixels moved to their corners,
    always the most useful ones first. An image that does not reach the goal is returned as it came. On a linear
    classifier the last family holds the optimum. About ``3 * (1 + 3 * log2(pixels))`` questions an image at most.

    Args:
        access: White box.
        images: Originals on the lattice [N, 3, H, W] of these rows.
        attacked: Their adversarials on the lattice.
        rows: int64 [N], which attacked image each is; no more than `access.batch`.

    Returns:
        Images on the lattice that reach the goal with as many changed pixels or fewer.
    """
    clean, best = images.to(access.device), attacked.to(access.device).clone()
    open_ = access.reached(best, rows).cpu().nonzero().squeeze(1)
    for _ in range(ROUNDS):
        if not len(open_):
            break
        here, own = open_.to(clean.device), rows[open_]
        before = length(best[here] - clean[here], "l0")
        best[here] = _round(access, clean[here], best[here], own)
        open_ = open_[(length(best[here] - clean[here], "l0") < before).cpu()]
    return best.to(images)


def _round(access: Access, clean: Tensor, best: Tensor, rows: Tensor) -> Tensor:
    """The sparsest of the three families, at one gradient."""
    gradient, _ = access.gradient(best, rows, "margin")
    corner, rank = corners(clean, gradient)
    delta = best - clean
    changed = delta.abs().amax(1, keepdim=True) > 0
    moved = torch.where(changed, corner, clean)
    kept = (gradient * delta).sum(1)
    kept = torch.where(changed[:, 0], kept - kept.amin((1, 2), keepdim=True) + 1, 0)  # every changed pixel counts
    for full, order in ((best, kept), (moved, rank * changed[:, 0]), (corner, rank)):
        best = _fewest(access, clean, best, full, order, rows)
    return best


def _fewest(access: Access, clean: Tensor, best: Tensor, full: Tensor, rank: Tensor, rows: Tensor) -> Tensor:
    """Bisect how many pixels of `full`, highest rank first, reach the goal; only fewer than `best` has will do."""
    high = length(best - clean, "l0").long()
    low = torch.zeros_like(high)
    for _ in range(int(high.max()).bit_length()):
        open_ = (high - low > 1).cpu().nonzero().squeeze(1)
        if not len(open_):
            break
        here = open_.to(clean.device)
        middle = (low[here] + high[here]) // 2
        tried = torch.where(top_pixels(rank[here], middle), full[here], clean[here])
        fell = access.reached(tried, rows[open_])
        best[here] = torch.where(fell.view(-1, 1, 1, 1), tried, best[here])
        high[here], low[here] = torch.where(fell, middle, high[here]), torch.where(fell, low[here], middle)
    return best
