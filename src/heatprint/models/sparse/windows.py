"""Which cells of a feature map a change can have reached, candidate by candidate.

A `Window` lists the active cells of many candidates at once. Rows of values go with it: row r of a tensor [R, C]
belongs to active cell r, and row 0 is always zero, so that "no active cell here" is a row like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

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
    def pointwise(self) -> bool:
        """Whether each output cell reads just the input cell at its own place."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)

    @property
    def beyond(self) -> Pair:
        """How many cells beyond the active ones, or off the map, it can look."""
        wide = [d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True)]
        return max(wide[0], self.padding[0]), max(wide[1], self.padding[1])

    def span(self, first: Tensor, last: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The first and last output position that read any of the input positions first..last."""
        back = self.padding[axis] - self.dilation[axis] * (self.kernel[axis] - 1)
        step = self.stride[axis]
        return -(-(first + back)).div(step, rounding_mode="floor"), (last + self.padding[axis]).div(
            step, rounding_mode="floor"
        )

    def read(self, position: Tensor, axis: int) -> Tensor:
        """The input positions that output positions [R] read, [R, kernel]; those off the map included."""
        tap = torch.arange(self.kernel[axis], device=position.device) * self.dilation[axis]
        return position[:, None] * self.stride[axis] - self.padding[axis] + tap


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Active cells of M candidates on a map of H x W cells.

    For one changed pixel they form a rectangle on every map, and `local` is a square just as large as needed,
    anchored anew for each candidate. For several pixels it is the whole map.

    Attributes:
        local: int64 [M, h + 2 B, w + 2 B], the row of each cell of a rectangle of h x w cells, 0 where inactive; the
            border of B zeros lets neighbours be looked up without asking whether they exist.
        anchor: int64 [M, 2], map position of the rectangle's first cell, possibly negative.
        single: Whether every candidate changed one pixel.
        owner: int64 [R], candidate of each row; 0 for row 0.
        y: int64 [R], map row of each row's cell; 0 for row 0.
        x: int64 [R].
        side: (H, W) of the map.
    """

    local: Tensor
    anchor: Tensor
    single: bool
    owner: Tensor
    y: Tensor
    x: Tensor
    side: Pair

    @cached_property
    def cell(self) -> Tensor:
        """Number of each row's cell on its map, int64 [R]."""
        return self.y * self.side[1] + self.x

    @cached_property
    def starts(self) -> list[int]:
        """First row of each candidate, and one past the last row: M + 1 numbers. Rows come candidate by candidate."""
        counts = torch.bincount(self.owner[1:], minlength=len(self.anchor))
        return [1, *(counts.cumsum(0) + 1).tolist()]

    def rows_at(self, owner: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Rows of the cells (y, x) of candidates, of any broadcastable shapes; 0 where inactive or off the map."""
        high, wide = self.local.shape[1:]
        anchor = self.anchor[owner.flatten()].view(*owner.shape, 2)
        down = (y - anchor[..., 0] + BORDER).clamp_(0, high - 1)
        across = (x - anchor[..., 1] + BORDER).clamp_(0, wide - 1)
        return self.local.view(-1)[(owner * high + down) * wide + across]

    def taps(self, after: Window, reach: Reach) -> Tensor:
        """The rows that each row of the output's window reads, int64 [R', taps]; its row 0 reads row 0 alone."""
        if max(reach.beyond) <= BORDER:
            rows = self._taps_within(after, reach)
        else:
            rows = self.rows_at(
                after.owner[:, None, None], reach.read(after.y, 0)[:, :, None], reach.read(after.x, 1)[:, None, :]
            ).flatten(1)
        rows[0] = 0
        return rows

    def _taps_within(self, after: Window, reach: Reach) -> Tensor:
        """The same for kernels that never look beyond the border: one look-up at a fixed offset per tap."""
        high, wide = self.local.shape[1:]
        anchor = self.anchor.index_select(0, after.owner)
        down = after.y * reach.stride[0] - anchor[:, 0] + (BORDER - reach.padding[0])
        across = after.x * reach.stride[1] - anchor[:, 1] + (BORDER - reach.padding[1])
        place = (after.owner * high + down) * wide + across
        place[0] = 0
        tap = [torch.arange(k) * d for k, d in zip(reach.kernel, reach.dilation, strict=True)]
        offset = (tap[0][:, None] * wide + tap[1]).view(-1)
        return self.local.view(-1).index_select(0, (place[:, None] + offset).view(-1)).view(-1, reach.taps)


def of_pixels(places: Tensor, side: Pair) -> Window:
    """The window of recoloured pixels, int64 [M, d, 2] (row, column); a pixel named twice is one cell."""
    count, edits = places.shape[:2]
    if edits == 1:
        return _window(torch.ones((count, 1, 1), dtype=torch.bool), places[:, 0], True, side)
    active = torch.zeros((count, *side), dtype=torch.bool)
    active[torch.arange(count)[:, None], places[..., 0], places[..., 1]] = True
    return _window(active, torch.zeros((count, 2), dtype=torch.long), False, side)


def reached(window: Window, reach: Reach, side: Pair, needed: Pair) -> Window:
    """The cells of an operation's output, a map of `side`, that the active input cells can change.

    Cells outside the top left `needed` ones are left out: nothing reads them.
    """
    if not window.single:
        active = (window.local[:, None, BORDER:-BORDER, BORDER:-BORDER] > 0).float()
        # the cells a kernel sees are those max pooling sees; its padding may not exceed half a kernel, ours may
        wide = F.pad(active, (reach.padding[1], reach.padding[1], reach.padding[0], reach.padding[0]))
        seen = F.max_pool2d(wide, reach.kernel, reach.stride, 0, reach.dilation)[:, 0, : side[0], : side[1]]
        seen[:, needed[0] :], seen[:, :, needed[1] :] = 0, 0
        return _window(seen > 0, window.anchor, False, side)
    anchors, insides = [], []
    for axis in (0, 1):
        first = window.anchor[:, axis]
        low, high = reach.span(first, first + window.local.shape[axis + 1] - 2 * BORDER - 1, axis)
        place = low[:, None] + torch.arange(int((high - low).max()) + 1)
        insides.append((place >= 0) & (place < needed[axis]) & (place <= high[:, None]))
        anchors.append(low)
    return _window(insides[0][:, :, None] & insides[1][:, None, :], torch.stack(anchors, 1), True, side)


def union(one: Window, other: Window) -> Window:
    """The cells active in either of two windows on one map."""
    if one is other:
        return one
    if not one.single:
        either = (one.local + other.local)[:, BORDER:-BORDER, BORDER:-BORDER] > 0
        return _window(either, one.anchor, False, one.side)
    ends = [w.anchor + torch.tensor(w.local.shape[1:]) - 2 * BORDER for w in (one, other)]
    anchor, end = torch.minimum(one.anchor, other.anchor), torch.maximum(*ends)
    high, wide = (end - anchor).amax(0).tolist()
    owner = torch.arange(len(anchor))[:, None, None]
    y = anchor[:, 0, None, None] + torch.arange(high)[None, :, None]
    x = anchor[:, 1, None, None] + torch.arange(wide)[None, None, :]
    both = [w.rows_at(owner, y, x) for w in (one, other)]
    return _window((both[0] + both[1]) > 0, anchor, True, one.side)


def _window(active: Tensor, anchor: Tensor, single: bool, side: Pair) -> Window:
    """A window from the active cells bool [M, h, w] of rectangles at `anchor`."""
    count, high, wide = active.shape
    owner, down, across = active.nonzero(as_tuple=True)
    full = (count, high + 2 * BORDER, wide + 2 * BORDER)
    local = torch.zeros(full, dtype=torch.long)
    place = (owner * full[1] + down + BORDER) * full[2] + across + BORDER
    local.view(-1).index_copy_(0, place, torch.arange(1, len(owner) + 1))
    first = anchor.index_select(0, owner)
    return Window(
        local=local,
        anchor=anchor,
        single=single,
        owner=_led(owner),
        y=_led(first[:, 0] + down),
        x=_led(first[:, 1] + across),
        side=side,
    )


def _led(values: Tensor) -> Tensor:
    """The values with a 0 before them, for row 0."""
    return F.pad(values, (1, 0))
