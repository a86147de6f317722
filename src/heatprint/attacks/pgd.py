"""Projected gradient descent: the workhorse of strong attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import BallNorm, check_radius, random_point, steepest, usable
from heatprint.attacks.parts.rounding import confirm, fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level
from heatprint.core.norms import project
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Steps along the steepest direction of the refreshed gradient, back into the eps-ball (Madry et al. 2018, eq. 1).

    It stops working on an image once its goal is reached; an image that stands is returned at the iterate with the
    largest margin. The 8-bit image must have fallen, which costs a success one query more. The step of the result is
    the iteration of the success, counted on through the restarts.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; ``"8/255"`` is accepted. In the maximum norm it is rounded
            down to whole levels. 0 returns the image unchanged.
        norm: ``"linf"``, ``"l2"``, or ``"l1"`` with steps on the top hundredth of channels (Tramèr and Boneh 2019).
        step: Length of one step in `norm`.
        steps: Iterations of one start.
        restarts: Starts in all, for images that stand.
        random_start: Start at a random point of the ball. Without it more than one start is pointless.
        loss: ``"margin"`` of the logits (never saturates) or ``"cross_entropy"``.
    """

    eps: Level = 8 / 255
    norm: BallNorm = "linf"
    step: Level = 2 / 255
    steps: int = 20
    restarts: int = 1
    random_start: bool = True
    loss: Literal["margin", "cross_entropy"] = "margin"

    def __post_init__(self) -> None:
        check_radius("PGD: eps", self.eps, self.norm)
        check_radius("PGD: step", self.step, self.norm)
        if self.steps < 1 or self.restarts < 1:
            raise InvalidInput(f"PGD: steps = {self.steps} and restarts = {self.restarts} must be 1 or more.")
        if self.restarts > 1 and not self.random_start:
            raise InvalidInput("PGD: restarts without a random start repeat themselves. Write random_start=True.")

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
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            best = torch.full((len(rows),), -torch.inf)
            for restart in range(self.restarts):
                open_ = (step[rows] < 0).nonzero().squeeze(1)
                if not len(open_):
                    break
                here = rows[open_]
                found, fell, margin = self._climb(access, images[here], here, goal, streams, restart)
                better = margin > best[open_]
                out[here[better]], best[open_[better]] = found[better], margin[better]
                step[here] = torch.where(fell >= 0, fell + restart * self.steps, -1)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=fit(images, out, self.norm, self.eps), step=step)

    def _climb(
        self, access: Access, images: Tensor, rows: Tensor, goal: Goal, streams: Streams, restart: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One start: the images found, the iteration at which each fell (-1: none), and their margins."""
        clean, radius = images.to(access.device), usable(self.eps, self.norm)
        current = clean.clone()
        if self.random_start:
            start = [random_point(streams.of(int(r), restart), tuple(clean.shape[1:]), self.norm, radius) for r in rows]
            current = (clean + torch.stack(start).to(clean)).clamp(0, 1)
        best, margin = current.clone(), torch.full((len(rows),), -torch.inf)
        fell = torch.full((len(rows),), -1)
        for iteration in range(self.steps + 1):
            open_ = (fell < 0).nonzero().squeeze(1)
            if not len(open_):
                break
            here, own = open_.to(clean.device), rows[open_]
            if iteration < self.steps:
                gradient, logits = access.gradient(current[here], own, self.loss)
            else:
                logits = access.logits(current[here], own)
            aim = goal.take(own)
            won, lead = aim.reached(logits.cpu()), aim.margin(logits.cpu())
            better = lead > margin[open_]
            best[here[better]], margin[open_] = current[here[better]], torch.maximum(lead, margin[open_])
            if bool(won.any()):  # rounding may undo a success this near the boundary: only an 8-bit one ends the search
                sure = open_[won]
                fitted, holds = confirm(access, clean[sure], current[sure], rows[sure], self.norm, self.eps)
                held = sure[holds.cpu()]
                best[held], fell[held], margin[held] = fitted[holds], iteration, torch.inf
            if iteration < self.steps:
                moved = current[here] - clean[here] + self.step * steepest(gradient, self.norm)
                current[here] = (clean[here] + project(moved, self.norm, radius)).clamp(0, 1)
        return best.cpu(), fell, margin
