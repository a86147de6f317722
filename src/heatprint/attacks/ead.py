"""Elastic-net attack: Carlini and Wagner's objective with an L1 term, which makes the change sparse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import Norm, length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

GROWTH = 10.0  # of c while nothing was adversarial (section 5 keeps Carlini and Wagner's search)
MOST = 1e10  # c above which nothing more can be expected


@dataclass(frozen=True, kw_only=True)
class EAD:
    """Minimises ``c * f + beta * |delta|_1 + |delta|_2^2`` by FISTA (Chen et al. 2018, algorithm 1).

    f is how far the image is from its goal, ``max(kappa - margin, 0)``, kappa the margin that the goal's criterion
    asks for; one signed margin serves targeted and untargeted goals. Every iteration takes a gradient step in c * f
    and the squared length, shrinks the change of every channel by beta, and goes on a little in the direction it
    moved. A binary search over c runs all of it again; the nearest adversarial met, by the decision rule, is rounded
    to 8 bits without losing its success.

    Differs from the paper in the number of iterations, 200 instead of 1000 for each c; the square-root decay of the
    step runs over as many. A criterion that asks for a probability keeps f at work until it is met.

    Attributes:
        rule: What the nearest adversarial is nearest in: ``"l1"``, ``"l2"`` or ``"en"``, the elastic net
            ``beta * |delta|_1 + |delta|_2^2``.
        beta: Weight of the L1 term and shrinkage of a channel, pixel values in [0, 1]; the paper's 0.001 to 0.1.
        steps: Iterations for each c; a gradient and a forward pass each.
        searches: Values of c.
        step: First step size of the gradient descent.
        start: First c.

    The step of the result is the first iteration that was adversarial, counted on through the searches.
    """

    rule: Literal["l1", "en", "l2"] = "l1"
    beta: float = 0.001
    steps: int = 200
    searches: int = 9
    step: float = 0.01
    start: float = 0.001

    def __post_init__(self) -> None:
        if self.rule not in ("l1", "en", "l2"):
            raise InvalidInput(f"EAD: rule = {self.rule!r} is unknown; write 'l1', 'en' or 'l2'.")
        if self.steps < 1 or self.searches < 1:
            raise InvalidInput(f"EAD: steps = {self.steps} and searches = {self.searches} must be 1 or more.")
        if not (0 <= self.beta < 1 and 0 < self.step < math.inf and 0 < self.start < math.inf):
            raise InvalidInput(
                f"EAD: beta = {self.beta} must be 0 or more and below 1, step = {self.step} and start = {self.start} "
                "above 0."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative; minimal in the decision rule's norm, which is L1 for the elastic net."""
        norm: Norm = "l2" if self.rule == "l2" else "l1"
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=norm,
            paper="Chen, Sharma, Zhang, Yi, Hsieh 2018, arXiv:1709.04114",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            best, step[rows] = self._search(access, images[rows], rows, goal.take(rows))
            out[rows] = settle(access, images[rows], best, rows)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _search(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The nearest adversarial met (the one closest to the goal where there is none), and the first iteration."""
        clean = images.to(access.device)
        found = _Found.of(clean)
        weight = torch.full((len(rows),), self.start, device=clean.device)
        low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
        for search in range(self.searches):
            fell = self._descend(access, clean, rows, goal.to(clean.device), weight, found, search * self.steps)
            high, low = torch.where(fell, torch.minimum(high, weight), high), torch.where(fell, low, weight)
            weight = torch.where(high.isinf(), (weight * GROWTH).clamp_max(MOST), (low + high) / 2)
        return found.images.cpu(), found.first.cpu()

    def _descend(
        self, access: Access, clean: Tensor, rows: Tensor, goal: Goal, weight: Tensor, found: _Found, before: int
    ) -> Tensor:
        """One run of FISTA; whether it met an adversarial, bool [M]. `found` is told of every iterate."""
        current, slack = clean.clone(), clean.clone()
        fell = torch.zeros(len(rows), dtype=torch.bool, device=clean.device)
        for iteration in range(self.steps):
            rise, _ = access.gradient(slack, rows, _short_of_goal)
            rate = self.step * math.sqrt(1 - iteration / self.steps)
            moved = slack - rate * (2 * (slack - clean) - weight.view(-1, 1, 1, 1) * rise)
            moved = _shrunk(clean, moved, self.beta)
            slack = moved + iteration / (iteration + 3) * (moved - current)
            current = moved
            logits = access.logits(current, rows)
            hit = goal.reached(logits)
            found.tell(current, hit, goal.margin(logits), self._distance(current - clean), before + iteration)
            fell |= hit
        return fell

    def _distance(self, delta: Tensor) -> Tensor:
        """By the decision rule, [M]."""
        if self.rule != "en":
            return length(delta, self.rule)
        return self.beta * length(delta, "l1") + length(delta, "l2").square()


@dataclass(kw_only=True)
class _Found:
    """The best image of each row so far: an adversarial if there is one, the largest margin otherwise."""

    images: Tensor
    distance: Tensor
    margin: Tensor
    first: Tensor

    @classmethod
    def of(cls, clean: Tensor) -> _Found:
        """Nothing found yet."""
        far = torch.full((len(clean),), torch.inf, device=clean.device)
        return cls(images=clean.clone(), distance=far, margin=-far, first=torch.full_like(far, -1, dtype=torch.long))

    def tell(self, images: Tensor, hit: Tensor, margin: Tensor, distance: Tensor, iteration: int) -> None:
        """Keep what is better than before."""
        standing = self.distance.isinf()
        better = (hit & (distance < self.distance)) | (~hit & standing & (margin > self.margin))
        self.images[better] = images[better]
        self.distance = torch.where(hit, torch.minimum(distance, self.distance), self.distance)
        self.margin = torch.maximum(margin, self.margin)
        self.first = torch.where(hit & (self.first < 0), iteration, self.first)


def _shrunk(clean: Tensor, moved: Tensor, beta: float) -> Tensor:
    """Changes drawn beta towards zero, and into the box (eq. 5)."""
    delta = moved - clean
    return (clean + delta.sign() * (delta.abs() - beta).clamp_min(0)).clamp(0, 1)


def _short_of_goal(logits: Tensor, goal: Goal) -> Tensor:
    """The negative of f: raised until the goal is reached, flat beyond."""
    margin = goal.margin(logits)
    return torch.where(goal.reached(logits) & (margin >= goal.criterion.margin), margin.detach(), margin)
