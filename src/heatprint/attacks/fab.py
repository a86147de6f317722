"""Fast adaptive boundary: a minimal-norm attack that stays near the clean image while it follows the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import BallNorm, check_radius, random_point
from heatprint.attacks.parts.boundaries import boundaries, onto_plane, rivals
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level
from heatprint.core.norms import length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

SEARCH = 3  # steps of the final search, as published


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Mixes the projections of iterate and clean image onto the nearest flat boundary (Croce and Hein 2020, alg. 1).

    Projections are onto the linearised boundary within [0, 1], and exact. An iterate that reaches the goal is
    kept if it is the nearest so far and drawn back towards the clean image; in the end the segment between the clean
    image and the best one is searched, and the result brought to 8 bits by
    `heatprint.attacks.parts.rounding.settle`. Targeted goals have one boundary, the target's with its best rival; the
    paper's targeted variant fixes the pair of label and target instead, which need not make the target win.

    Attributes:
        norm: ``"linf"``, ``"l2"`` or ``"l1"``: the distance to make small.
        steps: Iterations of one start, 1 or more (n_iter).
        restarts: Starts in all, 1 or more. The first is the clean image, later ones are at random points around it at
            half the distance of the best image so far.
        eps: Later starts are at most half as far as this; None leaves that to the best image so far. Not a budget:
            results are as near as they can be made, be it within `eps` or beyond.
        alpha_max: Greatest weight of the clean image's projection, in [0, 1].
        eta: Overshoot beyond the boundary, 1 or more; 1 has none.
        beta: Share of its change that an iterate keeps once it has reached the goal, in (0, 1).
        classes: With more classes than this only so many leading ones, the label among them, are looked at; 2 or more.

    An iteration costs two forward and K backward passes. With a target that is one backward pass; with more than
    `classes` classes it is `classes` forward and one less backward ones. The step of the result is the first
    iteration that reached the goal, counted on through restarts.
    """

    norm: BallNorm = "linf"
    steps: int = 100
    restarts: int = 1
    eps: Level | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    classes: int = 10

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2", "l1"):
            raise InvalidInput(f"FAB: norm = {self.norm!r} must be 'linf', 'l2' or 'l1'.")
        if self.eps is not None:
            check_radius("FAB: eps", self.eps, self.norm)
        if self.steps < 1 or self.restarts < 1 or self.classes < 2:
            raise InvalidInput(
                f"FAB: steps = {self.steps} and restarts = {self.restarts} must be 1 or more, "
                f"classes = {self.classes} 2 or more."
            )
        if not (0 <= self.alpha_max <= 1 and 1 <= self.eta < math.inf and 0 < self.beta < 1):
            raise InvalidInput(
                f"FAB: alpha_max = {self.alpha_max} must be between 0 and 1, eta = {self.eta} 1 or more, "
                f"beta = {self.beta} between 0 and 1; the paper has 0.1, 1.05 and 0.9."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, minimal norm."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Croce, Hein 2020, arXiv:1907.02044",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            search = _Search(access, images[rows], rows, goal, self)
            for restart in range(self.restarts):
                search.walk(search.start(streams, restart), restart * self.steps)
            search.refine()
            out[rows], step[rows] = settle(access, images[rows], search.best.cpu(), rows), search.step
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)


class _Search:
    """A batch of images on the device, with the nearest image found for each that reaches the goal.

    While there is none, `best` is the attempt with the largest margin.
    """

    def __init__(self, access: Access, images: Tensor, rows: Tensor, goal: Goal, how: FAB) -> None:
        self._access, self._rows, self._goal, self._how = access, rows, goal, how
        self._clean = images.to(access.device)
        self._others = rivals(access, self._clean, rows, goal, how.classes)
        self.best = self._clean.clone()
        self._size = self._clean.new_full((len(rows),), torch.inf)  # of the change to `best`, once that reaches it
        self._margin = torch.full_like(self._size, -torch.inf)
        self.step = torch.full((len(rows),), -1)

    def start(self, streams: Streams, restart: int) -> Tensor:
        """The clean images first; then random points at half the distance of what was found."""
        if not restart:
            return self._clean.clone()
        norm, shape = self._how.norm, tuple(self._clean.shape[1:])
        points = torch.stack([random_point(streams.of(int(row), restart), shape, norm, 1.0) for row in self._rows])
        points = points.to(self._clean)
        # the best attempt may have failed; it still tells how far is far for this image
        radius = length(self.best - self._clean, norm)
        if self._how.eps is not None:
            radius = radius.clamp_max(self._how.eps)
        return (self._clean + _times(radius / 2 / length(points, norm).clamp_min(1e-12), points)).clamp(0, 1)

    def walk(self, current: Tensor, done: int) -> None:
        """One start; `done` iterations came before it."""
        how, open_ = self._how, torch.arange(len(self._rows))
        for iteration in range(how.steps):
            here, own = open_.to(current.device), self._rows[open_]
            others = None if self._others is None else self._others[here]
            seen = boundaries(self._access, current[here], own, self._goal, others)
            lead, gradient, distance = seen.nearest(how.norm)
            sloped = distance.isfinite() & ~self._access.spent(own).to(here.device)  # else nothing is to be learned
            open_, here = open_[sloped.cpu()], here[sloped]
            if not len(open_):
                break
            current[here] = self._mixed(current[here], self._clean[here], lead[sloped], gradient[sloped])
            won = self._note(current[here], here, done + iteration)
            drawn = self._clean[here] + how.beta * (current[here] - self._clean[here])
            current[here] = torch.where(won.view(-1, 1, 1, 1), drawn, current[here])

    def _mixed(self, current: Tensor, clean: Tensor, lead: Tensor, gradient: Tensor) -> Tensor:
        """The next iterates: both projections, each with its overshoot, weighed by how far they are."""
        how = self._how
        from_clean = lead + ((current - clean) * gradient).flatten(1).sum(1)
        change = onto_plane(current, gradient, lead, how.norm)
        direct = onto_plane(clean, gradient, from_clean, how.norm)
        size, whole = length(change, how.norm), length(direct, how.norm)
        weight = (size / (size + whole).clamp_min(1e-12)).clamp_max(how.alpha_max)
        mixed = _times(1 - weight, current + how.eta * change) + _times(weight, clean + how.eta * direct)
        return mixed.clamp(0, 1)

    def _note(self, images: Tensor, here: Tensor, iteration: int) -> Tensor:
        """Look at some iterates and keep the better ones; which reach the goal, bool [M]."""
        own = self._rows[here.cpu()]
        logits = self._access.logits(images, own)
        aim = self._goal.take(own).to(logits.device)
        won, margin = aim.reached(logits), aim.margin(logits)
        size = torch.where(won, length(images - self._clean[here], self._how.norm), torch.inf)
        better = (size < self._size[here]) | (self._size[here].isinf() & (margin > self._margin[here]))
        self.best[here[better]] = images[better]
        self._size[here] = torch.minimum(size, self._size[here])
        self._margin[here[better]] = margin[better]
        fresh = here[won].cpu()
        self.step[fresh] = torch.where(self.step[fresh] < 0, iteration, self.step[fresh])
        return won

    def refine(self) -> None:
        """The final search: where the margin, were it linear, would be 0 between the clean image and the best one."""
        here = self._size.isfinite().nonzero().squeeze(1)
        if not len(here):
            return
        own = self._rows[here.cpu()]
        aim = self._goal.take(own).to(here.device)
        clean, best = self._clean[here], self.best[here]
        low, high = torch.zeros_like(self._size[here]), torch.ones_like(self._size[here])
        sure = aim.criterion.margin
        below = aim.margin(self._access.logits(clean, own)) - sure
        above = self._margin[here] - sure
        for _ in range(SEARCH):
            # the 1.05 errs on the far side, where the goal is reached and the bracket shrinks from above
            share = (1.05 * -below / (above - below).clamp_min(1e-12)).clamp(0.05, 0.95)
            tried = low + share * (high - low)
            images = clean + _times(tried, best - clean)
            logits = self._access.logits(images, own)
            won, margin = aim.reached(logits), aim.margin(logits) - sure
            high, above = torch.where(won, tried, high), torch.where(won, margin, above)
            low, below = torch.where(won, low, tried), torch.where(won, below, margin.clamp_max(0))
        self.best[here] = clean + _times(high, best - clean)


def _times(factors: Tensor, images: Tensor) -> Tensor:
    return factors.view(-1, 1, 1, 1) * images
