"""Which cells of a feature map a change can have reached, candidate by candidate.

A `Window` lists the active cells of many candidates at once. Rows of values go with it: row r of a tensor [R, C]
belongs to active cell r, and row 0 is always zero, so that "no active cell here" is a row like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.models.sparse import kernels

Pair = tuple[int, int]
BORDER = 2  # cells of nothing round every window: enough for a 3x3 kernel to look beyond its edge


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How an operation reads its input: kernel, stride, padding and dilation, each (vertical, horizontal)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def taps(self) -> int:
        """Input cells per output cell."""
        return self.kernel[0] * self.kernel[1]

    @property
    def array(self) -> np.ndarray:
        """The four pairs as int64 [4, 2]."""
        return np.array([self.kernel, self.stride, self.padding, self.dilation])

    @property
    def pointwise(self) -> bool:
        """Whether each output cell reads just the input cell at its own place."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)

    def span(self, first: Tensor, last: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The first and last output position that read any of the input positions first..last."""
        back = self.padding[axis] - self.dilation[axis] * (self.kernel[axis] - 1)
        step = self.stride[axis]
        return -(-(first + back)).div(step, rounding_mode="floor"), (last + self.padding[axis]).div(
            step, rounding_mode="floor"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Active cells of M candidates on a map of H x W cells.

    For one changed pixel they form a rectangle on every map, and `local` is a rectangle just as large as needed,
    anchored anew for each candidate. For several pixels it is the whole map.

    Attributes:
        local: int64 [M, h + 2 B, w + 2 B], the row of each cell of a rectangle of h x w cells, 0 where inactive; the
            border of B zeros lets neighbours be looked up without asking whether they exist.
        anchor: int64 [M, 2], map position of the rectangle's first cell, possibly negative.
        single: Whether every candidate changed one pixel.
        where: int64 [3, R], the candidate, map row and map column of each row's cell; zeros for row 0. Rows come
            candidate by candidate.
        side: (H, W) of the map.
    """

    local: Tensor
    anchor: Tensor
    single: bool
    where: Tensor
    side: Pair

    def __len__(self) -> int:
        return self.where.shape[1]

    @property
    def owner(self) -> Tensor:
        """Candidate of each row, int64 [R]."""
        return self.where[0]

    @cached_property
    def cell(self) -> Tensor:
        """Number of each row's cell on its map, int64 [R]."""
        return self.where[1] * self.side[1] + self.where[2]

    @cached_property
    def starts(self) -> list[int]:
        """First row of each candidate, and one past the last row: M + 1 numbers."""
        counts = torch.bincount(self.owner[1:], minlength=len(self.anchor))
        return [1, *(counts.cumsum(0) + 1).tolist()]

    def rows_at(self, owner: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Rows of the cells (y, x) of candidates, of any broadcastable shapes; 0 where inactive or off the map."""
        high, wide = self.local.shape[1:]
        anchor = self.anchor[owner.flatten()].view(*owner.shape, 2)
        down = (y - anchor[..., 0] + BORDER).clamp_(0, high - 1)
        across = (x - anchor[..., 1] + BORDER).clamp_(0, wide - 1)
        return self.local.view(-1)[(owner * high + down) * wide + across]

    def taps(self, after: Window, reach: Reach, rows: slice = slice(None), *, low: int = 1, scale: int = 1) -> Tensor:
        """What the rows of the output's window read, int64 [n, taps]; 0 where it is nothing.

        Args:
            after: The output's window.
            reach: How the operation reads its input.
            rows: Which of the output's rows.
            low: The input row that is stored first, at place 1.
            scale: 1 to point at rows; the number of taps to point at products, one per tap of each row.
        """
        first, last, _ = rows.indices(len(after))
        out = torch.empty((last - first, reach.taps), dtype=torch.long)
        kernels.find_taps(
            *(self.local.numpy(), self.anchor.numpy(), after.where.numpy(), reach.array),
            *(BORDER, first, low, scale, out.numpy()),
        )
        return out


def of_pixels(places: Tensor, side: Pair) -> Window:
    """The window of recoloured pixels, int64 [M, d, 2] (row, column); a pixel named twice is one cell."""
    count, edits = places.shape[:2]
    if edits == 1:
        return _rectangles(places[:, 0], places[:, 0], places[:, 0].contiguous(), side)
    active = torch.zeros((count, *side), dtype=torch.bool)
    active[torch.arange(count)[:, None], places[..., 0], places[..., 1]] = True
    return _marked(active, side)


def reached(window: Window, reach: Reach, side: Pair, needed: Pair) -> Window:
    """The cells of an operation's output, a map of `side`, that the active input cells can change.

    Cells outside the top left `needed` ones are left out: nothing reads them.
    """
    if not window.single:
        active = (window.local[:, None, BORDER:-BORDER, BORDER:-BORDER] > 0).float()
        # the cells a kernel sees are those max pooling sees; its padding may not exceed half a kernel, ours may
        far = [  # what the last output cell reads, which may hang over the edge
            max(0, (o - 1) * s + d * (k - 1) + 1 - p - i)
            for o, s, d, k, p, i in zip(
                *(side, reach.stride, reach.dilation, reach.kernel, reach.padding, window.side), strict=True
            )
        ]
        wide = F.pad(active, (reach.padding[1], far[1], reach.padding[0], far[0]))
        seen = F.max_pool2d(wide, reach.kernel, reach.stride, 0, reach.dilation)[:, 0, : side[0], : side[1]]
        seen[:, needed[0] :], seen[:, :, needed[1] :] = 0, 0
        return _marked(seen > 0, side)
    ends = window.anchor + torch.tensor(window.local.shape[1:]) - 2 * BORDER - 1
    spans = [reach.span(window.anchor[:, axis], ends[:, axis], axis) for axis in (0, 1)]
    first, last = (torch.stack([span[end] for span in spans], 1) for end in (0, 1))
    return _rectangles(first.clamp_min(0), torch.minimum(last, torch.tensor(needed) - 1), first, side, last)


def union(one: Window, other: Window) -> Window:
    """The cells active in either of two windows on one map."""
    if one is other:
        return one
    if not one.single:
        return _marked((one.local + other.local)[:, BORDER:-BORDER, BORDER:-BORDER] > 0, one.side)
    ends = [w.anchor + torch.tensor(w.local.shape[1:]) - 2 * BORDER - 1 for w in (one, other)]
    first, last = torch.minimum(one.anchor, other.anchor), torch.maximum(*ends)
    # of two rectangles reached from one pixel either holds the other, or both are cut to the same rectangle of cells
    return _rectangles(first.clamp_min(0), torch.minimum(last, torch.tensor(one.side) - 1), first, one.side, last)


def _rectangles(low: Tensor, high: Tensor, anchor: Tensor, side: Pair, end: Tensor | None = None) -> Window:
    """The window of one rectangle per candidate, map positions `low` to `high` [M, 2], both included.

    `anchor` to `end` [M, 2] is the rectangle before it was cut to the map: what the next operation starts from.
    """
    end = high if end is None else end
    counts = (high - low + 1).clamp_min(0).prod(1)
    starts = counts.cumsum(0) - counts + 1
    size = ((end - anchor).amax(0) + 1 + 2 * BORDER).tolist()
    local = torch.zeros((len(low), *size), dtype=torch.long)
    where = torch.zeros((3, int(counts.sum()) + 1), dtype=torch.long)
    kernels.number_cells(
        *(low.numpy(), high.numpy(), starts.numpy(), anchor.numpy(), local.numpy(), BORDER, where.numpy())
    )
    return Window(local=local, anchor=anchor, single=True, where=where, side=side)


def _marked(active: Tensor, side: Pair) -> Window:
    """The window of marked cells of whole maps, bool [M, H, W]."""
    where = torch.stack(active.nonzero(as_tuple=True))
    local = torch.zeros((len(active), side[0] + 2 * BORDER, side[1] + 2 * BORDER), dtype=torch.long)
    local[where[0], where[1] + BORDER, where[2] + BORDER] = torch.arange(1, where.shape[1] + 1)
    anchor = torch.zeros((len(active), 2), dtype=torch.long)
    return Window(local=local, anchor=anchor, single=False, where=F.pad(where, (1, 0)), side=side)
