"""Decoupled direction and norm: a minimal-L2 attack in a hundred gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import steepest
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class DDN:
    """Follows the gradient, and keeps the perturbation's length apart from its direction (Rony et al. 2019, alg. 1).

    The allowed length shrinks by a factor while the image is adversarial and grows by it while it is not. Differs
    from the published code in the ascended loss, the goal's margin-like cross-entropy, which does not saturate.

    Attributes:
        steps: Iterations; one gradient each.
        gamma: The factor is 1 + gamma or 1 - gamma.
        start: First length in L2, pixel values in [0, 1].

    The step of the result is the first iteration that was adversarial.
    """

    steps: int = 100
    gamma: float = 0.05
    start: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.gamma < 1 or not 0 < self.start < math.inf:
            raise InvalidInput(
                f"DDN: steps = {self.steps} must be 1 or more, gamma = {self.gamma} between 0 and 1, "
                f"start = {self.start} above 0."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, minimal L2."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l2",
            paper="Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019, arXiv:1811.09600",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            best, step[rows] = self._descend(access, images[rows], rows, goal.take(rows))
            out[rows] = settle(access, images[rows], best, rows)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _descend(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The nearest adversarial met (the last attempt where there is none), and the first iteration that met one."""
        clean = images.to(access.device)
        delta, best = torch.zeros_like(clean), torch.zeros_like(clean)
        radius = torch.full((len(rows),), self.start, device=clean.device)
        nearest = torch.full_like(radius, torch.inf)
        first = torch.full((len(rows),), -1)
        for iteration in range(self.steps):
            gradient, logits = access.gradient(clean + delta, rows, "cross_entropy")
            fell = goal.to(clean.device).reached(logits)
            size = length(delta, "l2")
            better = fell & (size < nearest)
            best[better], nearest = delta[better], torch.where(better, size, nearest)
            first = torch.where(fell.cpu() & (first < 0), iteration, first)
            pace = 0.5 * (1 + math.cos(math.pi * iteration / self.steps))  # cosine annealing from 1 towards 0
            delta = delta + max(pace, 0.01) * steepest(gradient, "l2")
            radius = torch.where(fell, torch.minimum(radius, size) * (1 - self.gamma), radius * (1 + self.gamma))
            delta = delta * (radius / length(delta, "l2").clamp_min(1e-12)).view(-1, 1, 1, 1)
            delta = (clean + delta).clamp(0, 1) - clean
        missed = nearest.isinf()
        best[missed] = delta[missed]
        return (clean + best).cpu(), first
