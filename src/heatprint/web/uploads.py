"""Images from strangers: read and decoded up to a limit, and made as the loader makes them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from heatprint.core.errors import InvalidInput
from heatprint.core.pictures import square

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
BROKEN = (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError, KeyError, TypeError, OverflowError,
          struct.error, zlib.error)  # fmt: skip
"""What Pillow raises on damaged files, by format and place of the damage."""


class TooLarge(InvalidInput):
    """More bytes or pixels than are taken."""


async def limited(
    stream: AsyncIterable[bytes], most_bytes: int, arrived: Callable[[int], None] = lambda count: None
) -> AsyncIterator[bytes]:
    """The pieces of a body.

    Args:
        stream: Where they come from.
        most_bytes: Of all of them.
        arrived: Told the bytes of every piece before it is handed on; what it raises ends the reading.

    Raises:
        TooLarge: At the first piece that exceeds the limit; nothing more is read.
    """
    count = 0
    async for piece in stream:
        count += len(piece)
        if count > most_bytes:
            raise TooLarge(f"The upload has more than {most_bytes:,} bytes. Send fewer or smaller images.")
        arrived(len(piece))
        yield piece


async def read_body(
    stream: AsyncIterable[bytes], most_bytes: int, arrived: Callable[[int], None] = lambda count: None
) -> bytes:
    """A whole body of at most so many bytes; arguments as in `limited`.

    Raises:
        TooLarge: It has more.
    """
    return b"".join([piece async for piece in limited(stream, most_bytes, arrived)])


def read_image(content: bytes, size: int, *, most_bytes: int, most_pixels: int) -> np.ndarray:
    """An image file as `heatprint.data` loads it: upright, on white, RGB, resized, the first frame of several.

    Args:
        content: A PNG, JPEG, WebP, BMP or GIF file.
        size: Side in pixels it is resized to (bilinear, antialiased, aspect not kept).
        most_bytes: Of the file.
        most_pixels: Width times height as the file's header says, looked at before anything is decoded.

    Returns:
        uint8 [3, size, size].

    Raises:
        TooLarge: More bytes or pixels.
        InvalidInput: Not such a file, or a damaged one.
    """
    if not content:
        raise InvalidInput("The image file is empty.")
    if len(content) > most_bytes:
        raise TooLarge(f"The image file has {len(content):,} bytes; at most {most_bytes:,} are taken.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and palettes that it then reads well
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > most_pixels:
                    raise TooLarge(
                        f"The image is {image.width} x {image.height}; at most {most_pixels:,} pixels are taken."
                    )
                small = square(image, size)
    except InvalidInput:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(f"The image is enormous; at most {most_pixels:,} pixels are taken.") from error
    except UnidentifiedImageError as error:
        raise InvalidInput(f"This is not an image file of a known kind. Send {', '.join(FORMATS)}.") from error
    except BROKEN as error:
        raise InvalidInput("The image file is damaged or cut short and cannot be decoded.") from error
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))
