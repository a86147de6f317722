"""Explanations as PNG files: one image with its heat map, or an image beside its attacked copy on one scale.

Colours follow the report (`heatprint.report.pictures`): one diverging map whose middle is zero, and a number that says
what its ends mean. Pixels are enlarged without smoothing, so that what is seen is what was computed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from heatprint.report.measures import TITLES, told
from heatprint.report.pictures import COLOUR_MAP, Scale, shared_scale

DPI = 150
SIDE, GAP, EDGE = 2.6, 0.14, 0.2  # of a panel, between two and around all, in inches
ABOVE, TITLE, BELOW = 0.62, 0.30, 0.62  # room for the heading, a panel's title, and the colour bar
INK, SOFT, GOLD = "#1d1f23", "#5d6168", "#c98500"
FAINT = 0.7  # how much of the image's contrast stays under an overlay
FEW = 0.02  # share of changed pixels up to which each one is outlined; more would hide the picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image with its heat map and what the classifier said.

    Attributes:
        image: uint8 [H, W, 3].
        heat: Relevance [H, W].
        name: How the image is called.
        answer: The predicted class.
        probability: Of that class, 0 to 1.
        explained: What the heat map explains, in words, e.g. ``"cats"`` or ``"cats against dogs"``.
        facts: What the method says of its own map, in words, e.g. ``"r2 0.81"``.
    """

    image: np.ndarray
    heat: np.ndarray
    name: str
    answer: str
    probability: float
    explained: str
    facts: str = ""


def picture_png(picture: Picture, method: str) -> bytes:
    """Image, heat map, and heat map laid over the image, as a PNG file; equal pictures give equal bytes."""
    scale = shared_scale([picture.heat])
    words = f"heat map of {picture.explained}, by {method}" + f" ({picture.facts})" * bool(picture.facts)
    figure, (image, heat, overlay) = _canvas(3, picture.name, words)
    _draw_image(image, picture.image, f"{picture.answer}  {100 * picture.probability:.1f} %")
    _draw_heat(heat, picture.heat, scale, "relevance")
    _draw_overlay(overlay, picture, scale)
    _draw_scale(figure, heat, scale, "this image")
    return _png(figure)


def pair_png(clean: Picture, attacked: Picture, method: str, numbers: Mapping[str, float]) -> bytes:
    """Clean image, heat, attacked image, heat, difference, all heats on one scale; changed pixels marked.

    Args:
        clean: The image before.
        attacked: The image after; of the same size.
        method: The explainer's name.
        numbers: The measures of the pair by name, see `heatprint.report.measures`.
    """
    scale = shared_scale([clean.heat, attacked.heat])
    changed = (clean.image != attacked.image).any(2)
    words = clean.explained
    if attacked.explained != clean.explained:
        words += f" before, of {attacked.explained} after"
    figure, axes = _canvas(5, clean.name, f"heat map of {words}, by {method}")
    _draw_image(axes[0], clean.image, f"clean: {clean.answer}  {100 * clean.probability:.1f} %")
    _draw_heat(axes[1], clean.heat, scale, "relevance, clean")
    _draw_image(axes[2], attacked.image, f"attacked: {attacked.answer}  {100 * attacked.probability:.1f} %")
    _draw_heat(axes[3], attacked.heat, scale, "relevance, attacked")
    _draw_heat(axes[4], attacked.heat - clean.heat, scale, "attacked − clean")
    if 0 < changed.mean() <= FEW:
        for axis in (axes[2], axes[3], axes[4]):
            _mark(axis, changed)
    _draw_scale(figure, axes[1], scale, "all three maps")
    words = f"{_changed_words(changed)}\n{_numbers_words(numbers)}"
    figure.text(axes[2].get_position().x0, _up(figure, 0.48), words, color=SOFT, fontsize=8.5, va="top")
    return _png(figure)


def _canvas(count: int, heading: str, subheading: str) -> tuple[Figure, list[Axes]]:
    """A figure with `count` square panels in a row."""
    width = 2 * EDGE + count * SIDE + (count - 1) * GAP
    height = ABOVE + TITLE + SIDE + BELOW
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    axes = []
    for n in range(count):
        left = EDGE + n * (SIDE + GAP)
        axis = figure.add_axes((left / width, BELOW / height, SIDE / width, SIDE / height))
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set(color="#dedbd3", linewidth=0.8)
        axes.append(axis)
    x = EDGE / width
    figure.text(x, 1 - 0.16 / height, _plain(heading), color=INK, fontsize=11, weight="bold", va="top")
    figure.text(x, 1 - 0.38 / height, _plain(subheading), color=SOFT, fontsize=9, va="top")
    return figure, axes


def _draw_image(axis: Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(image, interpolation="nearest")
    _title(axis, title)


def _draw_heat(axis: Axes, heat: np.ndarray, scale: Scale, title: str) -> None:
    axis.imshow(heat, cmap=COLOUR_MAP, norm=_norm(scale), interpolation="nearest")
    _title(axis, title)


def _draw_overlay(axis: Axes, picture: Picture, scale: Scale) -> None:
    """Heat over the image in light grey; the more relevance, the less shows through."""
    grey = picture.image.astype(float).mean(2) / 255
    axis.imshow(1 - FAINT * (1 - grey), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    opacity = np.clip(np.abs(picture.heat) / scale.limit, 0, 1) ** 0.5
    axis.imshow(picture.heat, cmap=COLOUR_MAP, norm=_norm(scale), alpha=0.9 * opacity, interpolation="nearest")
    _title(axis, "overlay")


def _draw_scale(figure: Figure, over: Axes, scale: Scale, whose: str) -> None:
    """The colour bar under a panel, with the number at its ends."""
    place = over.get_position()
    axis = figure.add_axes((place.x0, _up(figure, 0.38), place.width, 0.10 / figure.get_figheight()))
    figure.colorbar(ScalarMappable(_norm(scale), COLOUR_MAP), cax=axis, orientation="horizontal", ticks=[])
    axis.spines["outline"].set(edgecolor="#dedbd3", linewidth=0.8)
    ends = (f"−{scale.limit:.3g} against", "0", f"for +{scale.limit:.3g}")
    for text, share, side in zip(ends, (0.0, 0.5, 1.0), ("left", "center", "right"), strict=True):
        x = place.x0 + share * place.width
        figure.text(x, _up(figure, 0.34), text, color=SOFT, fontsize=8.5, ha=side, va="top")
    told = f"one scale for {whose};\n{100 * scale.beyond:.1f} % of pixels lie past its ends\n(peak {scale.peak:.3g})"
    figure.text(EDGE / figure.get_figwidth(), _up(figure, 0.48), told, color=SOFT, fontsize=8.5, va="top")


def _mark(axis: Axes, changed: np.ndarray) -> None:
    """Outline each changed pixel, and ring it when there are so few that they would be missed."""
    rows, columns = np.nonzero(changed)
    few = len(rows) <= 9
    size = (72 * SIDE / changed.shape[1]) ** 2  # of a pixel, in square points
    axis.scatter(columns, rows, s=max(size, 4), marker="s", facecolors="none", edgecolors=GOLD, linewidths=0.9)
    if few:
        axis.scatter(columns, rows, s=260, marker="o", facecolors="none", edgecolors="white", linewidths=3.2)
        axis.scatter(columns, rows, s=260, marker="o", facecolors="none", edgecolors=INK, linewidths=1.4)
    axis.set_xlim(-0.5, changed.shape[1] - 0.5)
    axis.set_ylim(changed.shape[0] - 0.5, -0.5)


def _changed_words(changed: np.ndarray) -> str:
    count, share = int(changed.sum()), changed.mean()
    marked = ", marked" if 0 < share <= FEW else ""
    return f"{count:,} of {changed.size:,} pixels changed ({100 * share:.3g} %){marked}"


def _numbers_words(numbers: Mapping[str, float]) -> str:
    agree = " · ".join(
        f"{TITLES[name]} {told(name, numbers[name])}" for name in ("rank_correlation", "cosine", "moved")
    )
    after, before, even = (told(name, numbers[name]) for name in ("on_changed", "clean_on_changed", "chance"))
    return f"{agree}\n|relevance| on changed pixels: {after} attacked, {before} clean, {even} by chance"


def _title(axis: Axes, text: str) -> None:
    axis.set_title(_plain(text), loc="left", fontsize=9.5, color=INK, pad=4)


def _plain(text: str) -> str:
    """File and class names as words: a dollar sign would begin a formula, and no line may run out of the picture."""
    text = " ".join(text.split())
    return (text if len(text) <= 90 else f"…{text[-89:]}").replace("$", r"\$")


def _norm(scale: Scale) -> Normalize:
    return Normalize(-scale.limit, scale.limit)


def _up(figure: Figure, inches: float) -> float:
    """Inches from the lower edge as a share of the height."""
    return float(inches / figure.get_figheight())


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    with warnings.catch_warnings():
        # a file name in a script that the font lacks is drawn as boxes; nobody can mend that
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
