"""Momentum iterative fast gradient sign method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import usable
from heatprint.attacks.parts.rounding import confirm, fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level, check_level
from heatprint.core.norms import length, project
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """Sign steps along a running sum of gradients of length 1 (Dong et al. 2018, algorithm 1, eqs. 6 and 7).

    Each step is eps / steps long. The paper wants images that transfer to other networks and always makes all
    steps; here, as everywhere in this room, work on an image ends once its 8-bit form reaches the goal. The image
    returned for one that stands is the iterate with the largest margin. The cross-entropy is the goal's, which has
    the published direction at every point and does not saturate.

    Attributes:
        eps: Radius in the maximum norm, pixel values in [0, 1], rounded down to whole levels; ``"8/255"`` is
            accepted. 0 returns the image unchanged.
        steps: Iterations, 1 or more; one gradient each.
        momentum: Decay mu of the running sum, 0 or more; 0 is the basic iterative method.
        loss: ``"cross_entropy"`` (the paper) or ``"margin"``.

    The step of the result is the number of steps after which the goal was reached.
    """

    eps: Level = 8 / 255
    steps: int = 10
    momentum: float = 1.0
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"

    def __post_init__(self) -> None:
        check_level("MIFGSM: eps", self.eps)
        if self.steps < 1 or not 0 <= self.momentum < math.inf:
            raise InvalidInput(
                f"MIFGSM: steps = {self.steps} must be 1 or more, momentum = {self.momentum} 0 or more; the paper "
                "has steps=10, momentum=1.0."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, maximum norm."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="linf",
            paper="Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, arXiv:1710.06081",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            out[rows], step[rows] = self._climb(access, images[rows], rows, goal)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=fit(images, out, "linf", self.eps), step=step)

    def _climb(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The best image found for each, on the CPU, and the iteration at which it fell (-1: it stands)."""
        clean, radius = images.to(access.device), usable(self.eps, "linf")
        best, current, total = clean.clone(), clean.clone(), torch.zeros_like(clean)
        margin, fell = torch.full((len(rows),), -torch.inf), torch.full((len(rows),), -1)
        open_ = torch.arange(len(rows))
        for iteration in range(self.steps + 1):
            here, own = open_.to(clean.device), rows[open_]
            if iteration < self.steps:
                gradient, logits = access.gradient(current[here], own, self.loss)
                size = length(gradient, "l1").clamp_min(torch.finfo(gradient.dtype).tiny).view(-1, 1, 1, 1)
                total[here] = self.momentum * total[here] + gradient / size
            else:
                logits = access.logits(current[here], own)
            aim, logits = goal.take(own), logits.cpu()
            won, lead = aim.reached(logits), aim.margin(logits)
            better = lead > margin[open_]
            best[here[better]], margin[open_] = current[here[better]], torch.maximum(lead, margin[open_])
            if bool(won.any()):
                sure = open_[won]
                fitted, reached = confirm(access, clean[sure], current[sure], rows[sure], "linf", self.eps)
                best[sure[reached.cpu()]], fell[sure[reached.cpu()]] = fitted[reached], iteration
                open_ = (fell < 0).nonzero().squeeze(1)
                if not len(open_):
                    break
                here = open_.to(clean.device)
            moved = current[here] - clean[here] + radius / self.steps * total[here].sign()
            current[here] = (clean[here] + project(moved, "linf", radius)).clamp(0, 1)
        return best.cpu(), fell
