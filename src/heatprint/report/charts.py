"""Geometry of the small charts that the template draws as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 300.0, 90.0  # of the plotting area, in SVG units
MOST_BARS = 32
FAILURES = 64.0  # width kept for the bar of failures and its label


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: where it stands, what it says, and whether it counts failures."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int
    failed: bool


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """A histogram of first successes.

    Attributes:
        bars: From the first step to the last; failures come last.
        first: Label under the first bar.
        last: Label under the last bar that counts successes.
        most: Height of the tallest bar, images.
        bin: Steps that one bar spans.
        words: The same in words, for those who do not see it.
    """

    bars: tuple[Bar, ...]
    first: str
    last: str
    most: int
    bin: int
    words: str


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """One quantity over the epochs.

    Attributes:
        title: Its name.
        points: ``points`` attribute of the SVG polyline.
        end: Last point.
        top: Value at the upper edge.
        final: Last value.
        breaks: Where the image size changes: x and the new size.
        words: The same in words.
    """

    title: str
    points: str
    end: tuple[float, float]
    top: float
    final: float
    breaks: tuple[tuple[float, str], ...]
    words: str


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How often a share from 0 to 100 % was how large.

    Attributes:
        bars: From 0 to 100 %, all bins.
        median: Place of the median.
        middle: The median in words.
        most: Height of the tallest bar, pairs.
        words: The same in words.
    """

    bars: tuple[Bar, ...]
    median: float
    middle: str
    most: int
    words: str


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The smallest eigenvalues of a graph of heat maps.

    Attributes:
        dots: Places of the eigenvalues.
        null: ``points`` attribute of the polyline through those of shuffled maps; empty where there are none.
        gap: Between which two dots the proposed number of strategies ends, or None beyond those shown.
        label: What the gap says.
        count: Eigenvalues shown.
        top: Value at the upper edge.
        words: The same in words.
    """

    dots: tuple[tuple[float, float], ...]
    null: str
    gap: float | None
    label: str
    count: int
    top: float
    words: str


def spectrum(
    eigenvalues: Sequence[float | None], null: Sequence[float | None], proposed: int, title: str
) -> Spectrum | None:
    """Dots of the eigenvalues, a line of the null, and the eigengap; None without eigenvalues."""
    known, shuffled = [v for v in eigenvalues if v is not None], [v for v in null if v is not None]
    if not known:
        return None
    count, top = max(len(known), len(shuffled)), max([*known, *shuffled]) or 1.0
    slot = WIDTH / count

    def places(values: Sequence[float]) -> list[tuple[float, float]]:
        return [(round((n + 0.5) * slot, 2), round(HEIGHT * (1 - max(v, 0) / top), 2)) for n, v in enumerate(values)]

    words = f"{title}: " + ", ".join(f"{v:.2g}" for v in known)
    if shuffled:
        words += "; of shuffled maps: " + ", ".join(f"{v:.2g}" for v in shuffled)
    return Spectrum(
        dots=tuple(places(known)),
        null=" ".join(f"{x:g},{y:g}" for x, y in places(shuffled)),
        gap=round(proposed * slot, 2) if 0 < proposed < len(known) else None,
        label=f"proposed: {proposed}",
        count=count,
        top=top,
        words=f"{words}; proposed strategies: {proposed}",
    )


def distribution(counts: Sequence[int], median: float | None, unit: str) -> Distribution | None:
    """Bars of equal bins from 0 to 1, and the median; None without any value."""
    if not any(counts) or median is None:
        return None
    most, slot = max(counts), WIDTH / len(counts)
    names = [f"{100 * n // len(counts)} to {100 * (n + 1) // len(counts)} %" for n in range(len(counts))]
    bars = tuple(
        Bar(
            x=round((n + 0.06) * slot, 2),
            y=round(HEIGHT * (1 - count / most), 2),
            width=round(0.88 * slot, 2),
            height=round(HEIGHT * count / most, 2),
            label=name,
            count=count,
            failed=False,
        )
        for n, (name, count) in enumerate(zip(names, counts, strict=True))
    )
    middle = f"median {100 * median:.3g} %"
    words = f"{unit}, {middle}: " + ", ".join(f"{bar.label}: {bar.count}" for bar in bars if bar.count)
    return Distribution(bars=bars, median=round(WIDTH * median, 2), middle=middle, most=most, words=words)


def histogram(counts: Mapping[str, int], unit: str) -> BarChart | None:
    """Bars of "first success at this step"; -1 counts the images that never fell. None without any image."""
    steps = {int(step): int(count) for step, count in counts.items() if int(count) > 0}
    failed = steps.pop(-1, 0)
    if not steps and not failed:
        return None
    low, high = min(steps, default=0), max(steps, default=0)
    span = -(-(high - low + 1) // MOST_BARS) if steps else 1
    bins = [
        (start, sum(steps.get(step, 0) for step in range(start, start + span)))
        for start in (range(low, high + 1, span) if steps else ())
    ]
    named = [(str(start) if span == 1 else f"{start} to {start + span - 1}", count, False) for start, count in bins]
    if failed:
        named.append(("no success", failed, True))
    most = max(count for _, count, _ in named)
    words = f"{unit}: " + ", ".join(f"{label}: {count}" for label, count, _ in named if count)
    first, last = (str(low), str(high)) if steps else ("", "")
    return BarChart(bars=_bars(named, most), first=first, last=last, most=most, bin=span, words=words)


def _bars(named: Sequence[tuple[str, int, bool]], most: int) -> tuple[Bar, ...]:
    """Bars of one width; the one of failures stands apart, at the right end."""
    slot = (WIDTH - FAILURES) / max(len(named), 8)
    bars = []
    for n, (label, count, failed) in enumerate(named):
        height = HEIGHT * count / most
        x = WIDTH - (FAILURES + slot) / 2 if failed else n * slot
        bars.append(
            Bar(
                x=round(x + 0.08 * slot, 2),
                y=round(HEIGHT - height, 2),
                width=round(0.84 * slot, 2),
                height=round(height, 2),
                label=label,
                count=count,
                failed=failed,
            )
        )
    return tuple(bars)


def training_charts(epochs: Sequence[Mapping[str, Any]]) -> list[LineChart]:
    """Loss and accuracy on the training images, epoch by epoch."""
    charts = []
    for key, title, ceiling in (("loss", "training loss", None), ("accuracy", "training accuracy", 1.0)):
        known = [row for row in epochs if row.get(key) is not None]
        if known:
            charts.append(_line(title, [float(row[key]) for row in known], [row.get("size") for row in known], ceiling))
    return charts


def query_curve(points: Sequence[Sequence[int]], tried: int) -> LineChart | None:
    """Successes within so many forward passes, on a logarithmic axis; None without any success."""
    if len(points) < 2 or not tried:
        return None
    spread = math.log10(points[-1][0]) or 1.0
    places = [(round(WIDTH * math.log10(q) / spread, 2), round(HEIGHT * (1 - n / tried), 2)) for q, n in points]
    share = points[-1][1] / tried
    decades = range(1, int(spread) + 1)
    return LineChart(
        title="successes within so many forward passes (share of the images attacked)",
        points=" ".join(f"{x:g},{y:g}" for x, y in places),
        end=places[-1],
        top=1.0,
        final=share,
        breaks=(
            *((round(WIDTH * d / spread, 2), f"{10**d:,}") for d in decades if d < 0.9 * spread),
            (WIDTH, f"{points[-1][0]:,}"),
        ),
        words="successes within forward passes: " + ", ".join(f"{n} within {q}" for q, n in points),
    )


def _line(title: str, values: list[float], sizes: list[Any], ceiling: float | None) -> LineChart:
    top = ceiling if ceiling is not None else (max(values) or 1.0)
    stride = WIDTH / max(len(values) - 1, 1)
    places = [(round(n * stride, 2), round(HEIGHT * (1 - min(max(v / top, 0), 1)), 2)) for n, v in enumerate(values)]
    changed = [n for n in range(1, len(sizes)) if sizes[n] is not None and sizes[n] != sizes[n - 1]]
    return LineChart(
        title=title,
        points=" ".join(f"{x:g},{y:g}" for x, y in places),
        end=places[-1],
        top=top,
        final=values[-1],
        breaks=tuple((places[n][0], f"{sizes[n]} px") for n in changed),
        words=f"{title}, epoch by epoch: " + ", ".join(f"{value:.3g}" for value in values),
    )
