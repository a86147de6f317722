"""Sign steps along a grey, blurred gradient: BIM for those who look for its traces in colours and fine detail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from heatprint.attacks.parts.balls import usable
from heatprint.attacks.parts.rounding import confirm, fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level
from heatprint.core.norms import project
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class SmoothSign:
    """Steps of one 8-bit level along sign(blur(mean over channels of the gradient)), until the label changes.

    BIM (Kurakin et al. 2017) restricted to grey, smooth perturbations: it leaves the differences of the colour
    channels and most of the finest detail as they were, where detectors look first. The step of the result is the
    iteration of the success. Low-frequency perturbations are those of Guo, Frank and Weinberger 2019
    (arXiv:1809.08758).

    Attributes:
        eps: Radius in the maximum norm, pixel values in [0, 1], rounded down to whole levels; 0 changes nothing.
        steps: Iterations, each of one level.
        width: Side of the square over which the gradient is averaged, odd; 1 leaves it sharp.
    """

    eps: Level = 8 / 255
    steps: int = 12
    width: int = 3

    def __post_init__(self) -> None:
        check_level("SmoothSign: eps", self.eps)
        if self.steps < 1 or self.width < 1 or self.width % 2 == 0:
            raise InvalidInput(
                f"SmoothSign: steps = {self.steps} must be 1 or more, width = {self.width} odd, such as 3."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative, maximum norm."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="linf",
            paper="Guo, Frank, Weinberger 2019, arXiv:1809.08758 (low-frequency steps of Kurakin et al. 2017)",
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
        """The last image of each, on the CPU, and the iteration at which it fell (-1: it stands)."""
        clean, radius = images.to(access.device), usable(self.eps, "linf")
        current, fell = clean.clone(), torch.full((len(rows),), -1)
        for iteration in range(1, self.steps + 1):
            open_ = (fell < 0).nonzero().squeeze(1)
            here, own = open_.to(clean.device), rows[open_]
            if not len(open_):
                break
            gradient, _ = access.gradient(current[here], own, "margin")
            moved = current[here] - clean[here] + self._smooth(gradient).sign() / LEVELS
            current[here] = (clean[here] + project(moved, "linf", radius)).clamp(0, 1)
            fitted, reached = confirm(access, clean[here], current[here], own, "linf", self.eps)
            held = open_[reached.cpu()]
            current[held.to(clean.device)], fell[held] = fitted[reached], iteration
        return current.cpu(), fell

    def _smooth(self, gradient: Tensor) -> Tensor:
        grey = gradient.mean(1, keepdim=True)
        blurred = F.avg_pool2d(grey, self.width, stride=1, padding=self.width // 2, count_include_pad=False)
        return blurred.expand_as(gradient)
