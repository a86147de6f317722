"""Projected gradient descent in the maximum norm: the strong attack beside the paper's weak ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level, whole_levels
from heatprint.core.norms import project
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Steps along the sign of the refreshed gradient, back into the eps-ball after each (Madry et al. 2018, eq. 1).

    With ``random_start=False`` it is BIM (Kurakin et al. 2017). It stops working on an image once its goal is
    reached. The step of the result is that iteration, counted from 1.

    Attributes:
        eps: Radius in the maximum norm, pixel values in [0, 1], rounded down to whole levels; 0 returns the
            image unchanged.
        step: Length of one step.
        steps: Iterations.
        random_start: Start at a random point of the ball.
        loss: ``"margin"`` of the logits (never saturates) or ``"cross_entropy"``.
    """

    eps: Level = 8 / 255
    step: Level = 2 / 255
    steps: int = 20
    random_start: bool = True
    loss: Literal["margin", "cross_entropy"] = "margin"

    def __post_init__(self) -> None:
        check_level("PGD: eps", self.eps)
        check_level("PGD: step", self.step)
        if self.steps < 1:
            raise InvalidInput(f"PGD: steps must be 1 or more, got {self.steps}.")

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="linf",
            paper="Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            start = torch.stack([self._start(streams, int(row), images) for row in rows])
            out[rows], step[rows] = self._climb(access, images[rows], start, rows, goal)
            progress(int(rows[-1]) + 1, len(images), f"{int((step > 0).sum())} flipped")
        return Perturbed(images=out, step=step)

    def _start(self, streams: Streams, row: int, images: Tensor) -> Tensor:
        if not self.random_start:
            return torch.zeros(images.shape[1:])
        radius = whole_levels(self.eps) / LEVELS
        noise = streams.of(row).uniform(-radius, radius, tuple(images.shape[1:]))
        return torch.from_numpy(noise.astype(np.float32))

    def _climb(self, access: Access, images: Tensor, start: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The attacked images of some rows, and the iteration at which each fell (-1: none)."""
        clean = images.to(access.device)
        radius = whole_levels(self.eps) / LEVELS  # so that rounding to 8 bits cannot leave the ball
        current = (clean + start.to(clean)).clamp(0, 1)
        fell = torch.full((len(rows),), -1)
        for iteration in range(self.steps + 1):
            open_ = (fell < 0).nonzero().squeeze(1)
            if not len(open_):
                break
            here = open_.to(clean.device)
            gradient, logits = access.gradient(current[here], rows[open_], self.loss)
            done = goal.take(rows[open_]).reached(logits.cpu())
            fell[open_[done]] = iteration
            if iteration == self.steps:
                break
            going = ~done.to(here.device)
            moved = current[here[going]] + self.step * gradient[going].sign()
            origin = clean[here[going]]
            current[here[going]] = (origin + project(moved - origin, "linf", radius)).clamp(0, 1)
        return current.cpu(), fell
