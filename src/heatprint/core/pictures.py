"""Any picture as the square RGB image a classifier sees; nothing here imports torch.

Files of pictures are untrusted. Only the decoders of `FORMATS` are let near them, whatever a file is called: others
would start programs (PostScript) or read what else a file may hide. What a file claims is checked before it is decoded,
and what a decoder then raises comes out as one kind of error.
"""

from __future__ import annotations

import ctypes
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from heatprint.core.errors import StoreError, UnreadableData
from heatprint.core.reading import read_regular, spelled

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
MOST_PIXELS = 64_000_000  # decoded pixels of one file: above any photograph, below a decompression bomb
MOST_BYTES = 256_000_000  # of one file: as many pixels, stored as they are
MOST_SIDE = 65_535  # pixels, as in JPEG; of a longer row, what resizing weighs would fill the memory
MOST_SCANS = 100  # of a JPEG: a progressive one has a dozen, and each costs a pass over all pixels
MOST_STORED = 4096 * 4096  # pixels of an image in a run folder: `heatprint.data` makes none larger
LARGE = 4_000_000  # pixels from which pictures are decoded one after another, so that memory holds one of them
BROKEN = (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError, KeyError, TypeError, ArithmeticError,
          struct.error, zlib.error)  # fmt: skip
"""What Pillow raises on damaged files, by format and place of the damage."""

SCAN, EXIF = b"\xff\xda", b"Exif\x00\x00"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what makes a picture upright, by the orientation that its camera noted

T = TypeVar("T")

_one_large = threading.RLock()


class TooManyPixels(UnreadableData):
    """A picture that claims to be larger than is decoded."""


def read(path: Path, size: int) -> np.ndarray:
    """A file as the image a classifier sees; see `decode`.

    Raises:
        OSError: It cannot be opened, is no regular file, or has more bytes than are read; see `reading.read_regular`.
        UnreadableData: As `decode`.
    """
    with _alone() if path.stat().st_size > 4 * LARGE else nullcontext():
        return decode(read_regular(path, MOST_BYTES), size)


def decode(
    content: bytes, size: int, *, formats: Sequence[str] = FORMATS, most_pixels: int = MOST_PIXELS
) -> np.ndarray:
    """A file as the image a classifier sees: upright, on white, RGB, resized, the first frame of several.

    Args:
        content: The file.
        size: Side in pixels it is resized to (bilinear, antialiased, aspect not kept).
        formats: What it may be, by Pillow's names.
        most_pixels: Width times height as the file claims, looked at before anything is decoded.

    Returns:
        uint8 [3, size, size].

    Raises:
        TooManyPixels: It claims more pixels.
        UnreadableData: It is of another kind, or damaged; the message is the reason by itself.
    """
    if not content:
        raise UnreadableData("the file is empty")
    small = _opened(content, formats, most_pixels, lambda image: square(image, size))
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))


def claimed_size(path: Path) -> tuple[int, int]:
    """Width and height as a picture file claims them, without decoding it.

    Raises:
        OSError, UnreadableData: As `read`.
    """
    return _opened(read_regular(path, MOST_BYTES), FORMATS, MOST_PIXELS, lambda image: image.size)


def stored(content: bytes) -> np.ndarray:
    """An image of a run folder, uint8 [H, W, 3].

    Raises:
        StoreError: It is no PNG, damaged, or larger than any that heatprint writes.
    """
    try:
        return np.array(_opened(content, ("PNG",), MOST_STORED, lambda image: image.convert("RGB")))
    except UnreadableData as error:
        raise StoreError(f"store: an image of the run folder cannot be read: {error}.") from error


def square(image: Image.Image, size: int) -> Image.Image:
    """An opened picture upright, on white, RGB, `size` pixels to a side: bilinear, antialiased, aspect not kept.

    Raises:
        OSError, ValueError, SyntaxError, ...: See `BROKEN`.
    """
    image.load()  # TIFF is upright after this, and says so
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    rgb = _rgb(image)
    upright = rgb if turn is None else rgb.transpose(turn)
    return upright.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=None)


def _opened(content: bytes, formats: Sequence[str], most_pixels: int, made: Callable[[Image.Image], T]) -> T:
    """What is made of a file, or the reason why nothing is."""
    try:
        if content.startswith(b"\xff\xd8") and max(content.count(SCAN), content.count(EXIF)) > MOST_SCANS:
            raise UnreadableData(f"more than {MOST_SCANS} scans or EXIF blocks, which would take hours")
        with _quietly, Image.open(io.BytesIO(content), formats=tuple(formats)) as image:
            pixels = image.width * image.height
            if pixels > most_pixels or max(image.size) > MOST_SIDE:
                raise TooManyPixels(
                    f"{image.width} x {image.height} are more than {most_pixels:,} pixels, or {MOST_SIDE:,} in a row"
                )
            with _alone() if pixels > LARGE else nullcontext():
                return made(image)
    except UnreadableData:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"it claims far more than {most_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableData(f"not an image file of a known kind ({', '.join(formats)})") from error
    except BROKEN as error:
        told = spelled(str(error))[:200] or type(error).__name__
        raise UnreadableData(f"damaged or cut short ({told})") from error


@contextmanager
def _alone() -> Iterator[None]:
    """One large picture at a time, and its memory given back: glibc keeps what a thread frees for that very thread."""
    with _one_large:
        try:
            yield
        finally:
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: 16-bit greys and floats scaled, transparency laid on white."""
    if image.mode.startswith(("I;16", "I", "F")):
        return Image.fromarray(_bytes(np.array(image, dtype=np.float32), unit=image.mode == "F")).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(layers, mask=layers.getchannel("A"))
        return rgb
    return image.convert("RGB")


def _bytes(wide: np.ndarray, *, unit: bool) -> np.ndarray:
    """Greys as bytes; full scale is 65535 where one is above 255, and 1 where floats never are above it."""
    highest = wide.max(initial=0)
    top = 1.0 if unit and highest <= 1 else 255.0 if highest <= 255 else 65535.0
    if not np.isfinite(wide).all():
        raise ValueError("it holds values that are no finite numbers")
    np.clip(wide, 0, top, out=wide)
    wide *= 255 / top
    return np.asarray(np.rint(wide, out=wide), dtype=np.uint8)


class _Quietly:
    """Pillow's warnings of odd EXIF and palettes, which it then reads well, silenced while any picture is open.

    `warnings.catch_warnings` alone is not for threads: the last to leave could put back what the first had silenced.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_quietly = _Quietly()
