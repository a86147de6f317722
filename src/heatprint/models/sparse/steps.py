"""The operations of a network, applied to what a change alters and to nothing else.

Each step maps the altered rows of its input to those of its output. Rows hold differences to the clean activation
(delta form): a convolution of a difference needs no neighbours that did not change, and no bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.models.sparse.windows import Pair, Reach, Window

CHUNK = 1024  # rows of one matrix product: its result should stay in the cache
SCATTER_FROM = 16  # input channels from which gathering products beats gathering inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What a change alters of one activation.

    Attributes:
        delta: float32 [R, C], the difference to the clean activation at each active cell; row 0 is zero.
        window: Which cells those are.
        clean: float32 [S, H * W, C], the clean activation of every image held.
        slots: int64 [M], which held image each candidate starts from.
    """

    delta: Tensor
    window: Window
    clean: Tensor
    slots: Tensor

    def old(self) -> Tensor:
        """The clean values of the rows, [R, C]."""
        _, cells, channels = self.clean.shape
        return self.clean.view(-1, channels).index_select(0, self.slots[self.window.owner] * cells + self.window.cell)


def dense(rows: Rows) -> Tensor:
    """The whole altered activation of every candidate, [M, C, H, W], channels-last."""
    full = rows.clean.index_select(0, rows.slots)
    cells = full.shape[1]
    window = rows.window
    place = (window.owner * cells + window.cell)[1:]
    full.view(-1, full.shape[2]).index_add_(0, place, rows.delta[1:])
    return full.view(len(full), *window.side, -1).permute(0, 3, 1, 2)


class Conv:
    """A convolution of differences, as one matrix product and a sum over neighbours.

    Where the output has more active cells than the input, every input row is multiplied by all taps' kernels at once
    and the products are gathered; otherwise the inputs are gathered first (im2col).
    """

    def __init__(self, weight: Tensor, reach: Reach) -> None:
        out, channels = weight.shape[:2]
        self.reach = reach
        taps = weight.detach().permute(2, 3, 1, 0).reshape(reach.taps, channels, out)
        self._wide = taps.permute(1, 0, 2).reshape(channels, reach.taps * out).contiguous()
        self._tall = taps.reshape(reach.taps * channels, out).contiguous()
        self._channels, self._out = channels, out

    def __call__(self, delta: Tensor, before: Window, after: Window) -> Tensor:
        """Rows of the output's window from rows of the input's."""
        if self.reach.pointwise:
            return delta @ self._tall
        rows = before.taps(after, self.reach)
        if self._channels >= SCATTER_FROM and len(delta) < 0.95 * len(rows):
            return self._scattered(delta, rows, before, after)
        return delta.index_select(0, rows.view(-1)).view(len(rows), -1) @ self._tall

    def _scattered(self, delta: Tensor, rows: Tensor, before: Window, after: Window) -> Tensor:
        taps, out = self.reach.taps, self._out
        result = delta.new_zeros((len(rows), out))
        places = rows * taps + torch.arange(taps)
        for (low, high), (first, last) in _pieces(before.starts, after.starts):
            products = delta.new_empty((high - low + 1, taps * out))
            products[0] = 0
            torch.mm(delta[low:high], self._wide, out=products[1:])
            here = (places[first:last] - (low - 1) * taps).clamp_min_(0)
            result[first:last] = F.embedding_bag(here, products.view(-1, out), mode="sum")
        return result


def _pieces(before: list[int], after: list[int]) -> list[tuple[Pair, Pair]]:
    """Runs of whole candidates with about `CHUNK` input rows each, as row ranges of input and output."""
    pieces, start = [], 0
    for candidate in range(1, len(before)):
        if before[candidate] - before[start] >= CHUNK or candidate == len(before) - 1:
            pieces.append(((before[start], before[candidate]), (after[start], after[candidate])))
            start = candidate
    return pieces


def painted(window: Window, places: Tensor, deltas: Tensor) -> Tensor:
    """Rows of the network's input from edits at `places` [M, d, 2] that move it by `deltas` [M, d, 3]."""
    delta = deltas.new_zeros((len(window.owner), deltas.shape[2]))
    owner = torch.arange(len(places))
    for edit in range(places.shape[1]):  # in order, so that of two edits of one pixel the last one counts
        delta[window.rows_at(owner, places[:, edit, 0], places[:, edit, 1])] = deltas[:, edit]
    return delta


def pointwise(rows: Rows, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The difference an elementwise function makes of a difference."""
    old = rows.old()
    new = function(old + rows.delta)
    return new.sub_(function(old))


def max_pool(rows: Rows, after: Window, reach: Reach, pooled: Tensor) -> Tensor:
    """The difference in the maxima; `pooled` [S, H' * W', C] are the clean ones."""
    slot = rows.slots.index_select(0, after.owner)
    cells, channels = rows.clean.shape[1:]
    high, wide = rows.window.side
    taps = rows.window.taps(after, reach).T.contiguous()
    y, x = reach.read(after.y, 0)[:, :, None], reach.read(after.x, 1)[:, None, :]
    inside = ((y >= 0) & (y < high) & (x >= 0) & (x < wide)).flatten(1)
    if reach.padding != (0, 0):
        y, x = y.clamp(0, high - 1), x.clamp(0, wide - 1)
    place = (slot[:, None, None] * cells + y * wide + x).flatten(1).T.contiguous()
    flat, best = rows.clean.view(-1, channels), None
    for tap in range(reach.taps):
        value = flat.index_select(0, place[tap]).add_(rows.delta.index_select(0, taps[tap]))
        if reach.padding != (0, 0):
            value.masked_fill_(~inside[:, tap, None], -torch.inf)
        best = value if best is None else torch.maximum(best, value, out=best)
    assert best is not None
    old = pooled.view(-1, channels).index_select(0, slot * pooled.shape[1] + after.cell)
    best -= old
    best[0] = 0
    return best


def average_pool(delta: Tensor, before: Window, after: Window, reach: Reach) -> Tensor:
    """The difference in the averages; padding counts as zeros."""
    return F.embedding_bag(before.taps(after, reach), delta, mode="sum") / reach.taps


def spread(delta: Tensor, window: Window, wider: Window) -> Tensor:
    """Rows of a window as rows of one that contains it."""
    if window is wider:
        return delta
    rows = window.rows_at(wider.owner, wider.y, wider.x)
    rows[0] = 0
    return delta.index_select(0, rows)


def added(one: Rows, other: Rows, after: Window, sign: float = 1.0) -> Tensor:
    """The sum of two activations' differences, on the cells active in either."""
    return spread(one.delta, one.window, after) + sign * spread(other.delta, other.window, after)


def concatenated(parts: list[Rows], after: Window) -> Tensor:
    """Activations side by side along the channels, on the cells active in any."""
    return torch.cat([spread(p.delta, p.window, after) for p in parts], 1)


def scale(norm: nn.BatchNorm2d) -> Tensor:
    """What batch norm in evaluation mode multiplies a difference by, [C]."""
    factor = (cast(Tensor, norm.running_var) + norm.eps).rsqrt()
    return factor if norm.weight is None else factor * norm.weight
