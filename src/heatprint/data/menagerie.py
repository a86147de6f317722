"""The menagerie: procedurally drawn cats and dogs, a data set that needs no download.

The species differ in shape alone (ears, muzzle, eyes, build, in overlapping distributions); colours, light,
pose, place and background come from the same distributions for both. A scene may carry a planted artefact,
so that a heat map can be tested for finding one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import get_type_hints

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from heatprint.core.errors import InvalidInput
from heatprint.data.menagerie_parts import POSES, Anatomy, Coat, Easel, Field, Placement, Portrait, Trait

SPECIES = ("cat", "dog")
ARTEFACTS = ("bars", "caption", "footer")
SMALLEST, LARGEST = 32, 512

_FURS = ("#292424", "#737073", "#cc7a38", "#6b452b", "#e0cca8", "#ebe8e3", "#a88057", "#473833", "#9e9994")
_SKINS = ("#1a1414", "#c7807a", "#6b4740", "#2e2424")
_IRISES = ("#bf9e33", "#809e40", "#6b3d1a", "#739eb8", "#a66124")
_WALLS = ("#ccbfa8", "#9eb3bd", "#bd998a", "#8c9980", "#dbd9d1", "#6b6170")
_FLOORS = ("#855c3b", "#a88c6b", "#736b6b", "#99665c", "#524540")
_SKIES = ("#9ec2e6", "#ccd6e0", "#e6c7a8", "#59805c")
_GROUNDS = ("#578038", "#808a47", "#9e8c6b", "#75706b", "#e0e3eb")
_LEAVES = ("#335c29", "#527333", "#736b2e", "#294533")
_BARK = ("#6b452b", "#57493f")

_TRAITS: dict[str, Trait] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Anatomy, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
_FOLDED = {"cat": 0.08, "dog": 0.62}  # how often ears fold


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One drawn photograph and what is where in it.

    Attributes:
        image: [H, W, 3] RGB.
        species: One of SPECIES.
        object_mask: [H, W], where the animal is visible (not where an artefact covers it).
        artefact_mask: [H, W], where a planted artefact is drawn; all False without one.
    """

    image: NDArray[np.uint8]
    species: str
    object_mask: NDArray[np.bool_]
    artefact_mask: NDArray[np.bool_]


def draw(species: str, *, rng: np.random.Generator, size: int = 112, artefact: str | None = None) -> Scene:
    """Draw one animal of a species in a square photograph.

    The artefact is planted last: from the same state of rng come the same animal and background with it as
    without, and the two images differ only inside the artefact's mask.

    Args:
        species: One of SPECIES.
        rng: Where all randomness comes from; the same state gives the same scene.
        size: Pixels to each side, 32 to 512.
        artefact: One of ARTEFACTS to plant, or None.

    Returns:
        The photograph with its masks.
    """
    _check("species", species, SPECIES)
    if artefact is not None:
        _check("artefact", artefact, ARTEFACTS)
    if not SMALLEST <= size <= LARGEST:
        raise InvalidInput(f"size is {size}; it must be {SMALLEST} to {LARGEST} pixels")
    pose = str(rng.choice(POSES))
    place = _place(pose, size, rng)
    angle, hardness = rng.uniform(-np.pi, 0.0), rng.uniform(0.3, 1.2)
    light = (hardness * float(np.cos(angle)), hardness * float(np.sin(angle)))
    easel = Easel(_background(place, size, rng), light, rng)
    Portrait(easel, _grow(species, rng), _coat(size, rng), place).paint(pose)
    image = _photograph(easel.canvas, light, rng)
    planted = np.zeros((size, size), dtype=np.bool_)
    if artefact is not None:
        image, planted = paste(image, artefact, rng=rng)
    visible = (easel.cover > 0.5) & ~planted
    return Scene(image=image, species=species, object_mask=visible, artefact_mask=planted)


def paste(
    image: NDArray[np.uint8], artefact: str, *, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Plant an artefact on an image; outside the artefact's mask nothing changes.

    Args:
        image: [H, W, 3] RGB; it is left as it is.
        artefact: One of ARTEFACTS: "bars" are upright bars in front of everything, "caption" is a small line
            of text at the upper or lower border, "footer" is one at the lower border always.
        rng: Where all randomness comes from.

    Returns:
        A new image [H, W, 3] and the artefact's mask [H, W].
    """
    _check("artefact", artefact, ARTEFACTS)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InvalidInput(f"image is {image.dtype} {list(image.shape)}; it must be uint8 [H, W, 3]")
    height, width = image.shape[:2]
    colour, alpha = _ARTISTS[artefact](height, width, rng)
    photo = image.astype(np.float32)
    grain = 4 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return _bytes(photo + alpha[..., None] * (colour + grain - photo)), alpha > 0


def _check(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InvalidInput(f"{what} is {value!r}; it must be one of {', '.join(map(repr, valid))}")


# --- artefacts: colours [H, W, 3] in 0..255 and coverage [H, W] in 0..1 ---------------------------------


def _bars(height: int, width: int, rng: np.random.Generator) -> tuple[Field, Field]:
    """Evenly spaced upright rods, lit as round ones."""
    gap = width * rng.uniform(0.14, 0.24)
    thick = max(2.0, width * rng.uniform(0.024, 0.042))
    x, y = np.arange(width), np.arange(height)[:, None]
    offset = (x + rng.normal(0.0, 0.015) * y + rng.uniform(0.0, gap)) % gap - 0.5 * gap
    alpha = np.clip(0.5 * thick + 0.5 - np.abs(offset), 0.0, 1.0)
    across = np.clip(offset / thick + rng.uniform(-0.25, 0.25), -1.0, 1.0)
    metal = rng.uniform(50, 215) * rng.uniform(0.92, 1.08, 3)
    colour = (0.75 + 0.35 * np.cos(np.pi * across))[..., None] * metal
    return _single(colour), _single(alpha)


def _caption(height: int, width: int, rng: np.random.Generator, *, lower: bool = False) -> tuple[Field, Field]:
    """A line of made-up words on a dim label, cut where the image is too small for it."""
    line = f"{_word(rng)} {_word(rng)} {_word(rng)} {rng.integers(1990, 2025)}"
    font = _font(max(6, round(0.075 * height)))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(line))
    text = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(text).text((1 - left, 1 - top), line, font=font, fill=255)
    ink = np.asarray(text, dtype=np.float32)[: height - 2, : width - 2] / 255
    tall, wide = ink.shape
    y0 = 1 if rng.random() < 0.5 and not lower else height - tall - 1
    x0 = int(rng.integers(1, width - wide))
    paper, letters = (40.0, 240.0) if rng.random() < 0.5 else (225.0, 20.0)
    colour = np.zeros((height, width, 3), dtype=np.float32)
    alpha = np.zeros((height, width), dtype=np.float32)
    label = (slice(y0, y0 + tall), slice(x0, x0 + wide))
    colour[label] = (paper + ink * (letters - paper))[..., None]
    alpha[label] = 0.55 + 0.45 * ink
    return colour, alpha


_ARTISTS: dict[str, Callable[[int, int, np.random.Generator], tuple[Field, Field]]] = {
    "bars": _bars,
    "caption": _caption,
    "footer": partial(_caption, lower=True),
}


def _word(rng: np.random.Generator) -> str:
    syllables = ("ba", "do", "fel", "ki", "lo", "mar", "nu", "pa", "ri", "so", "ten", "vo")
    return "".join(rng.choice(syllables, 2).tolist()).capitalize()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


# --- animal ---------------------------------------------------------------------------------------------


def _grow(species: str, rng: np.random.Generator) -> Anatomy:
    """An animal of the species; a few come out much like the other one."""
    # How typical the whole animal is: a low value moves all its traits towards the other species at once.
    typical = rng.normal(1.0, 0.25) * (0.5 if species == "cat" else -0.5)
    traits = {}
    for name, trait in _TRAITS.items():
        mean = 0.5 * (trait.cat + trait.dog) + typical * (trait.cat - trait.dog)
        traits[name] = min(max(rng.normal(mean, trait.spread), trait.low), trait.high)
    flop = rng.uniform(0.55, 1.0) if rng.random() < _FOLDED[species] else rng.uniform(0.0, 0.2)
    return Anatomy(ear_flop=flop, **traits)


def _place(pose: str, size: int, rng: np.random.Generator) -> Placement:
    """Where the animal goes: anything from all of it to hardly more than its head, often cut by the frame."""
    close = rng.random() < 0.35
    facing = 1 if rng.random() < 0.5 else -1
    if close:
        radius, x, y = rng.uniform(0.23, 0.31), rng.uniform(0.36, 0.64), rng.uniform(0.38, 0.58)
    elif pose == "sitting":
        radius, x, y = rng.uniform(0.15, 0.2), rng.uniform(0.3, 0.7), rng.uniform(0.27, 0.42)
    else:
        radius, x, y = rng.uniform(0.14, 0.19), rng.uniform(0.58, 0.82), rng.uniform(0.3, 0.55)
        x = x if facing > 0 else 1.0 - x
    yaw = rng.uniform(-0.5, 0.5) if pose == "sitting" else rng.uniform(-0.25, 0.75)
    pitch, roll = rng.normal(0.22, 0.1), rng.normal(0.0, 0.12)
    x, y, radius = x * size, y * size, radius * size
    return Placement(x=x, y=y, radius=radius, facing=facing, yaw=yaw, pitch=pitch, roll=roll)


def _coat(size: int, rng: np.random.Generator) -> Coat:
    """Colours and texture of a fur: plain, striped, patched or spotted, with or without white."""
    base, second = _pick(_FURS, rng), _pick(_FURS, rng)
    pattern = rng.uniform(0.3, 1.0) * _pattern(size, rng)
    fur = base + pattern[..., None] * (second - base)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    strands = noise + np.roll(noise, 1, axis=0) + np.roll(noise, 2 * size + 1)
    texture = 1.0 + rng.uniform(0.02, 0.06) * strands + 0.25 * (_cloud(size, 9, rng) - 0.5)
    white = rng.uniform(0.4, 1.0) if rng.random() < 0.45 else rng.uniform(0.0, 0.15)
    pale = fur + white * (0.9 - fur)
    dark, skin, iris = 0.25 * base, _pick(_SKINS, rng), _pick(_IRISES, rng)
    fur, pale = fur * texture[..., None], pale * texture[..., None]
    return Coat(fur=_single(fur), pale=_single(pale), dark=dark, skin=skin, iris=iris, fluff=rng.uniform(0.008, 0.03))


def _pattern(size: int, rng: np.random.Generator) -> Field:
    """How much of its second colour a fur shows: [size, size] in 0..1."""
    kind = rng.choice(("plain", "stripes", "patches", "spots"))
    if kind == "plain":
        return np.zeros((size, size), dtype=np.float32)
    if kind == "stripes":
        across, down = rng.normal(0.0, 40.0, 2)
        at = np.arange(size) / size
        waves = np.sin(across * at + down * at[:, None] + 10 * _cloud(size, 5, rng))
        return _single(np.clip(0.4 + waves, 0, 1) * _cloud(size, 4, rng))
    lumps = _cloud(size, 5 if kind == "patches" else 16, rng)
    return _single(np.clip(6 * (lumps - rng.uniform(0.4, 0.7)), 0, 1))


# --- photograph -----------------------------------------------------------------------------------------


def _background(place: Placement, size: int, rng: np.random.Generator) -> Field:
    """A room or a garden, out of focus: [size, size, 3] in 0..1."""
    foot = place.y + 2.6 * place.radius
    horizon = float(np.clip(foot - rng.uniform(0.05, 0.35) * size, 0.25 * size, 0.95 * size))
    indoors = rng.random() < 0.5
    image = Image.new("RGB", (size, size), _ink(_pick(_WALLS if indoors else _SKIES, rng)))
    pen = ImageDraw.Draw(image)
    (_hang_pictures if indoors else _plant_trees)(pen, horizon, size, rng)
    pen.rectangle((0, horizon, size, size), fill=_ink(_pick(_FLOORS if indoors else _GROUNDS, rng)))
    (_strew_rugs if indoors else _strew_tufts)(pen, horizon, size, rng)
    image = image.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.006, 0.025)))
    rough = 0.6 * _cloud(size, 7, rng) + 0.4 * _cloud(size, int(rng.integers(16, 28)), rng)
    texture = 1.0 + rng.uniform(0.1, 0.5) * (rough - 0.5)
    return _single(np.asarray(image) * (texture[..., None] / 255))


def _hang_pictures(pen: ImageDraw.ImageDraw, horizon: float, size: int, rng: np.random.Generator) -> None:
    """Framed things on a wall: pictures, windows, cupboards."""
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(-0.2, 1.0) * size, rng.uniform(-0.2, 0.8) * horizon
        wide, high = rng.uniform(0.12, 0.5) * size, rng.uniform(0.12, 0.6) * size
        frame = 0.1 * min(wide, high)
        pen.rectangle((x, y, x + wide, y + high), fill=_ink(_pick(_WALLS + _FLOORS + _LEAVES, rng)))
        inside = (x + frame, y + frame, x + wide - frame, y + high - frame)
        pen.rectangle(inside, fill=_ink(_pick(_WALLS + _SKIES, rng)))


def _strew_rugs(pen: ImageDraw.ImageDraw, horizon: float, size: int, rng: np.random.Generator) -> None:
    """Round things on a floor: rugs, cushions, balls."""
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(-0.2, 1.0) * size, rng.uniform(horizon, size)
        wide, high = rng.uniform(0.12, 0.5) * size, rng.uniform(0.06, 0.25) * size
        pen.ellipse((x, y, x + wide, y + high), fill=_ink(_pick(_WALLS + _FLOORS + _LEAVES, rng)))


def _plant_trees(pen: ImageDraw.ImageDraw, horizon: float, size: int, rng: np.random.Generator) -> None:
    """Trees and bushes at the horizon."""
    for _ in range(rng.integers(2, 7)):
        x, wide, high = (part * size for part in rng.uniform((0.0, 0.08, 0.1), (1.0, 0.28, 0.5)))
        stem = 0.15 * wide
        pen.rectangle((x - stem, horizon - high, x + stem, horizon), fill=_ink(_pick(_BARK, rng)))
        crown = (x - wide, horizon - 1.3 * high, x + wide, horizon - 0.3 * high)
        pen.ellipse(crown, fill=_ink(_pick(_LEAVES, rng)))


def _strew_tufts(pen: ImageDraw.ImageDraw, horizon: float, size: int, rng: np.random.Generator) -> None:
    """Pointed things on the ground: tufts, stones."""
    for _ in range(rng.integers(2, 9)):
        x, wide, high = (part * size for part in rng.uniform((0.0, 0.02, 0.02), (1.0, 0.15, 0.12)))
        y = rng.uniform(horizon, size)
        pen.polygon((x - wide, y, x, y - high, x + wide, y), fill=_ink(_pick(_LEAVES + _GROUNDS, rng)))


def _photograph(canvas: Field, light: tuple[float, float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a small camera makes of the canvas: light, lens blur, smoothed colour and sensor noise."""
    size = len(canvas)
    across = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    down = across[:, None]
    falloff = 1.0 + 0.25 * (light[0] * across + light[1] * down)
    falloff = falloff - rng.uniform(0.0, 0.5) * (across**2 + down**2)
    warmth = rng.normal(0.0, 0.05)
    tint = 255 * rng.uniform(0.75, 1.15) * np.array((1.0 + warmth, 1.0, 1.0 - warmth), dtype=np.float32)
    image = Image.fromarray(_bytes(canvas * _single(falloff[..., None] * tint)))
    image = image.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.002, 0.0055)))
    luma, *chroma = image.convert("YCbCr").split()
    noise = rng.uniform(1.5, 5.0) * rng.standard_normal((size, size), dtype=np.float32)
    grainy = Image.fromarray(_bytes(np.asarray(luma) + noise))
    smoothed = [plane.reduce(2).resize((size, size), Image.Resampling.BILINEAR) for plane in chroma]
    return np.array(Image.merge("YCbCr", [grainy, *smoothed]).convert("RGB"))


# --- colour and texture ---------------------------------------------------------------------------------


def _cloud(size: int, cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise [size, size] in about 0..1 with lumps of size / cells pixels."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _pick(palette: tuple[str, ...], rng: np.random.Generator) -> Field:
    """A colour [3] in 0..1 like one of the palette: a bit lighter or darker, a bit off in hue."""
    code = palette[int(rng.integers(len(palette)))]
    colour = np.frombuffer(bytes.fromhex(code[1:]), dtype=np.uint8) / 255
    return _single((colour * rng.normal(rng.uniform(0.8, 1.15), 0.05, 3)).clip(0.02, 0.98))


def _ink(colour: Field) -> tuple[int, int, int]:
    red, green, blue = (255 * colour).astype(int).tolist()
    return red, green, blue


def _single(values: NDArray[np.floating]) -> Field:
    return values.astype(np.float32, copy=False)


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(values).clip(0, 255), dtype=np.uint8)
