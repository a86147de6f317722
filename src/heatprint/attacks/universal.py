"""One perturbation for all images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.balls import random_point, usable
from heatprint.attacks.parts.crossfit import clipped, crossed, fell, minibatches
from heatprint.attacks.parts.rounding import fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class Universal:
    """A single perturbation that fools the classifier on most images (Moosavi-Dezfooli et al. 2017).

    Fitted by projected stochastic gradient ascent on the clipped loss of small batches (Shafahi et al.
    2020), not by the paper's own loop over images. Deviations: the sign of the gradient is followed, and the
    start is random.

    The images attacked together are dealt into two halves by their ids, and each half gets the perturbation fitted on
    the other: nobody is judged on what it was fitted on. A single image gets the random start, fitted on nothing. An
    image's result depends on the images attacked with it. The step of the result is 0 where the perturbation
    reaches the goal, -1 elsewhere: there is one try.

    Attributes:
        eps: Radius in the maximum norm, pixel values in [0, 1], rounded down to whole levels; ``"10/255"`` is accepted.
            0 returns the images unchanged.
        step: Change of a channel in one step, likewise, above 0.
        epochs: Passes through each half, >= 1; each costs an image one gradient.
        minibatch: Images whose mean gradient is followed in one step, >= 1.
        clip: Cross-entropy in nats up to which an image counts, > 0.

    The trace has ``fold``, the half an image is in.
    """

    eps: Level = 10 / 255
    step: Level = 1 / 255
    epochs: int = 20
    minibatch: int = 16
    clip: float = 9.0

    def __post_init__(self) -> None:
        check_level("Universal: eps", self.eps)
        check_level("Universal: step", self.step)
        if min(self.epochs, self.minibatch) < 1 or not (self.clip > 0 and self.step > 0):
            raise InvalidInput(
                f"Universal: epochs = {self.epochs} and minibatch = {self.minibatch} must be 1 or more, "
                f"step = {self.step} and clip = {self.clip} above 0."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, one perturbation for a batch."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="linf",
            paper="Moosavi-Dezfooli, Fawzi, Fawzi, Frossard 2017, arXiv:1610.08401; Shafahi et al. 2020, "
            "arXiv:1811.11304",
            scope="batch",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del goal  # known to the access
        out, fold = images.clone(), torch.zeros(len(images), dtype=torch.long)

        def fitted(rows: Tensor, draws: int) -> Tensor:
            return self._fit(access, images, rows, streams, draws)

        for number, rows, change in crossed(streams, len(images), fitted, progress):
            fold[rows] = number
            out[rows] = fit(images[rows], (images[rows] + change).clamp(0, 1), "linf", self.eps)
        step = fell(access, out).long() - 1
        return Perturbed(images=out, step=step, trace={"fold": fold})

    def _fit(self, access: Access, images: Tensor, rows: Tensor, streams: Streams, draws: int) -> Tensor:
        """A perturbation [3, H, W] in whole levels, fitted on `rows`."""
        radius, loss = usable(self.eps, "linf"), clipped(self.clip)
        change = random_point(streams.of(draws, 2), tuple(images.shape[1:]), "linf", radius).to(access.device)
        for epoch in range(self.epochs):
            for some in minibatches(rows, streams, epoch, self.minibatch):
                total = torch.zeros_like(change)
                for part in torch.split(some, access.batch):
                    tried = (images[part].to(change) + change).clamp(0, 1)
                    total += access.gradient(tried, part, loss)[0].sum(0)
                change = (change + self.step * total.sign()).clamp(-radius, radius)
        return (change * LEVELS).round().cpu() / LEVELS
