"""Fast minimum-norm attack: one algorithm for the nearest adversarial in four norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import steepest
from heatprint.attacks.parts.few_pixels import fewest, prune, top_pixels
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import Norm, length, project
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

DUAL: dict[Norm, Norm] = {"l1": "linf", "l2": "l2", "linf": "l1"}
SLOWEST = 0.01  # the last step's share of the first (the paper lets the step decay to zero)
OUTWARD = 0.5  # growth of the radius beyond the boundary, where a criterion asks for more than the flip


@dataclass(frozen=True, kw_only=True)
class FMN:
    """Steps along the gradient within a ball that closes in on the boundary (Pintor et al. 2021, algorithm 1).

    Until an image is adversarial the radius is the distance to the boundary to first order, ``|delta| + lead / |g|``
    in the dual norm; from then on it shrinks by the factor 1 - gamma while the image is adversarial and grows
    by 1 + gamma while it is not. The lengths of the steps and gamma fall with a cosine. The nearest adversarial met is
    rounded to 8 bits without losing its success.

    Differs from the paper in L0: a pixel counts once whatever number of its channels moves, the projection keeps
    whole pixels, the first-order distance is the number of pixels that make up for the lead when moved to black or
    white in each channel, and the result is pruned (`parts.few_pixels.prune`), since an iterate chooses its pixels by
    how far they have moved, not by what they achieve.

    Attributes:
        norm: ``"l0"``, ``"l1"``, ``"l2"`` or ``"linf"``.
        steps: Iterations; one gradient each.
        step: Length of the first step in L2, pixel values in [0, 1] (alpha of the paper).
        gamma: First change of the radius, a share of it.
        slow: Last change of the radius, at most `gamma`.

    The step of the result is the first iteration that was adversarial.
    """

    norm: Norm = "l2"
    steps: int = 100
    step: float = 1.0
    gamma: float = 0.05
    slow: float = 0.001

    def __post_init__(self) -> None:
        if self.norm not in ("l0", *DUAL):
            raise InvalidInput(f"FMN: norm = {self.norm!r} is unknown; write 'l0', 'l1', 'l2' or 'linf'.")
        if self.steps < 1 or not 0 < self.step < math.inf or not 0 < self.slow <= self.gamma < 1:
            raise InvalidInput(
                f"FMN: steps = {self.steps} must be 1 or more, step = {self.step} above 0, gamma = {self.gamma} below "
                f"1, slow = {self.slow} above 0 and at most gamma."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, minimal norm."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Pintor, Roli, Brendel, Biggio 2021, arXiv:2102.12827",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            best, step[rows] = self._descend(access, images[rows], rows, goal.take(rows))
            out[rows] = settle(access, images[rows], best, rows)
            if self.norm == "l0":
                out[rows] = prune(access, images[rows], out[rows], rows)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _descend(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The nearest adversarial met (the last attempt where there is none), and the first iteration that met one."""
        clean, goal = images.to(access.device), goal.to(access.device)
        delta, best = torch.zeros_like(clean), torch.zeros_like(clean)
        radius = torch.full((len(rows),), torch.inf, device=clean.device)
        nearest, first = torch.full_like(radius, torch.inf), torch.full((len(rows),), -1)
        for iteration in range(self.steps):
            gradient, logits = access.gradient(clean + delta, rows, "margin")
            fell, size = goal.reached(logits), length(delta, self.norm)
            better = fell & (size <= nearest)
            best[better], nearest = delta[better], torch.where(better, size, nearest)
            first = torch.where(fell.cpu() & (first < 0), iteration, first)
            pace = 0.5 * (1 + math.cos(math.pi * iteration / self.steps))  # cosine annealing from 1 towards 0
            gamma = self.slow + pace * (self.gamma - self.slow)
            lead = goal.criterion.margin - goal.margin(logits)
            guess = self._distance(clean, delta, gradient, lead)
            # across the boundary yet not sure enough of the mistake: the boundary is no guide to how far is left
            guided = nearest.isinf() & ((lead > 0) | radius.isinf())
            rate = torch.where(nearest.isinf(), OUTWARD, gamma)
            radius = torch.where(guided, guess, self._resized(radius, fell, nearest, rate))
            delta = delta + self.step * max(pace, SLOWEST) * steepest(gradient, "l2")
            delta = (clean + self._project(delta, radius)).clamp(0, 1) - clean
        missed = nearest.isinf()
        best[missed] = delta[missed]
        return (clean + best).cpu(), first

    def _distance(self, clean: Tensor, delta: Tensor, gradient: Tensor, lead: Tensor) -> Tensor:
        """The distance from the clean image to the boundary as the gradient at `delta` has it, [N]."""
        if self.norm == "l0":
            return length(delta, "l0") + fewest(gradient, clean + delta, lead)
        slope = length(gradient, DUAL[self.norm]).clamp_min(torch.finfo(gradient.dtype).tiny)
        most = length(torch.ones_like(clean), self.norm)  # across the whole box
        return torch.minimum(length(delta, self.norm) + lead.clamp_min(0) / slope, most)

    def _resized(self, radius: Tensor, fell: Tensor, nearest: Tensor, rate: Tensor) -> Tensor:
        """The radius shrunk or grown; in L0 by at least one pixel."""
        less, more = radius * (1 - rate), radius * (1 + rate)
        if self.norm == "l0":
            less = torch.minimum(less.floor(), radius - 1).clamp_min(1)
            more = torch.maximum(more.floor(), radius + 1)
        return torch.where(fell, torch.minimum(less, nearest), more)

    def _project(self, delta: Tensor, radius: Tensor) -> Tensor:
        """Into the ball; in L0 by keeping the pixels that have moved furthest."""
        if self.norm == "l0":
            return delta * top_pixels(delta.square().sum(1), radius)
        return project(delta, self.norm, radius)
