"""The inner loops that torch has no single operation for, compiled by Numba at their first use and kept on disk.

Plain loops over rows, each one pass over memory where torch would need five to ten. Arrays are those of
`heatprint.models.sparse.windows` and `steps`; `reach` is (kernel, stride, padding, dilation) as int64 [4, 2].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import njit, prange

from heatprint.core.limits import share_threads


def compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """The loop in machine code, kept on disk where there is a place for it."""
    try:
        return cast("Callable[..., None]", njit(cache=True, parallel=True)(loop))
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return cast("Callable[..., None]", njit(parallel=True)(loop))


share_threads()  # starts Numba's threads, before anything else does


@compiled
def number_cells(low: Any, high: Any, starts: Any, anchor: Any, local: Any, border: int, where: Any) -> None:
    """Number the cells of one rectangle per candidate, row after row, and note where each is.

    `low` and `high` int64 [M, 2] are its first and last map position, `starts` [M] its first row; `where` [3, R]
    receives candidate, map row and map column.
    """
    for candidate in prange(len(low)):
        row = starts[candidate]
        for y in range(low[candidate, 0], high[candidate, 0] + 1):
            for x in range(low[candidate, 1], high[candidate, 1] + 1):
                local[candidate, y - anchor[candidate, 0] + border, x - anchor[candidate, 1] + border] = row
                where[0, row] = candidate
                where[1, row] = y
                where[2, row] = x
                row += 1


@compiled
def find_taps(
    local: Any, anchor: Any, where: Any, reach: Any, border: int, first: int, low: int, scale: int, out: Any
) -> None:
    """For the output rows from `first` on, where what they read is stored: int64 [n, taps], 0 where nothing is.

    Input row r is stored at place r - low + 1. With a `scale` of all taps, each place holds one product per tap.
    """
    high, wide, taps = local.shape[1], local.shape[2], out.shape[1]
    for row in prange(len(out)):
        candidate = where[0, first + row]
        top = where[1, first + row] * reach[1, 0] - reach[2, 0] - anchor[candidate, 0] + border
        left = where[2, first + row] * reach[1, 1] - reach[2, 1] - anchor[candidate, 1] + border
        for tap in range(taps):
            down = top + tap // reach[0, 1] * reach[3, 0]
            across = left + tap % reach[0, 1] * reach[3, 1]
            inside = first + row > 0 and 0 <= down < high and 0 <= across < wide
            source = local[candidate, down, across] if inside else 0
            out[row, tap] = (source - low + 1) * scale + (tap if scale > 1 else 0) if source > 0 else 0


@compiled
def rectify(delta: Any, clean: Any, slots: Any, where: Any, side: Any) -> None:
    """Turn differences before a ReLU into differences after it, in place; row 0 stays zero."""
    zero = np.float32(0)
    for row in prange(1, len(delta)):
        old = clean[slots[where[0, row]], where[1, row] * side[1] + where[2, row]]
        line = delta[row]
        for c in range(len(line)):
            new = old[c] + line[c]
            line[c] = (new if new > zero else zero) - (old[c] if old[c] > zero else zero)


@compiled
def pool_max(
    delta: Any, clean: Any, pooled: Any, slots: Any, taps: Any, where: Any, reach: Any, side: Any, wide: int, out: Any
) -> None:
    """Differences of maxima: over each output row's taps, clean values plus differences, less the clean maximum.

    `side` is that of the input map, `wide` the width of the output map.
    """
    for row in prange(1, len(out)):
        slot, line = slots[where[0, row]], out[row]
        line[:] = -np.inf
        for tap in range(taps.shape[1]):
            y = where[1, row] * reach[1, 0] - reach[2, 0] + tap // reach[0, 1] * reach[3, 0]
            x = where[2, row] * reach[1, 1] - reach[2, 1] + tap % reach[0, 1] * reach[3, 1]
            if 0 <= y < side[0] and 0 <= x < side[1]:
                old, change = clean[slot, y * side[1] + x], delta[taps[row, tap]]
                for c in range(len(line)):
                    value = old[c] + change[c]
                    if value > line[c]:
                        line[c] = value
        before = pooled[slot, where[1, row] * wide + where[2, row]]
        for c in range(len(line)):
            line[c] -= before[c]
