"""Decision boundaries as flat as the gradient sees them, and the nearest point of one that is still an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import BallNorm
from heatprint.core.goals import Goal
from heatprint.core.norms import Norm, length
from heatprint.core.protocols import Access

DUAL: dict[BallNorm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """The boundaries around some images, each linearised at its image.

    Attributes:
        lead: What is still missing to cross each, [M, C], in logits; negative beyond it, inf where there is none.
        gradient: Of the logits' difference, which crosses when it rises by the lead, [M, C, 3, H, W].
        logits: Of the images, [M, K].
    """

    lead: Tensor
    gradient: Tensor
    logits: Tensor

    def nearest(self, norm: BallNorm) -> tuple[Tensor, Tensor, Tensor]:
        """Lead [M], gradient [M, 3, H, W] and distance in `norm` [M] of each image's nearest boundary.

        A boundary whose gradient is 0 is infinitely far.
        """
        count, choices = self.lead.shape
        slope = length(self.gradient.flatten(0, 1), DUAL[norm]).view(count, choices)
        distance = torch.where(slope > 0, self.lead.abs() / slope.clamp_min(1e-30), torch.inf)
        place = (torch.arange(count, device=self.lead.device), distance.argmin(1))
        return self.lead[place], self.gradient[place], distance[place]


def rivals(access: Access, images: Tensor, rows: Tensor, goal: Goal, limit: int) -> Tensor | None:
    """The likeliest classes but the label, [N, limit - 1] in falling order; None where all classes are looked at."""
    if goal.targeted or access.classes <= limit:
        return None
    logits = access.logits(images, rows)
    labels = goal.take(rows).labels.to(logits.device)
    return logits.scatter(1, labels[:, None], -torch.inf).topk(limit - 1, dim=1).indices


def boundaries(access: Access, images: Tensor, rows: Tensor, goal: Goal, others: Tensor | None) -> Boundaries:
    """The boundaries that matter to the goal: of each class with the label, or of the target with the best other.

    Args:
        access: White box.
        images: Where to linearise, [M, 3, H, W], on the device.
        rows: int64 [M], which attacked image each is.
        goal: Of all attacked images; its criterion's margin moves the boundaries away.
        others: The `rivals` of these images.
    """
    sure = goal.criterion.margin
    if goal.targeted:
        gradient, logits = access.gradient(images, rows, "margin")
        margin = goal.take(rows).to(logits.device).margin(logits)
        return Boundaries(lead=(sure - margin)[:, None], gradient=gradient[:, None], logits=logits)
    own = goal.take(rows).labels.to(images.device)
    if others is None:
        gradient, logits = access.jacobian(images, rows)
        gradient -= gradient[torch.arange(len(own), device=own.device), own][:, None].clone()
        lead = logits.gather(1, own[:, None]) - logits + sure
        return Boundaries(lead=lead.scatter(1, own[:, None], torch.inf), gradient=gradient, logits=logits)
    gradients = []
    for other in others.unbind(1):
        one, logits = access.gradient(images, rows, lambda z, _, pair=(other, own): _difference(z, *pair))  # type: ignore[misc]
        gradients.append(one)
    lead = logits.gather(1, own[:, None]) - logits.gather(1, others) + sure
    return Boundaries(lead=lead, gradient=torch.stack(gradients, 1), logits=logits)


def _difference(logits: Tensor, other: Tensor, own: Tensor) -> Tensor:
    return (logits.gather(1, other[:, None]) - logits.gather(1, own[:, None])).squeeze(1)


def onto_plane(images: Tensor, normal: Tensor, rise: Tensor, norm: BallNorm) -> Tensor:
    """The shortest change, in `norm`, that lifts a linear function by `rise` and leaves an image in [0, 1]. Exact.

    Each channel moves along the sign of its weight, as far as its room to 0 or 1. In the maximum norm all go equally
    far and in L2 in proportion to their weights, until they run out of room; the common factor t solves an equation
    that is linear between the sorted t at which channels run out. In L1 the heaviest channels go first. Where even
    the corner of the box does not reach the plane, that corner is the answer.

    Args:
        images: float [M, 3, H, W] in [0, 1].
        normal: Gradient of the linear function, same shape.
        rise: [M]; may be negative.
        norm: Which distance is the shortest.

    Returns:
        Changes, same shape as `images`.
    """
    slope = normal.flatten(1) * torch.where(rise < 0, -1.0, 1.0).to(normal)[:, None]
    weight, x = slope.abs(), images.flatten(1)
    room = torch.where(slope > 0, 1 - x, x).clamp_min(0) * (weight > 0)
    need = rise.abs()[:, None].double()
    if norm == "l1":
        order = weight.argsort(dim=1, descending=True)
        gain = (weight * room).gather(1, order).double()
        share = ((need - gain.cumsum(1) + gain) / gain.clamp_min(1e-30)).clamp(0, 1)
        moved = room * torch.zeros_like(room).scatter_(1, order, share.to(room))
    else:
        speed = weight if norm == "l2" else torch.ones_like(weight)
        factor = _factor(weight, speed, room, need).to(room)
        moved = torch.where(factor.isinf(), room, torch.minimum(room, factor * speed))
    return (slope.sign() * moved).view_as(images)


def _factor(weight: Tensor, speed: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """The t [M, 1] at which the sum of weight * min(t * speed, room) is `need`; inf where it never is."""
    ends = torch.where(weight > 0, room / speed.clamp_min(1e-30), 0)
    ordered, order = ends.sort(1)
    full = (weight * room).gather(1, order).double()  # what a channel gives once it has run out of room
    pace = (weight * speed).gather(1, order).double()  # what it gives per t before that
    spent = full.cumsum(1) - full
    left = pace.flip(1).cumsum(1).flip(1)  # pace of the channels from this one on
    solved = (need - spent) / left.clamp_min(1e-300)
    # the first channel whose end lies beyond the solution that assumes all before it to be full
    reachable = (solved <= ordered.double()) & (left > 0)
    first = reachable.double().argmax(1, keepdim=True)
    found = solved.gather(1, first).clamp_min(0)
    return torch.where(reachable.any(1, keepdim=True), found, torch.inf)
