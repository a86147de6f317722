"""A descent that writes down its way: what a textbook attack does, kept so that its failures can be read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.attacks.access import LOSSES
from heatprint.attacks.parts.balls import check_radius, steepest, usable
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level
from heatprint.core.norms import project
from heatprint.core.protocols import Access, Loss, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

FIRST = 0.5  # first step in units of eps; the steps fall to 0 along half a cosine


@dataclass(frozen=True, kw_only=True)
class Traced:
    """Projected gradient descent from the clean image that never stops early (Madry et al. 2018, eq. 1).

    It exists to be read, not to win: no restarts, no rounding before it judges, and with `scale` the loss of the
    textbooks, whose gradient vanishes on confident networks. What is returned is the iterate of the largest margin.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; in the maximum norm rounded down to whole levels.
        norm: ``"linf"`` or ``"l2"``.
        steps: Iterations, 2 or more.
        scale: None: the margin of the logits is raised. A number: the cross-entropy as textbooks write it, of the
            logits times this number.

    The trace holds for each image ``way``, the margin of the iterates, [N, steps + 1]; ``slope``, the mean size of
    the gradient at each, [N, steps], NaN where it was not finite; ``seen``, whether an iterate reached the goal;
    ``again``, whether the returned one still does when it is asked about once more.
    """

    eps: Level = 2 / 255
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 30
    scale: float | None = None

    def __post_init__(self) -> None:
        check_radius("Traced: eps", self.eps, self.norm)
        if self.steps < 2 or not (self.scale is None or 0 < self.scale < math.inf):
            raise InvalidInput(
                f"Traced: steps = {self.steps} must be 2 or more, scale = {self.scale} None or a positive number."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, count = images.clone(), len(images)
        trace = {
            "way": torch.zeros((count, self.steps + 1)),
            "slope": torch.zeros((count, self.steps)),
            "seen": torch.zeros(count, dtype=torch.bool),
            "again": torch.zeros(count, dtype=torch.bool),
        }
        step = torch.full((count,), -1)
        for rows in torch.split(torch.arange(count), access.batch):
            best, way, slope, first = self._descend(access, images[rows], rows, goal)
            trace["way"][rows], trace["slope"][rows], trace["seen"][rows] = way, slope, first >= 0
            trace["again"][rows] = access.reached(best, rows).cpu()
            out[rows], step[rows] = best.cpu(), first
            progress(int(rows[-1]) + 1, count)
        return Perturbed(images=out, step=step, trace=trace)

    def _descend(
        self, access: Access, images: Tensor, rows: Tensor, goal: Goal
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best iterates, margins and gradient sizes along the way, and the first success (-1: none)."""
        clean, radius = images.to(access.device), usable(self.eps, self.norm)
        current, best, aim = clean.clone(), clean.clone(), goal.take(rows)
        way, slope = torch.zeros((len(rows), self.steps + 1)), torch.zeros((len(rows), self.steps))
        top, first = torch.full((len(rows),), -torch.inf), torch.full((len(rows),), -1)
        for iteration in range(self.steps + 1):
            if iteration < self.steps:
                gradient, logits = access.gradient(current, rows, self._loss())
                slope[:, iteration] = gradient.flatten(1).abs().mean(1).cpu()
            else:
                logits = access.logits(current, rows)
            lead = way[:, iteration] = aim.margin(logits.cpu())
            first[aim.reached(logits.cpu()) & (first < 0)] = iteration
            better = lead > top
            best[better.to(best.device)], top = current[better.to(best.device)], torch.maximum(top, lead)
            if iteration < self.steps:
                size = FIRST * radius * 0.5 * (1 + math.cos(math.pi * iteration / self.steps))
                moved = current - clean + size * steepest(gradient.nan_to_num(0, 0, 0), self.norm)
                current = (clean + project(moved, self.norm, radius)).clamp(0, 1)
        return best, way, slope, first

    def _loss(self) -> Loss:
        if self.scale is None:
            return LOSSES["margin"]
        scale = self.scale
        return lambda logits, goal: F.cross_entropy(scale * logits, goal.labels, reduction="none")
