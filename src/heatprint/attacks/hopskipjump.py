"""HopSkipJump: the strongest common attack that sees only the label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks.parts.balls import steepest
from heatprint.attacks.parts.decision import CHANNEL, bisect, find_start
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

BLOCK = 16  # probes of one image per question; a constant, so that sums do not depend on how many images are open
SHORTEST = 20  # halvings of a step after which it is given up


@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """Estimates the boundary's normal from labels of random probes, jumps, and bisects back (Chen et al. 2020, alg. 2).

    Each iteration starts at the boundary. The labels of probes in random directions give the direction of the gradient
    there (a Monte Carlo estimate with their baseline, which lowers its variance); a step of length distance / sqrt(t),
    halved until it lands on the adversarial side, leads away from the boundary, and a bisection back towards the image
    (their algorithm 1). The nearest image met is returned.

    Deviations from the paper: probes are at least 1e-4 sqrt(d) long and bisections end at the matching gap, because
    float32 networks answer nothing meaningful below that; and the start is drawn blindly, from noise, flat colours and
    the image's negative (the paper's targeted attack starts from an image of the target class, which this attack does
    not have). Where no drawn picture reaches the goal the attack fails with step -1, which says nothing about the
    classifier: expect that for most targets among several classes of a network, and not without a target or with two
    classes.

    The step of the result is the number of the drawn picture that reached the goal. With the defaults about 6,600 label
    queries are spent on an image.

    Attributes:
        norm: Norm that is minimised, ``"l2"`` or ``"linf"``.
        iterations: Estimates of the gradient, >= 1.
        probes: Probes of the first estimate, >= 1; iteration t takes probes * sqrt(t).
        tries: The most pictures drawn to find a start, >= 1.
    """

    norm: Literal["l2", "linf"] = "l2"
    iterations: int = 20
    probes: int = 100
    tries: int = 100

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "linf"):
            raise InvalidInput(f"HopSkipJump: norm = {self.norm!r} is not one it minimises. Write 'l2' or 'linf'.")
        if min(self.iterations, self.probes, self.tries) < 1:
            raise InvalidInput(
                f"HopSkipJump: iterations = {self.iterations}, probes = {self.probes} and tries = {self.tries} "
                "must be 1 or more."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """Label only, iterative, minimal norm."""
        return Taxonomy(
            knowledge="label",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Chen, Jordan, Wainwright 2020, arXiv:1904.02144",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del goal  # known to the access; a label is all that comes back
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            out[rows], step[rows] = find_start(access, images[rows], rows, streams, self.tries)
            started = rows[step[rows] >= 0]
            if len(started):
                found = self._approach(access, images[started], out[started], started, streams)
                out[started] = settle(access, images[started], found, started)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _approach(self, access: Access, images: Tensor, start: Tensor, rows: Tensor, streams: Streams) -> Tensor:
        """From a start that reaches the goal to the nearest image met, on the CPU."""
        clean = images.to(access.device)
        current = start.to(clean)
        current = bisect(access, clean, current, rows, self.norm, self._gap(current - clean))
        best, nearest = current.clone(), length(current - clean, self.norm)
        for iteration in range(1, self.iterations + 1):
            if bool(access.spent(rows).all()):
                break
            rngs = [streams.of(int(row), iteration) for row in rows]
            count = int(self.probes * math.sqrt(iteration))
            radius = _radius(current - clean)
            normal = _estimate(access, current, rows, radius, count, rngs)
            size = length(current - clean, self.norm) / math.sqrt(iteration)
            current = _jump(access, current, steepest(normal, self.norm), size, rows)
            current = bisect(access, clean, current, rows, self.norm, self._gap(current - clean))
            size = length(current - clean, self.norm)
            better = size < nearest
            best[better], nearest = current[better], torch.minimum(size, nearest)
        return best.cpu()

    def _gap(self, change: Tensor) -> Tensor:
        """How far beyond the boundary a bisection may end, [M]: small against the probes (their theta)."""
        root = math.sqrt(change[0].numel())
        return (_radius(change) / (root if self.norm == "l2" else root**2)).clamp_min(1e-6)


def _radius(change: Tensor) -> Tensor:
    """Length of the probes in L2, [M] (their delta)."""
    size = change[0].numel()
    return (length(change, "l2") / size).clamp_min(CHANNEL * math.sqrt(size))


def _estimate(
    access: Access, current: Tensor, rows: Tensor, radius: Tensor, count: int, rngs: list[np.random.Generator]
) -> Tensor:
    """Directions [M, 3, H, W] into the adversarial side, from the labels of `count` probes an image."""
    signed, plain = torch.zeros_like(current), torch.zeros_like(current)
    total = torch.zeros(len(rows), device=current.device)
    group = max(1, access.batch // BLOCK)
    for part in torch.split(torch.arange(len(rows)), group):
        here = part.to(current.device)
        for first in range(0, count, BLOCK):
            width = min(BLOCK, count - first)
            shape = (width, *current.shape[1:])
            drawn = np.stack([rngs[i].standard_normal(shape, dtype=np.float32) for i in part.tolist()])
            noise = torch.from_numpy(drawn).to(current).flatten(0, 1)
            noise = steepest(noise, "l2")
            probes = current[here].repeat_interleave(width, 0)
            probes = (probes + radius[here].repeat_interleave(width).view(-1, 1, 1, 1) * noise).clamp(0, 1)
            # clipped probes went elsewhere than drawn: weigh where they went
            went = (probes.view(len(part), *shape) - current[here][:, None]) / radius[here].view(-1, 1, 1, 1, 1)
            reached = access.reached(probes, rows[part].repeat_interleave(width))
            label = 2 * reached.to(current).view(len(part), width) - 1
            signed[here] += (label.view(len(part), width, 1, 1, 1) * went).sum(1)
            plain[here] += went.sum(1)
            total[here] += label.sum(1)
    mean = total / count
    # where all probes agree the baseline would cancel everything
    mean = torch.where(mean.abs() < 1, mean, 0.0).view(-1, 1, 1, 1)
    return signed - mean * plain


def _jump(access: Access, current: Tensor, direction: Tensor, size: Tensor, rows: Tensor) -> Tensor:
    """The longest of the halved steps that reaches the goal; the image itself where none does."""
    out, size = current.clone(), size.clone()
    open_ = torch.arange(len(rows))
    for _ in range(SHORTEST):
        if not len(open_):
            break
        here = open_.to(current.device)
        tried = (current[here] + size[here].view(-1, 1, 1, 1) * direction[here]).clamp(0, 1)
        fell = access.reached(tried, rows[open_])
        out[here[fell]] = tried[fell]
        size[here] /= 2
        open_ = open_[~fell.cpu()]
    return out
