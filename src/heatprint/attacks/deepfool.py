"""DeepFool: step by step to the nearest of the boundaries, each taken to be flat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.parts.boundaries import boundaries, rivals
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

NUDGE = 1e-4  # logits beyond the boundary, lest a step end on it


@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """Walks to the nearest linearised boundary until it is crossed (Moosavi-Dezfooli et al. 2016, algorithm 2).

    In L2 a step is the projection onto the boundary (eq. 9), in the maximum norm the shortest change that reaches
    it (eq. 11 with p = inf). All images of a batch walk together; each stops when its goal is reached. Differs from
    the paper in that every iterate is clipped to [0, 1], that the overshoot is already part of each iterate, as in
    the authors' code, and in targeted goals, which the paper has not: there the one boundary is the target's with
    its best rival. Results are then brought to 8 bits by `heatprint.attacks.parts.rounding.settle`.

    Attributes:
        norm: ``"l2"`` or ``"linf"``: the distance that is kept small.
        steps: Most iterations, 1 or more.
        overshoot: How much farther than the boundary to go, as a share of the whole change, 0 or more (eta).
        classes: With more classes than this only so many leading ones, the label among them, are looked at; 2 or more.

    An iteration costs one forward and K backward passes. With a target that is one of each, with more than `classes`
    classes `classes` - 1 of each. The step of the result is the iteration that reached the goal. A criterion on the
    probability is only tested, never aimed at.
    """

    norm: Literal["l2", "linf"] = "l2"
    steps: int = 50
    overshoot: float = 0.02
    classes: int = 10

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "linf"):
            raise InvalidInput(f"DeepFool: norm = {self.norm!r} must be 'l2' or 'linf'.")
        if self.steps < 1 or not 0 <= self.overshoot <= 1 or self.classes < 2:
            raise InvalidInput(
                f"DeepFool: steps = {self.steps} must be 1 or more, overshoot = {self.overshoot} between 0 and 1 "
                f"(the paper's is 0.02), classes = {self.classes} 2 or more."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, minimal norm."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv:1511.04599",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            found, step[rows] = self._walk(access, images[rows], rows, goal)
            out[rows] = settle(access, images[rows], found, rows)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _walk(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The first image of each walk that reached the goal (else the last one), and its iteration (-1: none)."""
        clean = images.to(access.device)
        current = clean.clone()
        fell, open_ = torch.full((len(rows),), -1), torch.arange(len(rows))
        others = rivals(access, clean, rows, goal, self.classes)
        for iteration in range(self.steps + 1):
            here, own = open_.to(clean.device), rows[open_]
            if iteration == self.steps:
                won = goal.take(own).reached(access.logits(current[here], own).cpu())
                fell[open_[won]] = iteration
                break
            seen = boundaries(access, current[here], own, goal, None if others is None else others[here])
            won = goal.take(own).reached(seen.logits.cpu())
            fell[open_[won]] = iteration
            lead, gradient, distance = seen.nearest(self.norm)
            going = ~won & distance.isfinite().cpu()  # no slope anywhere: nothing more to be learned
            open_, on = open_[going], going.to(clean.device)
            if not len(open_):
                break
            here = open_.to(clean.device)
            # the iterate without its overshoot, plus the step, with the overshoot of the sum
            change = (current[here] - clean[here]) / (1 + self.overshoot) + self._step(lead[on], gradient[on])
            current[here] = (clean[here] + (1 + self.overshoot) * change).clamp(0, 1)
        return current.cpu(), fell

    def _step(self, lead: Tensor, gradient: Tensor) -> Tensor:
        """The shortest change that lifts the logits' difference by the lead."""
        size = gradient.abs().flatten(1).double()
        slope = (size.square() if self.norm == "l2" else size).sum(1).clamp_min(1e-30)
        factor = ((lead.abs() + NUDGE).double() / slope).to(gradient).view(-1, 1, 1, 1)
        return factor * (gradient if self.norm == "l2" else gradient.sign())
