"""The attack of Carlini and Wagner in L2: a penalty and a distance, weighed by binary search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

INSIDE = 0.999999  # keeps black and white at a finite place of the tanh space
DECAYS, TINY = (0.9, 0.999), 1e-8  # Adam's (Kingma and Ba 2015)
CHECKS = 10  # how often in a descent it is looked whether it still descends
PROGRESS = 0.9999  # of the loss at the check before, that it must have fallen below
GROWTH = 10  # of c while no success is known


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimises |change|^2 + c * f by Adam in the space of tanh (Carlini and Wagner 2017, section VI A).

    f = max(-margin, -kappa), where the margin is the goal's: the target's logit minus the best other, or untargeted
    the best other minus the label's (f6 of the paper). kappa, the confidence, is ``goal.criterion.margin``. The
    weight c is searched for per image: ten times as much until an attempt succeeds, then by halving. Each image has
    its own state and gives a descent up when its loss stops falling. Results are brought to 8 bits by
    `heatprint.attacks.parts.rounding.settle`; an image that stands is returned at the iterate with the largest margin.
    Differs from the paper in that every descent starts at the clean image alone.

    Attributes:
        steps: Iterations of Adam in one descent, 1 or more; one gradient each. The paper's code has 10000.
        searches: Values of c, 1 or more.
        rate: Adam's learning rate, in the space of tanh, above 0.
        start: The first c, above 0; it must be greater for networks with small logits, or `searches` larger.

    The step of the result is the iteration that first reached the goal, counted on through the descents.
    """

    steps: int = 1000
    searches: int = 9
    rate: float = 0.01
    start: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1 or self.searches < 1:
            raise InvalidInput(f"CarliniWagner: steps = {self.steps} and searches = {self.searches} must be 1 or more.")
        if not (0 < self.rate < math.inf and 0 < self.start < math.inf):
            raise InvalidInput(
                f"CarliniWagner: rate = {self.rate} and start = {self.start} must be above 0; the paper has 0.01 "
                "and 0.001."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, minimal L2."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l2",
            paper="Carlini, Wagner 2017, arXiv:1608.04644",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            search = _Search(access, images[rows], rows, goal, self)
            weight = torch.full((len(rows),), self.start, device=access.device)
            low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
            for number in range(self.searches):
                won = search.descend(weight, number * self.steps)
                high = torch.where(won, torch.minimum(weight, high), high)
                low = torch.where(won, low, torch.maximum(weight, low))
                weight = torch.where(high.isinf(), GROWTH * weight, (low + high) / 2)
            out[rows], step[rows] = settle(access, images[rows], search.best.cpu(), rows), search.step
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)


class _Search:
    """A batch of images on the device, with the nearest image found for each that reaches the goal.

    While there is none, `best` is the attempt with the largest margin.
    """

    def __init__(self, access: Access, images: Tensor, rows: Tensor, goal: Goal, how: CarliniWagner) -> None:
        self._access, self._rows, self._goal, self._how = access, rows, goal, how
        self._clean = images.to(access.device)
        self.best = self._clean.clone()
        self._size = self._clean.new_full((len(rows),), torch.inf)  # of the change to `best`, once that reaches it
        self._margin = torch.full_like(self._size, -torch.inf)
        self.step = torch.full((len(rows),), -1)

    def descend(self, weight: Tensor, done: int) -> Tensor:
        """One descent for each image with its c [N], after `done` iterations; which of them succeeded, bool [N]."""
        kappa = self._goal.criterion.margin
        here = torch.arange(len(self._rows), device=self._clean.device)
        won, before = torch.zeros_like(here, dtype=torch.bool), torch.full_like(weight, torch.inf)
        place = torch.atanh((2 * self._clean - 1) * INSIDE)
        first, second = torch.zeros_like(place), torch.zeros_like(place)
        for iteration in range(self._how.steps):
            own, squashed = self._rows[here.cpu()], place[here].tanh()
            images = (squashed + 1) / 2
            change = images - self._clean[here]
            gradient, logits = self._access.gradient(images, own, lambda z, goal: goal.margin(z).clamp_max(kappa))
            margin, fell = self._note(images, change, here, logits, done + iteration)
            won[here] |= fell
            loss = change.square().flatten(1).sum(1) - weight[here] * margin.clamp_max(kappa)
            down = 2 * change - weight[here].view(-1, 1, 1, 1) * gradient
            down *= (1 - squashed.square()) / 2
            first[here] += (1 - DECAYS[0]) * (down - first[here])
            second[here] += (1 - DECAYS[1]) * (down.square() - second[here])
            unbiased = [m[here] / (1 - d ** (iteration + 1)) for m, d in zip((first, second), DECAYS, strict=True)]
            place[here] -= self._how.rate * unbiased[0] / (unbiased[1].sqrt() + TINY)
            if iteration % max(self._how.steps // CHECKS, 10) == 0:  # Adam's first steps overshoot
                # the loss may be negative; falling then means growing in size
                falling = loss < before[here] - (1 - PROGRESS) * before[here].abs().nan_to_num(posinf=0)
                before[here] = loss
                here = here[falling & ~self._access.spent(own).to(here.device)]
                if not len(here):
                    break
        return won

    def _note(
        self, images: Tensor, change: Tensor, here: Tensor, logits: Tensor, iteration: int
    ) -> tuple[Tensor, Tensor]:
        """Keep the better ones of the iterates; their margins, and which of them reach the goal."""
        aim = self._goal.take(self._rows[here.cpu()]).to(logits.device)
        won, margin = aim.reached(logits), aim.margin(logits)
        size = torch.where(won, length(change, "l2"), torch.inf)
        better = (size < self._size[here]) | (self._size[here].isinf() & (margin > self._margin[here]))
        self.best[here[better]] = images[better]
        self._size[here] = torch.minimum(size, self._size[here])
        self._margin[here[better]] = margin[better]
        fresh = here[won].cpu()
        self.step[fresh] = torch.where(self.step[fresh] < 0, iteration, self.step[fresh])
        return margin, won
