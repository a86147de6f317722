"""Sigma-zero: the fewest changed pixels by gradient descent on a smooth count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.few_pixels import prune
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

SLOWEST = 0.1  # the last step's share of the first
WIDEST = 1.0  # threshold at which nothing but black turned white is kept


@dataclass(frozen=True, kw_only=True)
class SigmaZero:
    """Descends the margin and a smooth count of changed pixels together (Cinà et al. 2024, algorithm 1).

    The count is the sum over pixels of ``|d|^2 / (|d|^2 + sigma)``, divided by their number. After each step,
    of the gradient scaled to a largest entry of 1, pixels that have moved by less than a threshold are put back. The
    threshold rises while the image is adversarial and falls while it is not; step and its changes decay with a cosine.

    Differs from the paper in two points: a pixel, all three channels of it, is what is counted and put back, not a
    single channel; and the sparsest adversarial met, rounded to 8 bits, is pruned of what it can do without
    (`parts.few_pixels.prune`), which also moves the kept pixels to black or white where that saves some.

    Attributes:
        steps: Iterations; one gradient each. The paper runs 1000 and reports 100 too.
        sigma: Width of the smooth count, above 0, in squared pixel values: smaller is sharper.
        step: Largest change of a channel in the first step, pixel values in [0, 1] (eta of the paper).
        threshold: First threshold, pixel values in [0, 1] (tau).
        change: By how much, times the step, the threshold rises or falls (t).

    The step of the result is the first iteration that was adversarial.
    """

    steps: int = 300
    sigma: float = 1e-3
    step: float = 1.0
    threshold: float = 0.3
    change: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1 or not (0 < self.sigma < math.inf and 0 < self.step < math.inf):
            raise InvalidInput(
                f"SigmaZero: steps = {self.steps} must be 1 or more, sigma = {self.sigma} and step = {self.step} "
                "above 0."
            )
        if not (0 <= self.threshold <= WIDEST and 0 <= self.change <= 1):
            raise InvalidInput(
                f"SigmaZero: threshold = {self.threshold} and change = {self.change} are pixel values: write numbers "
                "from 0 to 1."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, minimal L0."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l0",
            paper="Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo 2024, arXiv:2402.01879",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            best, step[rows] = self._descend(access, images[rows], rows, goal.take(rows))
            settled = settle(access, images[rows], best, rows)
            out[rows] = prune(access, images[rows], settled, rows)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _descend(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The sparsest adversarial met (the last attempt where there is none), and the first iteration of one."""
        clean, goal = images.to(access.device), goal.to(access.device)
        delta, best = torch.zeros_like(clean), torch.zeros_like(clean)
        threshold = torch.full((len(rows),), self.threshold, device=clean.device)
        sparsest, first = torch.full_like(threshold, torch.inf), torch.full((len(rows),), -1)
        for iteration in range(self.steps):
            gradient, logits = access.gradient(clean + delta, rows, _open_margin)
            fell, size = goal.reached(logits), length(delta, "l0")
            better = fell & (size < sparsest)
            best[better], sparsest = delta[better], torch.where(better, size, sparsest)
            first = torch.where(fell.cpu() & (first < 0), iteration, first)
            pace = 0.5 * (1 + math.cos(math.pi * iteration / self.steps))  # cosine annealing from 1 towards 0
            stride = self.step * (SLOWEST + (1 - SLOWEST) * pace)
            ascent = gradient - self._count_slope(delta)
            ascent = ascent / length(ascent, "linf").clamp_min(torch.finfo(ascent.dtype).tiny).view(-1, 1, 1, 1)
            delta = (clean + delta + stride * ascent).clamp(0, 1) - clean
            threshold = (threshold + self.change * stride * torch.where(fell, 1.0, -1.0)).clamp(0, WIDEST)
            delta = delta * (delta.abs().amax(1, keepdim=True) >= threshold.view(-1, 1, 1, 1))
        missed = sparsest.isinf()
        best[missed] = delta[missed]
        return (clean + best).cpu(), first

    def _count_slope(self, delta: Tensor) -> Tensor:
        """The gradient of the smooth share of changed pixels."""
        pixels = delta.shape[-1] * delta.shape[-2]
        square = delta.square().sum(1, keepdim=True)
        return 2 * self.sigma * delta / (square + self.sigma).square() / pixels


def _open_margin(logits: Tensor, goal: Goal) -> Tensor:
    """The margin of images that still stand; those that fell are left to the count alone."""
    return goal.margin(logits).masked_fill(goal.reached(logits), 0)
