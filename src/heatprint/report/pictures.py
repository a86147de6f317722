"""Arrays as PNG data URIs: images, amplified perturbations, heat maps and their colour bar.

Heat maps are written with a palette of 255 colours whose middle one is exactly zero, so that white always means
"no relevance" and one number, the scale, says what the ends mean.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from PIL import Image

COLOUR_MAP = "RdBu_r"  # diverging and safe for red-green blindness: blue below zero, red above
STEPS = 127  # colours on either side of zero
KEPT = 99.5  # percentile of |relevance| at which the scale ends: a single hot pixel must not bleach the rest


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A zero-centred colour scale shared by several heat maps.

    Attributes:
        limit: Relevance at the ends, in logits.
        peak: Largest |relevance| that occurs.
        beyond: Share of pixels past the ends, 0 to 1; they take the end colours.
    """

    limit: float
    peak: float
    beyond: float


def shared_scale(maps: list[np.ndarray]) -> Scale:
    """One scale for all maps of a row."""
    sizes = np.abs(np.concatenate([one.ravel() for one in maps]))
    limit = float(np.percentile(sizes, KEPT)) or float(sizes.max()) or 1.0
    return Scale(limit=limit, peak=float(sizes.max()), beyond=float((sizes > limit).mean()))


def image_uri(image: np.ndarray) -> str:
    """An image, uint8 [H, W, 3]."""
    return _png(Image.fromarray(image))


def heat_uri(heat: np.ndarray, scale: Scale) -> str:
    """A heat map [H, W] in the colours of a scale."""
    index = np.clip(np.rint(heat / scale.limit * STEPS), -STEPS, STEPS) + STEPS
    return _indexed(index.astype(np.uint8))


def bar_uri() -> str:
    """The colour bar, from the negative end to the positive one."""
    return _indexed(np.arange(2 * STEPS + 1, dtype=np.uint8)[None, :])


def perturbation_uri(clean: np.ndarray, changed: np.ndarray) -> tuple[str, float]:
    """What an attack added, on grey, and how many grey levels one level of change is drawn as."""
    delta = changed.astype(np.float64) - clean.astype(np.float64)
    largest = float(np.abs(delta).max())
    gain = STEPS / largest if largest else 1.0
    gain = float(int(gain)) if gain > 1 else round(gain, 2)
    return image_uri(np.clip(np.rint(STEPS + gain * delta), 0, 255).astype(np.uint8)), gain


def outline(region: np.ndarray) -> str:
    """An SVG path around a region bool [H, W], one unit per pixel; empty where the region is."""
    padded = np.pad(region.astype(bool), 1)
    level, upright = padded[1:, 1:-1] != padded[:-1, 1:-1], padded[1:-1, 1:] != padded[1:-1, :-1]
    across = [f"M{start} {line}h{length}" for line, start, length in _runs(level)]
    return "".join(across + [f"M{line} {start}v{length}" for line, start, length in _runs(upright.T)])


def _runs(edges: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Line, start and length of every run of True along the lines of an array."""
    ends = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    lines, starts = np.nonzero(ends == 1)
    _, stops = np.nonzero(ends == -1)
    return zip(lines.tolist(), starts.tolist(), (stops - starts).tolist(), strict=True)


@cache
def _palette() -> bytes:
    colours = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 2 * STEPS + 1))[:, :3]
    return bytes(np.rint(colours * 255).astype(np.uint8))


def _indexed(index: np.ndarray) -> str:
    picture = Image.fromarray(index)
    picture.putpalette(_palette())
    return _png(picture)


def _png(picture: Image.Image) -> str:
    sink = io.BytesIO()
    picture.save(sink, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode("ascii")
