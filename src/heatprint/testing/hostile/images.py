"""Image files as they really occur: every mode and format, with what must be read from them, and damaged copies.

All pictures show one scene of `SIDE` pixels, soft and without any symmetry, so that whatever is turned, swapped or
scaled wrongly is seen in the pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from heatprint.core.streams import stream
from heatprint.testing.hostile.damage import mangled

SIDE = 24
LOSSY = 6.0  # levels by which a lossy format may be off on average
ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One file.

    Attributes:
        name: Its file name.
        content: Its bytes.
        pixels: What must be read from it, uint8 [SIDE, SIDE, 3]; None where nothing must.
        off: By how many levels what is read may differ on average.
        refused: It must be, with a reason; without this and without pixels either answer is right.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None = None
    off: float = 0.0
    refused: bool = False


@cache
def scene() -> np.ndarray:
    """The picture, uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    layers = [40 + 180 * x, 30 + 160 * y * x, 200 - 150 * y]
    return np.stack(layers, 2).round().astype(np.uint8)


def readable() -> Iterator[Case]:
    """Files that must be read, with the right pixels: modes, depths, transparency, animation, orientation."""
    yield from _colours()
    yield from _greys()
    yield from _see_through()
    yield from _moving()
    yield from _turned()
    yield Case(name="png called.jpg", content=written(scene(), "PNG"), pixels=scene())
    yield Case(name="jpeg called.png", content=written(scene(), "JPEG", quality=95), pixels=scene(), off=LOSSY)
    yield Case(name="shouting.PNG", content=written(scene(), "PNG"), pixels=scene())


def written(picture: np.ndarray | Image.Image, kind: str, **settings: object) -> bytes:
    """A picture as a file of this format."""
    sink = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(sink, kind, **settings)
    return sink.getvalue()


def _colours() -> Iterator[Case]:
    picture = Image.fromarray(scene())
    for kind, suffix in (("PNG", "png"), ("BMP", "bmp"), ("TIFF", "tif"), ("PPM", "ppm")):
        yield Case(name=f"plain.{suffix}", content=written(scene(), kind), pixels=scene())
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        content = written(scene(), "TIFF", compression=compression)
        yield Case(name=f"{compression}.tiff", content=content, pixels=scene())
    yield Case(name="lossless.webp", content=written(scene(), "WEBP", lossless=True), pixels=scene())
    yield Case(name="lossy.webp", content=written(scene(), "WEBP", quality=95), pixels=scene(), off=LOSSY)
    for name, settings in {"baseline": {}, "progressive": {"progressive": True}}.items():
        content = written(scene(), "JPEG", quality=95, subsampling=0, **settings)
        yield Case(name=f"{name}.jpeg", content=content, pixels=scene(), off=LOSSY)
    inks = 255 - np.concatenate([scene(), np.full((SIDE, SIDE, 1), 255, np.uint8)], 2)  # no black ink
    printed = Image.frombytes("CMYK", (SIDE, SIDE), inks.tobytes())
    yield Case(name="cmyk.jpg", content=written(printed, "JPEG", quality=95), pixels=scene(), off=LOSSY)
    yield Case(name="cmyk.tif", content=written(printed, "TIFF"), pixels=scene(), off=1)
    few = picture.quantize(16, dither=Image.Dither.NONE)
    for name, kind in (("palette.png", "PNG"), ("palette.gif", "GIF"), ("palette.bmp", "BMP"), ("palette.tif", "TIFF")):
        yield Case(name=name, content=written(few, kind), pixels=np.asarray(few.convert("RGB")))
    deep = np.asarray(scene(), np.uint16) * 257
    yield Case(name="16-bit colour.png", content=_png_16(deep), pixels=scene())


def _greys() -> Iterator[Case]:
    grey = scene()[:, :, 0]
    shown = np.repeat(grey[:, :, None], 3, 2)
    for kind, suffix in (("PNG", "png"), ("PPM", "pgm"), ("TIFF", "tif")):
        yield Case(name=f"grey.{suffix}", content=written(grey, kind), pixels=shown)
        yield Case(name=f"16-bit.{suffix}", content=written(grey.astype(np.uint16) * 257, kind), pixels=shown)
    yield Case(name="16-bit big-endian.tif", content=_tiff_big_endian(grey.astype(np.uint16) * 257), pixels=shown)
    yield Case(name="32-bit.tif", content=written(grey.astype(np.int32), "TIFF"), pixels=shown)
    yield Case(name="float of 255.tif", content=written(grey.astype(np.float32), "TIFF"), pixels=shown)
    yield Case(name="float of 1.tif", content=written((grey / 255).astype(np.float32), "TIFF"), pixels=shown)
    yield Case(name="float of 1.ppm", content=_pfm((grey / 255).astype(np.float32)), pixels=shown)
    black = grey > 128
    both = np.repeat((black * 255).astype(np.uint8)[:, :, None], 3, 2)
    for kind, suffix in (("PNG", "png"), ("BMP", "bmp"), ("TIFF", "tif"), ("PPM", "ppm"), ("GIF", "gif")):
        yield Case(name=f"1-bit.{suffix}", content=written(Image.fromarray(black), kind), pixels=both)


def _see_through() -> Iterator[Case]:
    alpha = np.linspace(0, 255, SIDE).round()[None].repeat(SIDE, 0).astype(np.uint8)
    share = alpha[:, :, None] / 255
    on_white = (scene() * share + 255 * (1 - share)).round().astype(np.uint8)
    colour = np.dstack([scene(), alpha])
    for kind, suffix, settings in (("PNG", "png", {}), ("TIFF", "tif", {}), ("WEBP", "webp", {"lossless": True})):
        content = written(colour, kind, **settings, **({"exact": True} if kind == "WEBP" else {}))
        yield Case(name=f"alpha.{suffix}", content=content, pixels=on_white, off=1)
    grey = Image.fromarray(colour).convert("RGB").getchannel(0)
    both = Image.merge("LA", (grey, Image.fromarray(alpha)))
    grey_on_white = np.repeat(on_white[:, :, :1], 3, 2)
    yield Case(name="grey and alpha.png", content=written(both, "PNG"), pixels=grey_on_white, off=1)
    glass = np.dstack([scene(), np.zeros((SIDE, SIDE), np.uint8)])
    yield Case(name="glass.png", content=written(glass, "PNG"), pixels=np.full_like(scene(), 255))
    few = Image.fromarray(scene()).quantize(8, dither=Image.Dither.NONE)
    holes = np.asarray(few) == 3
    seen = np.where(holes[:, :, None], 255, np.asarray(few.convert("RGB"))).astype(np.uint8)
    for kind, suffix in (("PNG", "png"), ("GIF", "gif")):
        yield Case(name=f"palette with a hole.{suffix}", content=written(few, kind, transparency=3), pixels=seen)


def _moving() -> Iterator[Case]:
    frames = [Image.fromarray(np.roll(scene(), 5 * step, 1)) for step in range(1, 4)]
    first = Image.fromarray(scene())
    for name, kind, settings in (
        ("animated.png", "PNG", {}),
        ("animated.webp", "WEBP", {"lossless": True}),
        ("pages.tif", "TIFF", {}),
    ):
        content = written(first, kind, save_all=True, append_images=frames, **settings)
        yield Case(name=name, content=content, pixels=scene())
    few = [frame.quantize(16, dither=Image.Dither.NONE) for frame in (first, *frames)]
    content = written(few[0], "GIF", save_all=True, append_images=few[1:], duration=100, loop=0)
    yield Case(name="animated.gif", content=content, pixels=np.asarray(few[0].convert("RGB")))


def _turned() -> Iterator[Case]:
    """The scene as a camera held in each of the eight ways stores it, with the note that says how."""
    for orientation, stored in held().items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        for kind, suffix, settings, off in (
            ("JPEG", "jpg", {"quality": 95, "subsampling": 0}, LOSSY),
            ("PNG", "png", {}, 0),
            ("WEBP", "webp", {"lossless": True}, 0),
            ("TIFF", "tif", {}, 0),
        ):
            content = written(stored, kind, exif=exif, **settings)
            yield Case(name=f"held {orientation}.{suffix}", content=content, pixels=scene(), off=off)


def held() -> Mapping[int, np.ndarray]:
    """Orientation (EXIF 2.3, table 4.6.4 A) to the rows and columns a camera stores, when the scene is as it should be.

    In words of the standard: 1 the first row is the top and the first column the left side, 2 top and right, 3 bottom
    and right, 4 bottom and left, 5 left and top, 6 right and top, 7 right and bottom, 8 left and bottom.
    """
    right = scene()
    across = right.transpose(1, 0, 2)  # its rows are the columns of the scene
    ways = {
        1: right, 2: right[:, ::-1], 3: right[::-1, ::-1], 4: right[::-1],
        5: across, 6: across[::-1], 7: across[::-1, ::-1], 8: across[:, ::-1],
    }  # fmt: skip
    return {way: np.ascontiguousarray(stored) for way, stored in ways.items()}


def damaged(seed: int, count: int) -> Iterator[Case]:
    """Copies of readable files of every kind, each with damage of its own: read or refused."""
    whole = sorted(readable(), key=lambda case: case.name)
    for number in range(count):
        case = whole[number % len(whole)]
        stem, _, suffix = case.name.rpartition(".")
        content = mangled(case.content, stream(seed, "hostile/images", str(number)))
        yield Case(name=f"{stem} {number}.{suffix}", content=content)


def _png_16(pixels: np.ndarray) -> bytes:
    """16-bit colour, uint16 [H, W, 3], which Pillow does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    """A piece of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _tiff_big_endian(grey: np.ndarray) -> bytes:
    """16-bit grey, uint16 [H, W], in the byte order of old workstations."""
    height, width = grey.shape
    body = grey.astype(">u2").tobytes()
    tags = (
        (256, width),
        (257, height),
        (258, 16),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(body)),
    )
    listed = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack(">2sHI", b"MM", 42, 8 + len(body)) + body + struct.pack(">H", len(tags)) + listed + bytes(4)


def _pfm(grey: np.ndarray) -> bytes:
    """Floats, float32 [H, W], as a portable float map: from the last row up."""
    height, width = grey.shape
    return b"Pf\n%d %d\n-1.0\n" % (width, height) + grey[::-1].astype("<f4").tobytes()
