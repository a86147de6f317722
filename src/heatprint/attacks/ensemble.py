"""Several unlike attacks one after another, for a worst case that is hard to be wrong about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.apgd import APGD
from heatprint.attacks.fab import FAB
from heatprint.attacks.one_pixel import OnePixel
from heatprint.attacks.parts.balls import check_radius
from heatprint.attacks.parts.rounding import fit
from heatprint.attacks.parts.subset import SubsetAccess, subset_streams
from heatprint.attacks.square import Square
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level, to_images, to_pixels
from heatprint.core.norms import length, project
from heatprint.core.protocols import Access, Attack, Progress, silent
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

MEMBERS = ("apgd-ce", "apgd-t", "fab", "square", "one-pixel")
EFFORTS = {"quick": (20, 20, 500), "standard": (100, 100, 5000)}  # steps of APGD and of FAB, queries of Square
ENOUGH = 4  # classes from which on the targeted ratio of logits is defined
STARTS = 9  # of the second APGD in all, or as few more as its classes need: what AutoAttack spends on nine classes


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Four unlike attacks, worst case per image, for any number of classes (after Croce and Hein 2020, section 5).

    The members, by the index that the trace ``member`` holds (-1 where none succeeded):

    0. ``apgd-ce``: APGD on the cross-entropy;
    1. ``apgd-t``: with four classes or more APGD with the targeted DLR loss towards up to nine other classes, one
       after another; with fewer classes, and for targeted goals, APGD on the margin of the logits. Where there are
       fewer than nine classes to aim at, each has more starts, nine in all;
    2. ``fab``: FAB, which ignores the scale of the logits; what lies beyond `eps` is pulled back into the ball;
    3. ``square``: Square, which needs no gradient and so is not deceived by masked ones;
    4. ``one-pixel``: OnePixel, only with `pixels` above 0.

    An image is finished by the first member whose 8-bit image reaches the goal within the allowed change, so later
    members ask nothing about it. One that stands is returned at the attempt with the largest margin. Differs from
    AutoAttack, whose DLR loss needs three and its targeted form four classes, in that it works from two classes on,
    in FAB, which looks at all leading boundaries together instead of one target class after another, and in all
    that `heatprint.attacks.apgd.APGD` differs in.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; ``"8/255"`` is accepted. In the maximum norm it is rounded
            down to whole levels. 0 returns the image unchanged, if `pixels` is 0.
        norm: ``"linf"`` or ``"l2"``.
        pixels: Above 0 the threat model is the union of two: any change within `eps`, or any colours for this many
            pixels, whatever their distance in `norm`. The taxonomy's norm stays that of `eps`.
        effort: ``"standard"``: 100 iterations of APGD and FAB, 5000 queries of Square; ``"quick"``: 20, 20 and 500.

    The step of the result is that of the member which succeeded, in its own count.
    """

    eps: Level = 8 / 255
    norm: Literal["linf", "l2"] = "linf"
    pixels: int = 0
    effort: Literal["quick", "standard"] = "standard"

    def __post_init__(self) -> None:
        check_radius("Ensemble: eps", self.eps, self.norm)
        if self.norm not in ("linf", "l2") or self.effort not in EFFORTS:
            raise InvalidInput(
                f"Ensemble: norm = {self.norm!r} must be 'linf' or 'l2', effort = {self.effort!r} 'quick' or "
                "'standard'. For few pixels write pixels=1 beside it."
            )
        if self.pixels < 0:
            raise InvalidInput(f"Ensemble: pixels = {self.pixels} must be 0 (no such member) or more.")

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative; the norm is that of `eps`."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Croce, Hein 2020, arXiv:2003.01690",
        )

    def members(self, classes: int, *, targeted: bool) -> tuple[Attack, ...]:
        """The attacks that are run, in the order of the indices in the trace."""
        steps, iterations, queries = EFFORTS[self.effort]
        aims = min(STARTS, classes - 1) if classes >= ENOUGH and not targeted else 0
        second = APGD(
            eps=self.eps,
            norm=self.norm,
            steps=steps,
            restarts=math.ceil(STARTS / max(aims, 1)),
            loss="dlr" if aims else "margin",
            target_classes=aims,
        )
        found: tuple[Attack, ...] = (
            APGD(eps=self.eps, norm=self.norm, steps=steps),
            second,
            FAB(norm=self.norm, steps=iterations, eps=self.eps),
            Square(eps=self.eps, norm=self.norm, queries=queries),
        )
        return (*found, OnePixel(pixels=self.pixels)) if self.pixels else found

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        out, count = images.clone(), len(images)
        step, member = torch.full((count,), -1), torch.full((count,), -1)
        best = torch.full((count,), -torch.inf)
        for index, method in enumerate(self.members(access.classes, targeted=goal.targeted)):
            rows = ((member < 0) & ~access.spent(torch.arange(count))).nonzero().squeeze(1)
            if not len(rows):
                break
            view, own = SubsetAccess(access, rows), goal.take(rows)
            draws = subset_streams(streams, rows, MEMBERS[index])
            made = method.perturb(view, images[rows], own, streams=draws, progress=silent)
            tried = self._allowed(images[rows], made.images, method)
            fell, margin = _judge(view, tried, own)
            better = fell | (margin > best[rows])
            out[rows[better]], best[rows[better]] = tried[better], margin[better]
            step[rows[fell]], member[rows[fell]] = made.step[fell].clamp_min(0), index
            progress(int((member >= 0).sum()), count, f"{MEMBERS[index]} done")
        progress(count, count)
        return Perturbed(images=out, step=step, trace={"member": member})

    def _allowed(self, images: Tensor, made: Tensor, method: Attack) -> Tensor:
        """What a member made as 8-bit images within the threat model: pulled back into it where they are not."""
        made = to_images(to_pixels(made))
        if method.taxonomy.norm == "l0":
            few = length(made - images, "l0") <= self.pixels
            return torch.where(few.view(-1, 1, 1, 1), made, images)
        return fit(images, images + project(made - images, self.norm, self.eps), self.norm, self.eps)


def _judge(access: Access, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """Which images reach the goal, bool [M], and their margins, on the CPU; one query each."""
    parts = [
        access.logits(images[part].to(access.device), part).cpu()
        for part in torch.split(torch.arange(len(images)), access.batch)
    ]
    logits = torch.cat(parts)
    return goal.reached(logits), goal.margin(logits)
