"""From a real-valued adversarial to 8 bits without losing what makes it one.

Rounding to the nearest level undoes small perturbations: most channels of a minimal one move by less than half a
level. A change of 3.7 levels lies between 3 (towards the clean image) and 4. Rounding everything towards the clean
image and then up again, largest fraction first, gives a family of 8-bit images from the weakest to the strongest;
the functions here choose one of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.lattice import LEVELS
from heatprint.core.norms import Norm
from heatprint.core.protocols import Access

SCALES = (1.0, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0)
HALVINGS = 6


def fit(images: Tensor, attacked: Tensor, norm: Norm, eps: float) -> Tensor:
    """Images of the lattice that stay within `eps` of the originals.

    In L1 and L2 the radius is used up, largest fractions first: attacks that stay in a ball go to its surface.

    Args:
        images: Originals on the lattice, float32 [N, 3, H, W].
        attacked: Images in [0, 1] within `eps` of them.
        norm: ``"l2"``, ``"l1"`` or ``"linf"``.
        eps: Radius, pixel values in [0, 1].
    """
    change = (attacked - images) * LEVELS
    size = change.abs().flatten(1)
    low = (size + 1e-4).floor()  # what float rounding left just below a level is that level
    fraction = (size - low).clamp_min(0)
    if norm == "linf":
        up = (fraction > 0.5) & (low + 1 <= eps * LEVELS + 1e-4)
    else:
        cost = 2 * low + 1 if norm == "l2" else torch.ones_like(low)
        spent = (low.square() if norm == "l2" else low).sum(1, keepdim=True).double()
        room = (eps * LEVELS + 1e-6) ** 2 if norm == "l2" else eps * LEVELS + 1e-6
        order = torch.argsort(fraction, dim=1, descending=True, stable=True)
        within = spent + cost.gather(1, order).double().cumsum(1) <= room
        up = torch.zeros_like(within).scatter_(1, order, within) & (fraction > 1e-3)
    return _stepped(images, change, (low + up).view_as(change))


def confirm(
    access: Access, images: Tensor, attacked: Tensor, rows: Tensor, norm: Norm, eps: float
) -> tuple[Tensor, Tensor]:
    """The images of `fit`, and which of them reach the goal, bool [N] on their device; one label query each.

    An attack that stops at its first success stops close to the boundary, where rounding may undo it. One that
    asks this before it stops does not lose what it had.
    """
    fitted = fit(images, attacked, norm, eps)
    return fitted, _ask(access, fitted, rows).to(fitted.device)


def settle(access: Access, images: Tensor, attacked: Tensor, rows: Tensor) -> Tensor:
    """The weakest image of the lattice, along each perturbation, that still reaches the goal.

    Looks for the smallest share of channels to be rounded up, first along the perturbation itself, then, for images
    that even its strongest rounding leaves standing, along slightly longer ones. About eight label queries an image.

    Args:
        access: Label access is enough.
        images: Originals [N, 3, H, W] of these rows.
        attacked: Real-valued images in [0, 1] believed to reach the goal.
        rows: int64 [N], which attacked image each is.

    Returns:
        Images on the lattice [N, 3, H, W]; the nearest rounding where none was found to reach the goal.
    """
    clean, change = images.to(access.device), (attacked.to(access.device) - images.to(access.device)) * LEVELS
    out = clean + change.round() / LEVELS
    # where nothing may be asked any more, the strongest rounding is the one most likely to have kept the goal
    spent = access.spent(rows).to(clean.device)
    if bool(spent.any()):
        none = torch.zeros(int(spent.sum()), device=clean.device)
        out[spent] = _rounded_up(clean[spent], change[spent], none)
    open_ = torch.arange(len(rows))
    for scale in SCALES:
        if not len(open_):
            break
        here = open_.to(clean.device)
        longer = scale * change[here]
        strongest = _rounded_up(clean[here], longer, torch.zeros(len(open_), device=clean.device))
        fell = _ask(access, strongest, rows[open_])
        won = fell.nonzero().squeeze(1)
        if len(won):
            out[here[won]] = _bisect(access, clean[here[won]], longer[won], strongest[won], rows[open_][won.cpu()])
        open_ = open_[~fell.cpu()]
    return out.clamp(0, 1).to(images)


def _bisect(access: Access, clean: Tensor, change: Tensor, best: Tensor, rows: Tensor) -> Tensor:
    """The highest threshold on the fraction, among halvings of [0, 1], that still reaches the goal."""
    low, high = torch.zeros(len(rows), device=clean.device), torch.ones(len(rows), device=clean.device)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = _rounded_up(clean, change, _quantile(change, middle))
        fell = _ask(access, tried, rows)
        best = torch.where(fell.view(-1, 1, 1, 1), tried, best)
        low, high = torch.where(fell, middle, low), torch.where(fell, high, middle)
    return best


def _quantile(change: Tensor, share: Tensor) -> Tensor:
    """Per image, the fraction below which this share of its changed channels lies, [N]."""
    size = change.abs().flatten(1)
    fraction = size - (size + 1e-4).floor()
    moving = fraction > 1e-4
    ordered = torch.where(moving, fraction, torch.inf).sort(1).values
    place = (share * moving.sum(1)).long().clamp_max(ordered.shape[1] - 1)
    return ordered.gather(1, place[:, None]).squeeze(1).clamp_max(1.0)


def _rounded_up(clean: Tensor, change: Tensor, threshold: Tensor) -> Tensor:
    """Channels whose fraction is above the image's threshold rounded away from the clean image, others towards it."""
    size = change.abs()
    low = (size + 1e-4).floor()
    up = (size - low > 1e-4) & (size - low >= threshold.view(-1, 1, 1, 1))
    return _stepped(clean, change, low + up)


def _stepped(clean: Tensor, change: Tensor, levels: Tensor) -> Tensor:
    return ((clean * LEVELS).round() + change.sign() * levels).clamp(0, LEVELS) / LEVELS


def _ask(access: Access, images: Tensor, rows: Tensor) -> Tensor:
    """Whether images reach the goal, bool [M], in batches."""
    parts = [
        access.reached(images[part.to(images.device)], rows[part])
        for part in torch.split(torch.arange(len(rows)), access.batch)
    ]
    return torch.cat(parts)
