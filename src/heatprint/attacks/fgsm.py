"""Fast gradient sign method, one step or with a gain that is raised until the label changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level, whole_levels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """x + gain * sign(gradient at the clean image), clipped to [0, 1] (Goodfellow et al. 2015, section 4).

    With `ramp` (the default, the paper's way) the gain rises in whole levels of 1/255 along that one fixed
    direction until the label changes, as in the cited FGSM-Keras code; one backward pass in all. Without it the
    largest gain is used at once. The direction at a kink where the gradient is exactly 0 is 0: such a pixel stays.

    Attributes:
        eps: Largest gain, pixel values in [0, 1]; ``"16/255"`` is accepted. 0 returns the image unchanged.
        ramp: Raise the gain from 1/255, or use `eps` at once.
        exact: After the ramp, also halve the interval between its last failure and its first success until the gain
            at which the label changes is known to 1/1000 of a level. Ten more queries; the image stays the ramp's.
        loss: ``"cross_entropy"`` (the paper) or ``"margin"``; with two classes they have the same sign.

    The step of the result is the first gain, in levels, that reached the goal. The trace ``unflip`` is True where
    a higher gain up to `eps` undoes the success again, ``flips`` counts the successful gains of the ramp; with `exact`
    ``gain`` is the smallest gain found, in pixel values, infinite where there is none.
    """

    eps: Level = 16 / 255
    ramp: bool = True
    exact: bool = False
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"

    def __post_init__(self) -> None:
        check_level("FGSM: eps", self.eps)
        if self.exact and not self.ramp:
            raise InvalidInput("FGSM: exact=True refines the ramp. Write ramp=True, or exact=False.")
        if self.ramp and abs(self.eps * LEVELS - round(self.eps * LEVELS)) > 1e-6:
            raise InvalidInput(
                f"FGSM: with ramp=True the gain rises in whole levels, so eps must be k/255; got {self.eps:g} = "
                f"{self.eps * LEVELS:g}/255. Write '{round(self.eps * LEVELS)}/255', or ramp=False."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box; one gradient, but many gains are tried with the ramp."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative" if self.ramp else "one-time",
            norm="linf",
            paper="Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, count = images.clone(), len(images)
        step = torch.full((count,), -1)
        trace = {"flips": torch.zeros(count, dtype=torch.long), "unflip": torch.zeros(count, dtype=torch.bool)}
        gain = torch.full((count,), torch.inf)
        for rows in torch.split(torch.arange(count), access.batch):
            some = images[rows].to(access.device)
            gradient, _ = access.gradient(some, rows, self.loss)
            direction = gradient.sign()
            if self.ramp:
                flipped = self._ramp(access, some, direction, rows, goal)
                found, first = flipped.any(1), first_true(flipped)
                trace["flips"][rows], step[rows] = flipped.sum(1), torch.where(found, first + 1, -1)
                beyond = torch.arange(flipped.shape[1])[None] > first[:, None]
                # gains that a budget left untried have undone nothing
                trace["unflip"][rows] = found & (beyond & ~flipped).any(1) & ~access.spent(rows)
                if self.exact:
                    own = found.nonzero().squeeze(1)
                    gain[rows[own]] = self._halve(access, some, direction, first, rows, own)
                level = torch.where(found, first + 1, flipped.shape[1]).to(some) / LEVELS
            else:
                level = torch.full((len(rows),), whole_levels(self.eps) / LEVELS).to(some)
            out[rows] = (some + level.view(-1, 1, 1, 1) * direction).clamp(0, 1).to(out)
            progress(int(rows[-1]) + 1, count)
        if self.exact:
            trace["gain"] = gain
        return Perturbed(images=out, step=step, trace=trace if self.ramp else {})

    def _halve(
        self, access: Access, images: Tensor, direction: Tensor, first: Tensor, rows: Tensor, own: Tensor
    ) -> Tensor:
        """The smallest gain of the images `own` that reaches the goal, by halving the last level of the ramp."""
        here = own.to(images.device)
        low, high = first[own] / LEVELS, (first[own] + 1) / LEVELS
        for _ in range(10 if len(own) else 0):
            middle = (low + high) / 2
            tried = (images[here] + middle.view(-1, 1, 1, 1).to(images) * direction[here]).clamp(0, 1)
            fell = access.reached(tried, rows[own]).cpu()
            low, high = torch.where(fell, low, middle), torch.where(fell, middle, high)
        return high

    def _ramp(self, access: Access, images: Tensor, direction: Tensor, rows: Tensor, goal: Goal) -> Tensor:
        """Which gains 1..eps (in levels) reach the goal: bool [n, levels], on the CPU."""
        levels = whole_levels(self.eps)
        reached = torch.zeros((len(rows), levels), dtype=torch.bool)
        count = len(rows)
        for part in torch.split(torch.arange(count * levels), access.batch):  # (gain, image) pairs, gain by gain
            gain, place = part // count, part % count
            here = place.to(images.device)
            level = ((gain + 1) / LEVELS).view(-1, 1, 1, 1).to(images)
            tried = (images[here] + level * direction[here]).clamp(0, 1)
            reached[place, gain] = goal.take(rows[place]).reached(access.logits(tried, rows[place]).cpu())
        return reached


def first_true(table: Tensor) -> Tensor:
    """Index of the first True of each row, int64 [n]; the row's length where there is none."""
    return (~table).int().cumprod(1).sum(1)
