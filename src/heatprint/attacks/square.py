"""Square Attack: random search with squares, the strongest of the simple score attacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.attacks.access import LOSSES
from heatprint.attacks.parts.balls import check_radius, usable
from heatprint.attacks.parts.rounding import fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level
from heatprint.core.norms import length, project
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

HALVED_AT = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10 000 queries (section 5)
PUBLISHED = 10_000
BLOCK = 64  # queries whose random numbers are drawn together
TILES = 5  # the first L2 perturbation is a grid of so many tiles a side
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Square:
    """Recolours random squares and keeps what raises the loss (Andriushchenko, Croce, Flammarion, Hein 2020, alg. 1).

    In the maximum norm an image starts with vertical stripes one pixel wide at the corners of the ball, and each query
    sets one square to a random corner in each channel (section 3.3, alg. 2). In L2 it starts with a grid of 5 x 5
    bumps; each query takes the perturbation out of one window and puts it, with what the radius leaves unused, into
    another one, added to a pair of bumps of opposite signs (section 3.4, alg. 3, eq. 2). Every question is about an
    8-bit image inside the ball, so what is found survives being saved. An image is left alone once its goal is reached.

    Differs from the paper in three points: the margin is the loss of targeted goals too (the paper takes cross-entropy
    there); a square of the maximum norm that would change nothing has its signs turned round, lest a query be wasted;
    and in L2 the 8-bit image of a candidate decides, not the candidate itself.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; ``"8/255"`` is accepted. In the maximum norm it is rounded
            down to whole levels. 0 returns the image unchanged.
        norm: ``"linf"`` or ``"l2"``.
        queries: Forward passes per image at most, the starting point's included.
        share: First share of the image's pixels that a square covers, above 0 and up to 1 (p of the paper, which
            uses 0.05 to 0.8). It is halved at 10, 50, 200, 1000, 2000, 4000, 6000 and 8000 queries of 10 000, and
            at the same shares of other numbers of queries.
        loss: ``"margin"`` of the logits or ``"cross_entropy"``.

    The step of the result is the query of the success, 0 for the starting point.
    """

    eps: Level = 8 / 255
    norm: Literal["linf", "l2"] = "linf"
    queries: int = 5000
    share: float = 0.8
    loss: Literal["margin", "cross_entropy"] = "margin"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise InvalidInput(f"Square: norm = {self.norm!r} has no squares; write norm='linf' or norm='l2'.")
        check_radius("Square: eps", self.eps, self.norm)
        if self.loss not in LOSSES:
            raise InvalidInput(f"Square: loss = {self.loss!r} is unknown; write one of {sorted(LOSSES)}.")
        if self.queries < 1 or not 0 < self.share <= 1:
            raise InvalidInput(
                f"Square: queries = {self.queries} must be 1 or more, share = {self.share} above 0 and at most 1 "
                "(0.8 is a square over four fifths of the image)."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """Sees class scores only, iterative."""
        return Taxonomy(
            knowledge="score",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm=self.norm,
            paper="Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            out[rows], step[rows] = self._search(access, images[rows], rows, goal, streams)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=fit(images, out, self.norm, self.eps), step=step)

    def _search(
        self, access: Access, images: Tensor, rows: Tensor, goal: Goal, streams: Streams
    ) -> tuple[Tensor, Tensor]:
        """The best point found for each image, and the query at which it fell (-1: none)."""
        clean, radius = images.to(access.device), usable(self.eps, self.norm)
        current, draws = clean.clone(), torch.zeros((len(rows), BLOCK, 8), device=clean.device)
        best = torch.full((len(rows),), -torch.inf, device=clean.device)
        fell = torch.full((len(rows),), -1)
        for query in range(self.queries):
            open_ = (fell < 0).nonzero().squeeze(1)
            if not len(open_):
                break
            here, own = open_.to(clean.device), rows[open_]
            if query == 0:
                tried = _start(clean, [streams.of(int(row)) for row in own], self.norm, radius)
            else:
                block, place = divmod(query - 1, BLOCK)
                if place == 0:
                    drawn = [streams.of(int(row), 1 + block).random((BLOCK, 8), np.float32) for row in own]
                    draws[here] = torch.from_numpy(np.stack(drawn)).to(clean.device)
                tried = self._move(clean[here], current[here], draws[here, place], query, radius)
            shown = tried if self.norm == "linf" else fit(clean[here], tried, self.norm, radius)
            logits = access.logits(shown, own)
            aim = goal.take(own).to(logits.device)
            won, value = aim.reached(logits), LOSSES[self.loss](logits, aim)
            better = won | (value > best[here])
            current[here[better]], best[here[better]] = tried[better], value[better]
            fell[open_[won.cpu()]] = query
        return current.cpu(), fell

    def _move(self, clean: Tensor, current: Tensor, draws: Tensor, query: int, radius: float) -> Tensor:
        """The next candidates, from eight uniform numbers an image."""
        side = window_side(self.share_at(query), clean.shape[-1], odd=self.norm == "l2")
        return (_move_linf if self.norm == "linf" else _move_l2)(clean, current, draws, side, radius)

    def share_at(self, query: int) -> float:
        """Share of the image's pixels that the square of a query covers."""
        halvings = sum(query * PUBLISHED > at * self.queries for at in HALVED_AT)
        return math.ldexp(self.share, -halvings)


def window_side(share: float, side: int, *, odd: bool = False) -> int:
    """Side of the square nearest to a share of an image's pixels: 1 or more, or odd and 3 or more (section 3)."""
    exact = side * math.sqrt(share)
    if odd:
        return min(max(3, 2 * round((exact - 1) / 2) + 1), side)
    return min(max(1, round(exact)), side)


@cache
def bumps(side: int) -> Tensor:
    """Two bumps of opposite signs side by side, [side, side], of length 1 (eq. 2)."""
    half = side // 2
    parts = [sign * _bump(side, width) for sign, width in ((1, half), (-1, side - half)) if width]
    pair = torch.cat(parts, dim=1)
    return pair / pair.square().sum().sqrt()


def _bump(height: int, width: int) -> Tensor:
    """Concentric rectangles: at depth M from the edge the sum of 1 / (n + 1 - k)^2 over k = 0..M, n = height // 2."""
    n = height // 2
    row, column = (torch.arange(height) - n).abs(), (torch.arange(width) - width // 2).abs()
    depth = n - torch.maximum(row[:, None], column[None])
    levels: Tensor = (n + 1 - torch.arange(n + 1.0)).square().reciprocal().cumsum(0)
    return levels[depth]


def _start(clean: Tensor, rngs: list[np.random.Generator], norm: str, radius: float) -> Tensor:
    """Stripes, or a grid of bumps."""
    side = clean.shape[-1]
    shape = (3, 1, side) if norm == "linf" else (3, TILES, TILES)
    draws = torch.from_numpy(np.stack([rng.random(shape, np.float32) for rng in rngs])).to(clean.device)
    signs = _signs(draws)
    if norm == "linf":
        return _cornered(clean, signs, radius)
    tile = max(1, side // TILES)
    grid = signs.repeat_interleave(tile, 2).repeat_interleave(tile, 3) * bumps(tile).to(clean).repeat(TILES, TILES)
    before = (side - TILES * tile) // 2
    after = side - TILES * tile - before
    grid = F.pad(grid, (before, after, before, after))
    return (clean + radius * grid / length(grid, "l2").clamp_min(TINY).view(-1, 1, 1, 1)).clamp(0, 1)


def _signs(draws: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) as -1 or 1."""
    return 1 - 2 * (draws < 0.5).to(draws.dtype)


def _cornered(clean: Tensor, signs: Tensor, radius: float) -> Tensor:
    """The corners of the ball with these signs, on the lattice."""
    return ((clean * LEVELS).round() + signs * round(radius * LEVELS)).clamp(0, LEVELS) / LEVELS


def _window(draws: Tensor, side: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mask [M, 1, size, size] of a square placed by two uniform numbers an image, and its first row and column."""
    first = (draws * (size - side + 1)).long().clamp_max(size - side)
    span = torch.arange(size, device=draws.device) - first[:, :, None]
    inside = (span >= 0) & (span < side)
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], first[:, 0], first[:, 1]


def _move_linf(clean: Tensor, current: Tensor, draws: Tensor, side: int, radius: float) -> Tensor:
    """One square set to a random corner in each channel."""
    mask, _, _ = _window(draws[:, :2], side, clean.shape[-1])
    signs = _signs(draws[:, 2:5]).view(-1, 3, 1, 1)
    moved = torch.where(mask, _cornered(clean, signs, radius), current)
    idle = (moved == current).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(mask & idle, _cornered(clean, -signs, radius), moved)


def _move_l2(clean: Tensor, current: Tensor, draws: Tensor, side: int, radius: float) -> Tensor:
    """The mass of two windows, and what is unused, gathered in the first of them around a pair of bumps."""
    size, delta = clean.shape[-1], current - clean
    first, row, column = _window(draws[:, :2], side, size)
    second, _, _ = _window(draws[:, 2:4], side, size)
    unused = (radius**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
    held = (delta * (first | second)).square().sum((2, 3), keepdim=True)
    inside = delta * first
    inside = inside / inside.square().sum((2, 3), keepdim=True).sqrt().clamp_min(TINY)
    pair = bumps(side).to(clean)
    pair = torch.stack([pair, pair.T])[(draws[:, 7] < 0.5).long()]
    rows, columns = ((torch.arange(size, device=clean.device) - at[:, None]).clamp(0, side - 1) for at in (row, column))
    index = torch.arange(len(clean), device=clean.device).view(-1, 1, 1)
    shape = pair[index, rows[:, :, None], columns[:, None, :]][:, None] * first
    fresh = _signs(draws[:, 4:7]).view(-1, 3, 1, 1) * shape + inside
    fresh = fresh / fresh.square().sum((2, 3), keepdim=True).sqrt().clamp_min(TINY) * (held + unused / 3).sqrt()
    moved = torch.where(first, fresh, delta * ~second)
    return (clean + project(moved, "l2", radius)).clamp(0, 1)
