"""Auto-PGD: projected gradient descent whose step size finds itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import check_radius, random_point, steepest, usable
from heatprint.attacks.parts.losses import LossName, named, towards
from heatprint.attacks.parts.rounding import confirm, fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level
from heatprint.core.norms import project
from heatprint.core.protocols import Access, Loss, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

FIRST, LEAST, SHRINK = 0.22, 0.06, 0.03  # first period, shortest period, and by how much each is shorter
RISES = 0.75  # share of steps in a period that must raise the loss for the step size to be kept (rho)
MOMENTUM = 0.75  # weight of the new step (alpha)


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Ascent with momentum; steps of 2 eps that are halved when progress stalls (Croce and Hein 2020, algorithm 1).

    At checkpoints, an image whose loss rose in too few steps, or whose best loss and step size are those of the
    checkpoint before, goes on from its best point with half the step. Differs from the paper in three ways: the
    first start is the clean image, so that the first iterate is exactly the one-step FGSM image and the attack is
    never weaker than that (later starts are random points of the ball); the cross-entropy is the goal's, whose
    gradient does not vanish; and an image is finished as soon as its 8-bit form reaches the goal. One that stands
    is returned at the iterate with the largest margin.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; ``"8/255"`` is accepted. In the maximum norm it is rounded
            down to whole levels. 0 returns the image unchanged.
        norm: ``"linf"`` or ``"l2"``.
        steps: Iterations of one start, 1 or more; one gradient each.
        restarts: Starts in all, 1 or more, for images that stand.
        loss: ``"cross_entropy"``; ``"margin"``, the difference of logits, right for any number of classes; or
            ``"dlr"``, that difference in units of the logits' spread (eqs. 6 and 7), which needs 3 classes, with a
            target 4.
        target_classes: With an untargeted goal: aim at this many other classes one after another, the most likely
            on the clean image first, each with all restarts, at most all others (APGD-T). ``"margin"`` and ``"dlr"``
            are then taken between the class aimed at and the label, ``"dlr"`` without its unit below 4 classes. 0
            aims at none. A targeted goal has its one class and ignores this.

    The step of the result is the iteration of the success, counted on through restarts and classes.
    """

    eps: Level = 8 / 255
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 100
    restarts: int = 1
    loss: LossName = "cross_entropy"
    target_classes: int = 0

    def __post_init__(self) -> None:
        check_radius("APGD: eps", self.eps, self.norm)
        if self.norm not in ("linf", "l2") or self.loss not in ("cross_entropy", "margin", "dlr"):
            raise InvalidInput(
                f"APGD: norm = {self.norm!r} must be 'linf' or 'l2', loss = {self.loss!r} 'cross_entropy', "
                "'margin' or 'dlr'."
            )
        if self.steps < 1 or self.restarts < 1 or self.target_classes < 0:
            raise InvalidInput(
                f"APGD: steps = {self.steps} and restarts = {self.restarts} must be 1 or more, "
                f"target_classes = {self.target_classes} 0 or more."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Croce, Hein 2020, arXiv:2003.01690",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`.

        Raises:
            InvalidInput: The loss needs more classes than the classifier has.
        """
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            best = torch.full((len(rows),), -torch.inf)
            starts = product(self._aims(access, images[rows], rows, goal), range(self.restarts))
            for number, (aims, restart) in enumerate(starts):
                open_ = ((step[rows] < 0) & ~access.spent(rows)).nonzero().squeeze(1)
                if not len(open_):
                    break
                here = rows[open_]
                run = _Run(access, images[here], here, goal, self)
                run.climb(self._start(images[here], here, streams, restart), None if aims is None else aims[open_])
                better = run.margin > best[open_]
                out[here[better]], best[open_[better]] = run.best[better.to(run.best.device)].cpu(), run.margin[better]
                step[here] = torch.where(run.fell >= 0, run.fell + number * self.steps, -1)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=fit(images, out, self.norm, self.eps), step=step)

    def loss_of(self, classes: int, goal: Goal, aims: Tensor | None) -> Loss:
        """What is raised: by the goal itself, or towards the classes `aims`, one per image asked about."""
        if aims is None:
            return named(self.loss, classes, targeted=goal.targeted, who="APGD")
        return towards(self.loss, aims, classes)

    def _aims(self, access: Access, images: Tensor, rows: Tensor, goal: Goal) -> list[Tensor | None]:
        """The classes to aim at, one after another, int64 [N] each; a single None leaves the aim to the goal."""
        count = min(self.target_classes, access.classes - 1)
        if goal.targeted or not count:
            return [None]
        logits = access.logits(images.to(access.device), rows).cpu()
        others = logits.scatter(1, goal.take(rows).labels[:, None], -torch.inf)
        return list(others.topk(count, dim=1).indices.unbind(1))

    def _start(self, images: Tensor, rows: Tensor, streams: Streams, restart: int) -> Tensor:
        """The clean images first, then random points of the ball."""
        if not restart:
            return images
        radius, shape = usable(self.eps, self.norm), tuple(images.shape[1:])
        points = [random_point(streams.of(int(row), restart), shape, self.norm, radius) for row in rows]
        return (images + torch.stack(points)).clamp(0, 1)


@dataclass
class _State:
    """The images of a start that still stand, on the device: row i of every tensor belongs to one image."""

    place: Tensor
    clean: Tensor
    current: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor
    top: Tensor  # the iterate of the highest loss, with its gradient and loss
    top_gradient: Tensor
    top_value: Tensor
    size: Tensor  # of a step
    rises: Tensor  # steps since the last checkpoint that raised the loss
    size_then: Tensor  # step size and best loss at the last checkpoint
    top_then: Tensor

    @classmethod
    def begin(cls, clean: Tensor, start: Tensor, size: float) -> _State:
        """Before the first question."""
        count = len(clean)
        low, steps = clean.new_full((count,), -torch.inf), clean.new_full((count,), size)
        image = (start, start.clone(), torch.zeros_like(clean))
        return cls(
            torch.arange(count, device=clean.device), clean, *image, low, start.clone(), torch.zeros_like(clean),
            low.clone(), steps, torch.zeros_like(low), steps.clone(), low.clone(),
        )  # fmt: skip

    def keep(self, mask: Tensor) -> None:
        """Forget all but some images."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[mask])

    def see(self, value: Tensor, gradient: Tensor | None) -> None:
        """Take in the loss and its gradient at the current iterates."""
        self.rises += value > self.value
        self.value = value
        better = value > self.top_value
        self.top_value = torch.where(better, value, self.top_value)
        self.top[better] = self.current[better]
        if gradient is not None:
            self.gradient = gradient
            self.top_gradient[better] = gradient[better]

    def check(self, period: int) -> None:
        """A checkpoint: stalled images go back to their best point and take half the step."""
        unchanged = (self.size == self.size_then) & (self.top_value == self.top_then)
        self.size_then, self.top_then = self.size, self.top_value
        stalled = (self.rises < RISES * period) | unchanged
        self.size = torch.where(stalled, self.size / 2, self.size)
        self.value = torch.where(stalled, self.top_value, self.value)
        where = stalled.view(-1, 1, 1, 1)
        self.current = torch.where(where, self.top, self.current)
        self.gradient = torch.where(where, self.top_gradient, self.gradient)
        self.rises = torch.zeros_like(self.rises)

    def move(self, norm: Literal["linf", "l2"], radius: float, first: bool) -> None:
        """One step with momentum; the first has none."""
        step = self.size.view(-1, 1, 1, 1) * steepest(self.gradient, norm)
        target = self._back(self.current + step, norm, radius)
        if not first:
            drift = MOMENTUM * (target - self.current) + (1 - MOMENTUM) * (self.current - self.previous)
            target = self._back(self.current + drift, norm, radius)
        self.previous, self.current = self.current, target

    def _back(self, images: Tensor, norm: Literal["linf", "l2"], radius: float) -> Tensor:
        return (self.clean + project(images - self.clean, norm, radius)).clamp(0, 1)


class _Run:
    """One start of some images, and what it found: the best image of each, its margin, and when it fell (-1: never)."""

    def __init__(self, access: Access, images: Tensor, rows: Tensor, goal: Goal, how: APGD) -> None:
        self._access, self._rows, self._goal, self._how = access, rows, goal, how
        self._clean = images.to(access.device)
        self.best = self._clean.clone()
        self.margin = torch.full((len(rows),), -torch.inf)
        self.fell = torch.full((len(rows),), -1)

    def climb(self, start: Tensor, aims: Tensor | None) -> None:
        """Ascend from `start`, towards the classes `aims` if there are any."""
        how, radius = self._how, usable(self._how.eps, self._how.norm)
        state = _State.begin(self._clean, start.to(self._clean), 2 * radius)
        checkpoints, last = set(periods(how.steps)), 0
        for iteration in range(how.steps + 1):
            place = state.place.cpu()
            own = self._rows[place]
            loss = how.loss_of(self._access.classes, self._goal, None if aims is None else aims[place])
            if iteration < how.steps:
                gradient, logits = self._access.gradient(state.current, own, loss)
                state.see(loss(logits, self._goal.take(own).to(logits.device)), gradient)
            else:
                logits = self._access.logits(state.current, own)
            standing = self._note(state.current, place, logits.cpu(), iteration)
            if iteration == how.steps or not bool(standing.any()):
                break
            if not bool(standing.all()):
                state.keep(standing.to(state.value.device))
            if iteration in checkpoints:
                state.check(iteration - last)
                last = iteration
            state.move(how.norm, radius, first=not iteration)

    def _note(self, current: Tensor, place: Tensor, logits: Tensor, iteration: int) -> Tensor:
        """Keep the better ones of the current images; which stand and may be asked about, bool on the CPU."""
        aim = self._goal.take(self._rows[place])
        lead, standing = aim.margin(logits), ~self._access.spent(self._rows[place])
        better = lead > self.margin[place]
        self.best[place[better].to(current.device)] = current[better.to(current.device)]
        self.margin[place] = torch.maximum(lead, self.margin[place])
        won = aim.reached(logits).nonzero().squeeze(1)
        if len(won):
            there, how = place[won], self._how
            images, found = self._clean[there.to(current.device)], current[won.to(current.device)]
            fitted, sure = confirm(self._access, images, found, self._rows[there], how.norm, how.eps)
            fallen = there[sure.cpu()]
            self.best[fallen.to(current.device)] = fitted[sure]
            self.margin[fallen], self.fell[fallen] = torch.inf, iteration
            standing[won[sure.cpu()]] = False
        return standing


def periods(steps: int) -> list[int]:
    """The checkpoints: iterations at which step sizes are reviewed: the published ones, without the 0."""
    out, before, at = [], 0.0, FIRST
    while at <= 1:
        out.append(math.ceil(round(at * steps, 6)))  # 0.57 is no binary fraction
        before, at = at, at + max(at - before - SHRINK, LEAST)
    return out
