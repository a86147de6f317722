"""The walk all adaptive attacks share: steps of one 8-bit level, and the least suspicious image met on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.lattice import LEVELS, Level, check_level, to_images, whole_levels
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.detectors.features.table import CHUNK
from heatprint.evaluation.adaptive.guarded import Guarded, fools

MOMENTUM = 0.7

Direction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From images [M, 3, H, W], labels [M] and rows [M] in the batch to what is to be stepped down, [M, 3, H, W]."""

Judge = Callable[[Tensor], np.ndarray]
"""From images uint8 [M, 3, H, W] to how suspicious each is, float64 [M], asked of the real detector."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaded:
    """What an adaptive attack found.

    Attributes:
        pixels: uint8 [N, 3, H, W], on the CPU; the image itself where nothing fooled the classifier.
        fooled: bool [N], whether the classifier is wrong about it.
        extras: Numbers of its own for the table.
    """

    pixels: Tensor
    fooled: Tensor
    extras: dict[str, Any] = field(default_factory=dict)


class Adaptive(Protocol):
    """An attack on a classifier and its detector together."""

    @property
    def eps(self) -> float:
        """Radius in the maximum norm."""
        ...

    def perturb(self, guarded: Guarded, batch: Batch, *, seed: int, progress: Progress) -> Evaded:
        """Changed copies of images that the classifier gets right, within `eps` of them, in 8 bits."""
        ...


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Steps of one 8-bit level along the sign of a gradient with momentum, within a ball of the maximum norm.

    Every image on the way lies on the 8-bit lattice, so what is measured is what is saved. It begins with plain steps
    on the classifier until that is wrong by `margin`. Every few steps the real detector is asked, and of all images
    that fool the classifier the least suspicious is kept.

    Attributes:
        eps: Radius, pixel values in [0, 1], rounded down to whole levels.
        begin: Plain steps at the most, 0 or more.
        steps: Steps against the detector at the most, 1 or more.
        every: Steps between two questions to the real detector, 1 or more.
        margin: Lead in logits that the wrong answer is to have.
    """

    eps: Level = 8 / 255
    begin: int = 6
    steps: int = 12
    every: int = 3
    margin: float = 2.0

    def __post_init__(self) -> None:
        check_level("Walk: eps", self.eps)
        if self.begin < 0 or self.steps < 1 or self.every < 1 or not self.margin >= 0:
            raise InvalidInput(
                f"Walk: begin = {self.begin} must be 0 or more, steps = {self.steps} and every = {self.every} 1 or "
                f"more, margin = {self.margin} 0 or more."
            )

    def run(
        self, guarded: Guarded, batch: Batch, direction: Direction, judge: Judge, *, enough: float, progress: Progress
    ) -> Evaded:
        """Walk with all images, a few at a time.

        Args:
            guarded: Whom to fool.
            batch: Images the classifier gets right.
            direction: Where to go.
            judge: What is kept.
            enough: How little suspicion lets an image rest.
            progress: Told how far it is.
        """
        found, fooled = batch.pixels.clone(), torch.zeros(len(batch), dtype=torch.bool)
        for rows in torch.split(torch.arange(len(batch)), CHUNK):
            one = _Few(guarded.classifier, batch, rows, self)
            one.walk(direction, judge, enough)
            found[rows], fooled[rows] = one.best, one.suspicion.isfinite()
            progress(int(rows[-1]) + 1, len(batch), f"{int(fooled.sum())} fool the classifier")
        return Evaded(pixels=found, fooled=fooled)


class _Few:
    """A few images on their way."""

    def __init__(self, classifier: Classifier, batch: Batch, rows: Tensor, how: Walk) -> None:
        self._classifier, self._rows, self._how = classifier, rows, how
        self._clean = batch.pixels[rows].to(classifier.device)
        self._labels = batch.labels[rows].to(classifier.device)
        self._current = self._clean.clone()
        self.best = batch.pixels[rows].clone()
        self.suspicion = torch.full((len(rows),), torch.inf, dtype=torch.float64)

    def walk(self, direction: Direction, judge: Judge, enough: float) -> None:
        """From plain steps to hidden ones."""
        for _ in range(self._how.begin):
            open_ = (self._margin() < self._how.margin).nonzero().squeeze(1)
            self._step(open_, -self._classifier_gradient(open_))
        open_ = torch.arange(len(self._rows), device=self._clean.device)
        speed = torch.zeros_like(self._clean, dtype=torch.float32)
        for step in range(self._how.steps + 1):
            if step % self._how.every == 0 or step == self._how.steps:
                self._ask(open_, judge)
                open_ = open_[(self.suspicion[open_.cpu()] > enough).to(open_.device)]
            if step == self._how.steps or not len(open_):
                return
            down = direction(to_images(self._current[open_]), self._labels[open_], self._rows[open_.cpu()])
            speed[open_] = MOMENTUM * speed[open_] + unit(down)
            self._step(open_, speed[open_])

    def _ask(self, open_: Tensor, judge: Judge) -> None:
        pixels, here = self._current[open_].cpu(), open_.cpu()
        wrong = fools(self._classifier, pixels, self._labels[open_])
        found = torch.from_numpy(judge(pixels))  # those that do not fool teach the stand-in, too
        better = wrong & (found < self.suspicion[here])
        self.best[here[better]], self.suspicion[here[better]] = pixels[better], found[better]

    def _step(self, open_: Tensor, down: Tensor) -> None:
        levels, clean = whole_levels(self._how.eps), self._clean[open_].to(torch.int16)
        moved = self._current[open_].to(torch.int16) - down.sign().to(torch.int16)
        moved = torch.minimum(torch.maximum(moved, clean - levels), clean + levels)
        self._current[open_] = moved.clamp(0, LEVELS).to(torch.uint8)

    def _margin(self) -> Tensor:
        with torch.no_grad():
            return untargeted(self._labels).margin(self._classifier(to_images(self._current)))

    def _classifier_gradient(self, open_: Tensor) -> Tensor:
        images = to_images(self._current[open_]).requires_grad_()
        margin = untargeted(self._labels[open_]).margin(self._classifier(images))
        return torch.autograd.grad(margin.sum(), images)[0]


def unit(gradient: Tensor) -> Tensor:
    """A gradient whose mean size is 1, image by image; 0 stays 0."""
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)


def shortfall(logits: Tensor, labels: Tensor, margin: float) -> Tensor:
    """What the wrong answer's lead still lacks, [N], 0 or more."""
    return (margin - untargeted(labels).margin(logits)).clamp_min(0)
