"""Figures 1 to 3: what the attacks do to an image and to its heat map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import hypot

import numpy as np

from heatprint.report.pictures import Scale, heat_uri, image_uri, perturbation_uri, shared_scale
from heatprint.report.read import Run, Tile
from heatprint.report.tables import studied_attacks

PER_CLASS = 6  # heat maps of clean images in a row of Figure 2
STEP_WORDS = {"fgsm": "gain {}/255", "one-pixel": "generation {}"}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A ring around a pixel and an arrow to it, in the coordinates of the image."""

    width: int
    height: int
    x: float
    y: float
    radius: float
    tail: tuple[float, float]
    tip: tuple[float, float]
    barbs: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture or a picture above its heat map, with what the model said.

    Attributes:
        letter: (a), (b), ... within the figure; empty where none is wanted.
        title: What the image is.
        model: Who was asked; empty where nobody was.
        image: Data URI.
        heat: Data URI, or None.
        alt: Description of the picture.
        answer: Predicted class; empty where nobody was asked.
        probability: Of that answer.
        right: Whether it is the true class.
        mark: The changed pixel.
        note: A line more.
    """

    letter: str = ""
    title: str
    model: str = ""
    image: str
    heat: str | None = None
    alt: str
    answer: str = ""
    probability: float = 0.0
    right: bool = True
    mark: Mark | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Panels that belong together and share one scale."""

    title: str
    panels: tuple[Panel, ...]
    scale: Scale | None = None


def attack_strips(run: Run) -> list[Strip]:
    """Figure 1: clean image, what the attack adds, attacked image; one strip per attack."""
    strips = []
    for attack in studied_attacks(run):
        pairs = [pair for pair in _pairs(run, attack) if pair[1].right is False] or _pairs(run, attack)
        if pairs:
            strips.append(_attack_strip(run, *pairs[0]))
    return strips


def clean_strips(run: Run) -> list[Strip]:
    """Figure 2: heat maps of clean images, one strip per class; those shown nowhere else come first."""
    attacked = {tile.example for tile in run.tiles if tile.kind != "clean"}
    strips = []
    for name in run.classes:
        tiles = [t for t in run.tiles if t.kind == "clean" and t.model == "clear" and t.label == name]
        tiles = sorted(tiles, key=lambda tile: tile.example in attacked)[:PER_CLASS]
        if tiles:
            scale = shared_scale([tile.heat for tile in tiles])
            panels = tuple(replace(_panel(run, tile, scale, title=tile.id), model="") for tile in tiles)
            strips.append(Strip(title=name, panels=panels, scale=scale))
    return strips


def before_after_strips(run: Run) -> list[Strip]:
    """Figure 3: clean, attacked, and attacked before the retrained model; one strip per source image."""
    strips = []
    for tiles in _examples(run.tiles):
        if all(tile.kind == "clean" for tile in tiles):
            continue
        scale = shared_scale([tile.heat for tile in tiles])
        panels = tuple(
            _panel(run, tile, scale, title=_kind_words(run, tile), letter=f"({chr(ord('a') + n)})")
            for n, tile in enumerate(tiles)
        )
        strips.append(Strip(title=f"{tiles[0].id}, truly {tiles[0].label}", panels=panels, scale=scale))
    return strips


def _examples(tiles: Iterable[Tile]) -> list[list[Tile]]:
    groups: dict[int, list[Tile]] = {}
    for tile in tiles:
        groups.setdefault(tile.example, []).append(tile)
    return list(groups.values())


def _pairs(run: Run, attack: str) -> list[tuple[Tile, Tile]]:
    """Clean and attacked tile of every example that was attacked this way, as the clear model saw them."""
    pairs = []
    for tiles in _examples(run.tiles):
        seen = {tile.kind: tile for tile in tiles if tile.model == "clear"}
        if "clean" in seen and attack in seen:
            pairs.append((seen["clean"], seen[attack]))
    return pairs


def _attack_strip(run: Run, clean: Tile, changed: Tile) -> Strip:
    picture, gain = perturbation_uri(clean.image, changed.image)
    title = run.attack_title(changed.kind)
    mark = _mark(changed)
    middle = Panel(
        title="What it added",
        image=picture,
        alt=f"Perturbation of {title} on {clean.id}; grey means unchanged",
        mark=mark,
        note=f"{'Amplified' if gain > 1 else 'Scaled'} ×{gain:g}; grey is unchanged.",
    )
    before, after = _asked(run, clean, title="Clean"), _asked(run, changed, title=_kind_words(run, changed))
    return Strip(title=f"{title} on {clean.id}", panels=(before, middle, after))


def _asked(run: Run, tile: Tile, *, title: str) -> Panel:
    """A picture without heat map, and the answer to it."""
    return Panel(
        title=title,
        model=run.arm_title(tile.model),
        image=image_uri(tile.image),
        alt=_alt(run, tile),
        answer=tile.predicted,
        probability=tile.probability,
        right=tile.right,
        mark=_mark(tile),
    )


def _panel(run: Run, tile: Tile, scale: Scale, *, title: str, letter: str = "") -> Panel:
    """A picture above its heat map."""
    return Panel(
        letter=letter,
        title=title,
        model=run.arm_title(tile.model),
        image=image_uri(tile.image),
        heat=heat_uri(tile.heat, scale),
        alt=_alt(run, tile),
        answer=tile.predicted,
        probability=tile.probability,
        right=tile.right,
        mark=_mark(tile),
        note=_at_pixel(tile),
    )


def _alt(run: Run, tile: Tile) -> str:
    return f"{tile.id} ({tile.label}), {_kind_words(run, tile)}; {run.arm_title(tile.model)} says {tile.predicted}"


def _kind_words(run: Run, tile: Tile) -> str:
    """What the image is: clean, or attacked by whom and how far."""
    if tile.kind == "clean":
        return "Clean"
    step = STEP_WORDS.get(tile.kind, "step {}").format(tile.step) if tile.step >= 0 else "no success"
    return f"{run.attack_title(tile.kind)}, {step}"


def _at_pixel(tile: Tile) -> str:
    """How much of the relevance lies around the changed pixel: the claim of the paper, as a number."""
    total = float(np.abs(tile.heat).sum())
    if tile.pixel is None or not total:
        return ""
    row, column = tile.pixel
    window = tile.heat[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    held, even = float(np.abs(window).sum()) / total, window.size / tile.heat.size
    return f"{100 * held:.2g} % of |relevance| in the 3×3 around the pixel (evenly spread: {100 * even:.2g} %)"


def _mark(tile: Tile) -> Mark | None:
    """Ring and arrow, the arrow coming from the side where there is room."""
    if tile.pixel is None:
        return None
    height, width = tile.heat.shape
    x, y = tile.pixel[1] + 0.5, tile.pixel[0] + 0.5
    radius = max(width, height) / 18
    across = (1 if x < width / 2 else -1, 1 if y < height / 2 else -1)
    ux, uy = across[0] / hypot(1, 1), across[1] / hypot(1, 1)
    tip = (x + 1.25 * radius * ux, y + 1.25 * radius * uy)
    tail = (x + 4.2 * radius * ux, y + 4.2 * radius * uy)
    corners = [(tip[0] + radius * across[0], tip[1]), tip, (tip[0], tip[1] + radius * across[1])]
    return Mark(
        width=width,
        height=height,
        x=x,
        y=y,
        radius=round(radius, 2),
        tail=(round(tail[0], 2), round(tail[1], 2)),
        tip=(round(tip[0], 2), round(tip[1], 2)),
        barbs=" ".join(f"{a:.2f},{b:.2f}" for a, b in corners),
    )
