"""How the menagerie's animals are made: shapes, an easel to paint them on, an anatomy that varies, a portrait.

Lengths are in head radii, with x to the right, y down and z towards the viewer, until a `Placement` turns
them into pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Field = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float] | Field

POSES = ("sitting", "standing", "lying")
_SUPERSAMPLING = 2
_SIDES = (-1, 1)
_TURN = np.linspace(0.0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


# --- shapes: outlines [N, 2] ----------------------------------------------------------------------------


def ellipse(x: float, y: float, wide: float, high: float, tilt: float = 0.0) -> Points:
    """The ellipse around (x, y) with the half axes wide and high, turned clockwise by tilt (radians)."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.asarray((_CIRCLE * (wide, high)) @ np.array([[cos, sin], [-sin, cos]]) + (x, y))


def smooth(corners: Sequence[tuple[float, float]], steps: int = 6) -> Points:
    """The closed Catmull-Rom curve through the corners."""
    p1 = np.asarray(corners, dtype=np.float64)[:, None, :]
    p0, p2, p3 = (np.roll(p1, shift, axis=0) for shift in (1, -1, -2))
    t = (np.arange(steps) / steps)[:, None]
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return np.asarray(curve.reshape(-1, 2))


def symmetric(*right: tuple[float, float]) -> Points:
    """The closed curve through the corners of a right side, from top to bottom, and their mirror images."""
    return smooth([*right, *((-x, y) for x, y in reversed(right))])


def ribbon(spine: Points, widths: NDArray[np.float64] | float) -> Points:
    """The band along the spine [N, 2] that is as wide to each side as widths ([N] or one for all) says."""
    ahead = np.concatenate([spine[1:], spine[-1:]])
    along = ahead - np.concatenate([spine[:1], spine[:-1]])
    across = along[:, ::-1] * (-1.0, 1.0) / (np.hypot(along[:, :1], along[:, 1:]) + 1e-9)
    across *= np.broadcast_to(widths, len(spine))[:, None]
    return np.concatenate([spine + across, (spine - across)[::-1]])


def bend(x: float, y: float, angles: NDArray[np.float64], length: float) -> Points:
    """A spine [N + 1, 2] that leaves (x, y) and takes N equal steps, each in its angle (0 is up)."""
    steps = np.stack([np.sin(angles), -np.cos(angles)], axis=1) * (length / len(angles))
    return np.concatenate([[(x, y)], steps]).cumsum(axis=0)


def ruffle(outline: Points, amount: float, rng: np.random.Generator) -> Points:
    """The outline with tufts: points on it and between them, moved at random by amount (pixels)."""
    between = 0.5 * (outline + np.roll(outline, -1, axis=0))
    dense = np.stack([outline, between], axis=1).reshape(-1, 2)
    return np.asarray(dense + amount * rng.standard_normal(dense.shape))


# --- easel ----------------------------------------------------------------------------------------------


class Easel:
    """A canvas [H, W, 3] in 0..1 with the animal's coverage [H, W] in 0..1; draws without jagged edges.

    light is the direction (x, y) that light comes from; its length says how hard it shades.
    """

    def __init__(self, canvas: Field, light: tuple[float, float], rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.cover = np.zeros(canvas.shape[:2], dtype=np.float32)
        self.light = light
        self.rng = rng

    def fur(self, outlines: Sequence[Points], colour: Field, shade: float, hair: float) -> None:
        """Paint a rounded furry part: lit from one side, dark at its rim, shading what lies behind it."""
        outlines = [ruffle(outline, hair, self.rng) for outline in outlines]
        thick = float(np.ptp(np.concatenate(outlines), axis=0).min())
        radius = min(max(0.14 * thick, 0.6), 0.06 * len(self.canvas))
        found = self._stencil(outlines, pad=int(2 * radius) + 1)
        if found is None:
            return
        window, stencil = found
        blurred = stencil.filter(ImageFilter.BoxBlur(1.5 * radius))
        reach = 1.5 * radius
        ahead = ImageChops.offset(blurred, -round(self.light[0] * reach), -round(self.light[1] * reach))
        soft, turned = _field(blurred), _field(ahead)
        lit = shade * (0.74 + 0.31 * soft + 0.5 * (soft - turned))
        self.canvas[window] *= (1.0 - 0.4 * soft * self.cover[window])[..., None]
        self._blend(window, _field(stencil), np.asarray(colour[window] * lit[..., None], dtype=np.float32))

    def flat(self, outlines: Sequence[Points], colour: Colour, opacity: float = 1.0) -> None:
        """Paint outlines in one colour."""
        found = self._stencil(outlines, pad=1)
        if found is not None:
            self._blend(found[0], _field(found[1]) * np.float32(opacity), np.array(colour, dtype=np.float32))

    def shadow(self, outline: Points, depth: float) -> None:
        """Darken what is there, softly; a shadow is no part of the animal."""
        radius = 0.03 * len(self.canvas)
        found = self._stencil([outline], pad=int(2 * radius) + 1)
        if found is not None:
            soft = _field(found[1].filter(ImageFilter.GaussianBlur(radius)))
            self.canvas[found[0]] *= (1.0 - depth * soft)[..., None]

    def _blend(self, window: tuple[slice, slice], alpha: Field, colour: Field) -> None:
        self.canvas[window] += alpha[..., None] * (colour - self.canvas[window])
        np.maximum(self.cover[window], alpha, out=self.cover[window])

    def _stencil(self, outlines: Sequence[Points], pad: int) -> tuple[tuple[slice, slice], Image.Image] | None:
        """The smallest window of the canvas that holds the outlines, and their coverage in it (0..255)."""
        points = np.concatenate(outlines)
        low = np.maximum(np.floor(points.min(axis=0)) - pad, 0)
        high = np.minimum(np.ceil(points.max(axis=0)) + pad, len(self.canvas))
        (x0, y0), (x1, y1) = low.astype(int).tolist(), high.astype(int).tolist()
        if x1 <= x0 or y1 <= y0:
            return None
        image = Image.new("L", ((x1 - x0) * _SUPERSAMPLING, (y1 - y0) * _SUPERSAMPLING))
        pen = ImageDraw.Draw(image)
        for outline in outlines:
            pen.polygon(((outline - low) * _SUPERSAMPLING).ravel().tolist(), fill=255)
        return (slice(y0, y1), slice(x0, x1)), image.reduce(_SUPERSAMPLING)


def _field(image: Image.Image) -> Field:
    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)


# --- anatomy --------------------------------------------------------------------------------------------


class Trait(NamedTuple):
    """How a length varies: its mean in cats and in dogs, the spread in both, its lowest and highest value."""

    cat: float
    dog: float
    spread: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The shape of one animal. The species shows in these numbers and nowhere else, and in none for sure."""

    face_width: Annotated[float, Trait(1.08, 0.93, 0.07, 0.75, 1.3)]
    jaw: Annotated[float, Trait(0.62, 0.74, 0.07, 0.45, 0.95)]
    ear_length: Annotated[float, Trait(0.86, 0.92, 0.13, 0.5, 1.3)]
    ear_width: Annotated[float, Trait(0.38, 0.33, 0.05, 0.22, 0.55)]
    ear_point: Annotated[float, Trait(0.85, 0.45, 0.25, 0.0, 1.0)]
    ear_gap: Annotated[float, Trait(0.62, 0.68, 0.06, 0.45, 0.85)]
    muzzle_length: Annotated[float, Trait(0.18, 0.62, 0.15, 0.05, 1.0)]
    muzzle_width: Annotated[float, Trait(0.26, 0.33, 0.04, 0.18, 0.45)]
    nose: Annotated[float, Trait(0.13, 0.22, 0.035, 0.07, 0.32)]
    eye_size: Annotated[float, Trait(0.23, 0.17, 0.025, 0.11, 0.3)]
    eye_tilt: Annotated[float, Trait(0.22, 0.0, 0.12, -0.3, 0.5)]
    pupil_width: Annotated[float, Trait(0.32, 0.72, 0.17, 0.14, 0.9)]
    whiskers: Annotated[float, Trait(0.95, 0.35, 0.3, 0.0, 1.4)]
    neck: Annotated[float, Trait(0.62, 0.72, 0.08, 0.45, 0.95)]
    chest: Annotated[float, Trait(0.95, 1.1, 0.1, 0.7, 1.4)]
    belly: Annotated[float, Trait(1.1, 0.9, 0.1, 0.65, 1.4)]
    leg_length: Annotated[float, Trait(1.5, 2.05, 0.25, 1.0, 2.8)]
    leg_width: Annotated[float, Trait(0.25, 0.29, 0.04, 0.17, 0.4)]
    tail_length: Annotated[float, Trait(2.9, 2.0, 0.5, 0.6, 4.0)]
    tail_width: Annotated[float, Trait(0.17, 0.21, 0.05, 0.1, 0.38)]
    ear_flop: float  # 0 upright to 1 hanging


# --- portrait -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Coat:
    """An animal's colours: its fur and its paler fur as pictures [H, W, 3], its bare parts as RGB, in 0..1.

    fluff is the length of the tufts at its outline.
    """

    fur: Field
    pale: Field
    dark: Colour
    skin: Colour
    iris: Colour
    fluff: float


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an animal is: its head's middle and radius in pixels, which way it looks, how its head turns.

    facing is 1 (right) or -1 (left). yaw, pitch and roll are radians: yaw 0 looks at the viewer, positive
    turns the way the animal faces; positive pitch looks down.
    """

    x: float
    y: float
    radius: float
    facing: int
    yaw: float
    pitch: float
    roll: float

    def body(self, points: Points) -> Points:
        """Pixels of points [N, 2] that do not turn with the head."""
        return np.asarray(points * (self.facing * self.radius, self.radius) + (self.x, self.y))

    def head(self, points: Points, z: Points | float = 0.0) -> Points:
        """Pixels of points [N, 2] of the head that are z ([N] or one for all) in front of its middle."""
        x = points[:, 0] * np.cos(self.yaw) + z * np.sin(self.yaw)
        depth = z * np.cos(self.yaw) - points[:, 0] * np.sin(self.yaw)
        y = points[:, 1] * np.cos(self.pitch) + depth * np.sin(self.pitch)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return self.body(np.stack([x * cos - y * sin, x * sin + y * cos], axis=1))


class Portrait:
    """One animal in its place, painted part by part."""

    def __init__(self, easel: Easel, animal: Anatomy, coat: Coat, place: Placement) -> None:
        self.easel = easel
        self.animal = animal
        self.coat = coat
        self.place = place
        self.rng = easel.rng

    def paint(self, pose: str) -> None:
        """Paint the whole animal in one of POSES, from back to front."""
        {"sitting": self._sit, "standing": self._stand, "lying": self._lie}[pose]()
        self._head()

    def _fur(self, *pixels: Points, pale: bool = False, shade: float = 1.0, tuft: float = 1.0) -> None:
        colour = self.coat.pale if pale else self.coat.fur
        self.easel.fur(pixels, colour, shade, tuft * self.coat.fluff * self.place.radius)

    def _feature(self, outlines: list[Points], z: float, colour: Colour, opacity: float = 1.0) -> None:
        self.easel.flat([self.place.head(outline, z) for outline in outlines], colour, opacity)

    def _sit(self) -> None:
        """Upright on its haunches, towards the viewer."""
        animal, body = self.animal, self.place.body
        chest, belly, foot = 0.8 * animal.chest, 1.15 * animal.belly, animal.leg_width
        floor = 1.9 + animal.leg_length
        self.easel.shadow(body(ellipse(-0.3, floor + 0.1, 1.9, 0.35)), 0.5)
        self._tail(-0.8 * belly, floor - 0.3, self.rng.uniform(-2.0, -0.5))
        trunk = symmetric((0.5 * chest, 0.4), (chest, 1.3), (belly, floor - 0.9), (0.9 * belly, floor - 0.1))
        self._fur(body(trunk))
        for side in _SIDES:
            self._fur(body(ellipse(side * 0.85 * belly, floor - 0.55, 0.5, 0.62, side * 0.3)))
            self._fur(body(ellipse(side * 0.95 * belly, floor, 1.7 * foot, 0.8 * foot)), pale=True)
        bib = symmetric((0.5 * chest, 0.6), (0.45 * chest, 1.5), (0.15, 2.0))
        self._fur(body(bib), pale=True, tuft=2.0)
        for side in _SIDES:
            self._leg((side * 0.42 * chest, 1.5), (side * 0.4 * chest, floor), foot)

    def _stand(self) -> None:
        """On four legs, from the side."""
        animal, body = self.animal, self.place.body
        deep, tuck, width = 0.6 + 1.1 * animal.chest, 0.65 + 0.95 * animal.belly, 1.15 * animal.leg_width
        floor = 1.3 + animal.leg_length + 0.4 * deep
        hind, fore, far_hind, far_fore = self.rng.uniform(-0.35, 0.35, 4)
        self.easel.shadow(body(ellipse(-1.8, floor + 0.05, 2.3, 0.3)), 0.5)
        self._tail(-3.2, 0.75, self.rng.uniform(-2.2, -0.2))
        self._leg((-2.8, 1.2), (-2.7 + far_hind, floor - 0.15), width, shade=0.7)
        self._leg((-0.5, 1.2), (-0.4 + far_fore, floor - 0.15), width, shade=0.7)
        neck = ribbon(np.linspace((0.0, 0.1), (-0.9, 1.2), 5), animal.neck * np.linspace(0.85, 1.2, 5))
        back = [(-3.4, 1.4), (-3.45, 0.8), (-2.9, 0.4), (-1.7, 0.45), (-0.9, 0.35), (-0.2, 0.7), (0.1, 1.2)]
        trunk = smooth([*back, (-0.3, deep), (-1.6, 0.5 * (deep + tuck) + 0.1), (-2.6, tuck)])
        self._fur(body(neck), body(trunk))
        self._leg((-3.0, 1.1), (-3.1 + hind, floor), 1.15 * width)
        self._leg((-0.65, 1.2), (-0.7 + fore, floor), 1.1 * width)

    def _lie(self) -> None:
        """On its belly, from the side, with its front paws ahead."""
        animal, body = self.animal, self.place.body
        floor = 1.2 + 0.6 * animal.belly + 0.1 * animal.leg_length
        reach = 0.15 + 0.45 * animal.leg_length
        self.easel.shadow(body(ellipse(-1.2, floor + 0.1, 2.7, 0.3)), 0.5)
        self._tail(-3.1, floor - 0.5, self.rng.uniform(-2.2, -1.0))
        self._leg((-0.6, floor - 0.4), (reach + 0.2, floor - 0.2), animal.leg_width, shade=0.75)
        back = [(-3.1, floor), (-3.4, floor - 0.7), (-2.8, 0.55), (-1.6, 0.45), (-0.5, 0.2), (0.4, 0.6)]
        self._fur(body(smooth([*back, (0.5, 1.2), (0.0, floor), (-1.6, floor + 0.05)])))
        self._fur(body(ellipse(-2.5, floor - 0.55, 0.75, 0.6, -0.3)))
        self._leg((-2.5, floor - 0.1), (-1.7, floor), animal.leg_width)
        self._leg((-0.4, floor - 0.25), (reach, floor), animal.leg_width)

    def _leg(self, start: tuple[float, float], end: tuple[float, float], width: float, shade: float = 1.0) -> None:
        """One leg, thicker where it starts, with its paw."""
        widths = width * np.array([1.5, 1.2, 0.95, 0.85, 0.8, 0.85])
        leg = ribbon(np.linspace(start, end, 6), widths)
        paw = ellipse(end[0] + 0.35 * width, end[1], 1.25 * width, 0.7 * width)
        self._fur(self.place.body(leg), shade=shade)
        self._fur(self.place.body(paw), pale=True, shade=shade)

    def _tail(self, x: float, y: float, angle: float) -> None:
        """A tail that leaves the body in the given angle (0 is up) and curls on its way."""
        s = np.linspace(0.0, 1.0, 12)
        sway = 0.4 * np.sin(2 * np.pi * s + self.rng.uniform(0.0, 2 * np.pi))
        spine = bend(x, y, angle + self.rng.uniform(-2.4, 2.4) * s**1.5 + sway, self.animal.tail_length)
        widths = self.animal.tail_width * np.append(np.linspace(1.15, 0.8, 12), 0.3)
        self._fur(self.place.body(ribbon(spine, widths)), tuft=1.5)

    def _head(self) -> None:
        """Skull, ears behind it or folded in front of it, and the face."""
        wide, jaw, folded = self.animal.face_width, self.animal.jaw, self.animal.ear_flop > 0.4
        if not folded:
            self._ears()
        # A head is about as deep as it is wide, so its outline hardly narrows when it turns.
        wide *= (1.0 - 0.08 * abs(self.place.yaw)) / np.cos(self.place.yaw)
        skull = symmetric(
            (0.55 * wide, -0.83), (0.95 * wide, -0.3), (wide, 0.2), (jaw * wide, 0.72), (0.3 * wide, 0.93)
        )
        self._fur(self.place.head(skull))
        if folded:
            self._ears()
        self._muzzle()
        for side in _SIDES:
            self._eye(side)

    def _ears(self) -> None:
        """Both ears: upright triangles to round flaps that bend over."""
        animal, s = self.animal, np.linspace(0.0, 1.0, 11)
        rounded = np.sqrt(1.0 - s**2) * (1.0 + 0.25 * animal.ear_flop * np.sin(np.pi * s))
        widths = animal.ear_width * (animal.ear_point * (1.0 - s) + (1.0 - animal.ear_point) * rounded)
        lean = self.rng.uniform(0.1, 0.4) + 0.5 * animal.ear_flop
        hang = lean + 2.3 * animal.ear_flop / (1.0 + np.exp(-10.0 * (s[1:] - 0.3)))
        for side in _SIDES:
            angles = side * (hang + self.rng.normal(0.0, 0.08))
            x = side * animal.ear_gap * animal.face_width
            ear = ribbon(bend(x, -0.5, angles, animal.ear_length + 0.1), widths)
            self._fur(self.place.head(ear), shade=0.92, tuft=0.7)
            if animal.ear_flop < 0.4:
                inner = ribbon(bend(x, -0.5, angles, 0.8 * animal.ear_length), 0.6 * widths)
                self._feature([inner], 0.0, self.coat.skin, 0.75)

    def _eye(self, side: int) -> None:
        animal, z = self.animal, 0.75
        x, y, size, tilt = side * 0.44 * animal.face_width, -0.1, animal.eye_size, -side * animal.eye_tilt
        if z * np.cos(self.place.yaw) - x * np.sin(self.place.yaw) < 0.2:
            return  # on the far side of the head
        self._feature([ellipse(x, y, 1.2 * size, 1.03 * size, tilt)], z, self.coat.dark)
        self._feature([ellipse(x, y, 1.02 * size, 0.86 * size, tilt)], z, self.coat.iris)
        self._feature([ellipse(x, y, animal.pupil_width * size, 0.84 * size)], z, (0.03, 0.03, 0.04))
        glint = ellipse(x - 0.3 * size * self.place.facing, y - 0.35 * size, 0.2 * size, 0.2 * size)
        self._feature([glint], z, (0.95, 0.95, 0.95), 0.9)

    def _muzzle(self) -> None:
        """Snout, chin, cheeks, nose, mouth and whiskers."""
        wide, tip, n = self.animal.muzzle_width, 0.8 + self.animal.muzzle_length, self.animal.nose
        middles = np.array([(0, 0.36), (0, 0.36), (-0.75 * wide, 0.4), (0.75 * wide, 0.4), (0, 0.4 + wide)])
        z = np.array([0.6, tip, tip - 0.1, tip - 0.1, tip - 0.15])
        root, end, left, right, chin = self.place.head(middles, z)
        size = self.place.radius * wide
        self._fur(chin + ellipse(0, 0, 0.8 * size, 0.6 * size), pale=True, shade=0.9, tuft=0.5)
        bridge = ribbon(np.linspace(root, end, 4), size * np.array([1.5, 1.45, 1.35, 1.2]))
        self._fur(bridge, root + ellipse(0, 0, 1.5 * size, 1.3 * size), pale=True, tuft=0.5)
        cheek = ellipse(0, 0, size, 0.9 * size)
        self._fur(left + cheek, right + cheek, pale=True, tuft=0.5)
        nose = symmetric((0.4 * n, -0.65 * n), (n, -0.4 * n), (0.55 * n, 0.4 * n), (0.1 * n, 0.75 * n))
        self._feature([nose + np.array((0.0, 0.2))], tip + 0.1, self.coat.skin)
        self._mouth(0.2 + 0.7 * n, tip)
        self._whiskers(tip - 0.2)

    def _mouth(self, top: float, z: float) -> None:
        """A line down from the nose that parts into two lips."""
        s = np.linspace(0.0, 1.0, 7)
        line = np.stack([0.0 * s, top + 0.2 * s], axis=1)
        lip = np.stack([1.1 * self.animal.muzzle_width * s, top + 0.2 + 0.12 * np.sin(np.pi * s)], axis=1)
        lines = [ribbon(spine, 0.025) for spine in (line, lip, lip * (-1, 1))]
        self._feature(lines, z, (0.08, 0.05, 0.05), 0.8)

    def _whiskers(self, z: float) -> None:
        """Three to each side, from hardly there to longer than the face is wide."""
        length, s = self.animal.whiskers, np.linspace(0.0, 1.0, 6)
        lines = []
        for side in _SIDES:
            for row in (-1, 0, 1):
                x = side * (self.animal.muzzle_width + (0.2 + length) * s)
                slope = 0.16 * row + self.rng.normal(0.0, 0.08)
                y = 0.42 + 0.06 * row + slope * length * s + 0.12 * s**2
                lines.append(ribbon(np.stack([x, y], axis=1), np.linspace(0.022, 0.008, 6)))
        if length > 0.1:
            self._feature(lines, z, (0.92, 0.9, 0.86), 0.75)
