"""Jacobian-based saliency maps: one pixel after another, the most telling first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.few_pixels import prune
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

FEW = 10  # classes up to which the whole jacobian is asked for


@dataclass(frozen=True, kw_only=True)
class JSMA:
    """Changes the most salient pixel of each step, saliency from the Jacobian (Papernot et al. 2016, alg. 3, eq. 8).

    A pixel is salient if moving it raises the target's logit and lowers the sum of the others; its saliency is the
    product of the two slopes. Targeted, the target is the goal's; otherwise, at each step, the strongest class that is
    not the true one. A pixel that can move no further leaves the search, as does one that has been moved back to where
    it was; an image is left alone once its goal is reached.

    Differs from the paper in these points: single pixels instead of pairs; a pixel is moved in all its channels, and
    its slope is their sum; it may go up or down, whichever is more salient (eq. 8 and 9 together, the "maximal" form
    of Wiyatno and Xu 2018, arXiv:1808.07945), and keeps its direction; where no pixel does both, the one that raises
    the target most against the sum of the others is taken instead of giving up.

    Attributes:
        theta: Change of a pixel in one step, pixel values in (0, 1], rounded to whole levels, one at least.
        gamma: Share of the image's pixels that may change, in (0, 1]; one pixel at least.

        prune: Afterwards undo the pixels a success can do without (`parts.few_pixels.prune`); False as published.

    A step costs one Jacobian (a gradient for each class), or two gradients where there are more than ten classes. The
    step of the result is the number of pixel moves made at the success.
    """

    theta: Level = 1.0
    gamma: float = 0.1
    prune: bool = True

    def __post_init__(self) -> None:
        check_level("JSMA: theta", self.theta)
        if not (self.theta > 0 and 0 < self.gamma <= 1):
            raise InvalidInput(
                f"JSMA: theta = {self.theta} and gamma = {self.gamma} must be above 0 and at most 1; "
                "theta=1.0, gamma=0.1 moves a tenth of the pixels to black or white."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, few pixels."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l0",
            paper="Papernot, McDaniel, Jha, Fredrikson, Celik, Swami 2016, arXiv:1511.07528",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            out[rows], step[rows] = self._paint(access, images[rows], rows, goal)
            if self.prune:
                own = rows[step[rows] >= 0]
                out[own] = prune(access, images[own], out[own], own)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _paint(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The images as far as they were changed, and the number of moves at which each fell (-1: none)."""
        clean = images.to(access.device)
        current, pixels = clean.clone(), clean.shape[-1] * clean.shape[-2]
        stride = max(1, round(self.theta * LEVELS)) / LEVELS
        most = max(1, int(self.gamma * pixels))
        course = torch.zeros((len(rows), pixels), device=clean.device)  # -1 or 1 once a pixel has been moved
        fell, open_ = torch.full((len(rows),), -1), torch.arange(len(rows))
        for moves in range(most * -(-LEVELS // round(stride * LEVELS)) + 1):
            here = open_.to(clean.device)
            rise, rest, logits = _slopes(access, current[here], rows[open_], goal)
            won = goal.take(rows[open_]).to(logits.device).reached(logits)
            fell[open_[won.cpu()]] = moves
            pixel, way, stuck = _choose(clean[here], current[here], course[here], rise, rest, most)
            go = ~(won | stuck)
            here, pixel, way, open_ = here[go], pixel[go], way[go], open_[go.cpu()]
            if not len(open_):
                break
            course[here, pixel] = way
            flat = current.flatten(2)
            moved = ((flat[here, :, pixel] + way[:, None] * stride).clamp(0, 1) * LEVELS).round() / LEVELS
            flat[here, :, pixel] = moved
        return current.cpu(), fell


def _choose(
    clean: Tensor, current: Tensor, course: Tensor, rise: Tensor, rest: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The most salient pixel [M], its direction -1 or 1 [M], and whether there is none, bool [M]."""
    flat = current.flatten(2)
    full = ((course != 0).sum(1, keepdim=True) >= most) & (course == 0)  # no new pixel beyond the share
    scores = []
    for way in (1.0, -1.0):
        room = (flat.amin(1) < 1) if way > 0 else (flat.amax(1) > 0)
        allowed = room & (course != -way) & ~full
        up, down = way * rise, -way * rest
        both = torch.where((up > 0) & (down > 0), up * down, 0) * allowed
        scores.append((both, torch.where(up + down > 0, up + down, 0) * allowed))
    salient, weaker = (torch.cat(kind, dim=1) for kind in zip(*scores, strict=True))
    none = salient.amax(1, keepdim=True) <= 0
    score = torch.where(none, weaker, salient)
    best = score.max(1)
    pixels = flat.shape[2]
    return best.indices % pixels, 1.0 - 2.0 * (best.indices >= pixels), best.values <= 0


def _slopes(access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of the target's logit and of the others' sum by pixel, [M, H * W] each, and the logits."""
    if access.classes > FEW:
        own, logits = access.gradient(images, rows, _target_logit)
        every, _ = access.gradient(images, rows, lambda values, _: values.sum(1))
        rise = own.sum(1).flatten(1)
        return rise, every.sum(1).flatten(1) - rise, logits
    parts = torch.split(torch.arange(len(rows), device=images.device), max(1, access.batch // access.classes))
    answers = []
    for part in parts:
        own = rows[part.cpu()]
        jacobian, logits = access.jacobian(images[part], own)
        slope = jacobian.sum(2).flatten(2)
        target = _target(logits, goal.take(own).to(logits.device))
        up = slope[torch.arange(len(own), device=slope.device), target]
        answers.append((up, slope.sum(1) - up, logits))
    rise, rest, logits = (torch.cat(kind) for kind in zip(*answers, strict=True))
    return rise, rest, logits


def _target(logits: Tensor, goal: Goal) -> Tensor:
    """The goal's class, or the strongest class that is not the true one."""
    if goal.targeted:
        return goal.labels
    return logits.scatter(1, goal.labels[:, None], -torch.inf).argmax(1)


def _target_logit(logits: Tensor, goal: Goal) -> Tensor:
    return logits.gather(1, _target(logits, goal)[:, None]).squeeze(1)
