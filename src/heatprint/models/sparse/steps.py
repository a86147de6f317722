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

from heatprint.models.sparse import kernels
from heatprint.models.sparse.product import ROWS, times
from heatprint.models.sparse.windows import Pair, Reach, Window

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
        self._wide = times(taps.permute(1, 0, 2).reshape(channels, reach.taps * out))
        self._tall = times(taps.reshape(reach.taps * channels, out))
        self._channels, self._out = channels, out

    def __call__(self, delta: Tensor, before: Window, after: Window) -> Tensor:
        """Rows of the output's window from rows of the input's."""
        if self.reach.pointwise:
            return self._tall(delta)
        if self._channels >= SCATTER_FROM and len(before) < 0.95 * len(after):
            return self._scattered(delta, before, after)
        rows = before.taps(after, self.reach)
        return self._tall(delta.index_select(0, rows.view(-1)).view(len(rows), -1))

    def _scattered(self, delta: Tensor, before: Window, after: Window) -> Tensor:
        taps, result = self.reach.taps, delta.new_zeros((len(after), self._out))
        for (low, high), (first, last) in _pieces(before.starts, after.starts):
            products = self._wide(F.pad(delta[low:high], (0, 0, 1, 0)))  # a row of zeros leads
            places = before.taps(after, self.reach, slice(first, last), low=low, scale=taps)
            result[first:last] = F.embedding_bag(places, products.view(-1, self._out), mode="sum")
        return result


def _pieces(before: list[int], after: list[int]) -> list[tuple[Pair, Pair]]:
    """Runs of whole candidates with about `ROWS` input rows each, as row ranges of input and output."""
    pieces, start = [], 0
    for candidate in range(1, len(before)):
        if before[candidate] - before[start] >= ROWS or candidate == len(before) - 1:
            pieces.append(((before[start], before[candidate]), (after[start], after[candidate])))
            start = candidate
    return pieces


def painted(window: Window, places: Tensor, deltas: Tensor) -> Tensor:
    """Rows of the network's input from edits at `places` [M, d, 2] that move it by `deltas` [M, d, 3]."""
    delta = deltas.new_zeros((len(window), deltas.shape[2]))
    owner = torch.arange(len(places))
    for edit in range(places.shape[1]):  # in order, so that of two edits of one pixel the last one counts
        delta[window.rows_at(owner, places[:, edit, 0], places[:, edit, 1])] = deltas[:, edit]
    return delta


def pointwise(rows: Rows, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The difference an elementwise function makes of a difference."""
    if function is torch.relu_:
        delta = rows.delta.clone()
        kernels.rectify(
            *(delta.numpy(), rows.clean.numpy(), rows.slots.numpy(), rows.window.where.numpy(), rows.window.side)
        )
        return delta
    old = rows.old()
    new = function(old + rows.delta)
    return new.sub_(function(old))


def max_pool(rows: Rows, after: Window, reach: Reach, pooled: Tensor) -> Tensor:
    """The difference in the maxima; `pooled` [S, H' * W', C] are the clean ones."""
    result = rows.delta.new_zeros((len(after), rows.delta.shape[1]))
    taps = rows.window.taps(after, reach)
    kernels.pool_max(
        *(rows.delta.numpy(), rows.clean.numpy(), pooled.numpy(), rows.slots.numpy(), taps.numpy()),
        *(after.where.numpy(), reach.array, rows.window.side, after.side[1], result.numpy()),
    )
    return result


def average_pool(delta: Tensor, before: Window, after: Window, reach: Reach) -> Tensor:
    """The difference in the averages; padding counts as zeros."""
    return F.embedding_bag(before.taps(after, reach), delta, mode="sum") / reach.taps


def spread(delta: Tensor, window: Window, wider: Window) -> Tensor:
    """Rows of a window as rows of one that contains it."""
    if window is wider:
        return delta
    rows = window.rows_at(*wider.where)
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
