"""Images from strangers: read and decoded up to a limit, and made as the loader makes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable

import numpy as np

from heatprint.core.errors import InvalidInput, UnreadableData
from heatprint.core.pictures import TooManyPixels, decode

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


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
        return decode(content, size, formats=FORMATS, most_pixels=most_pixels)
    except TooManyPixels as error:
        raise TooLarge(f"The image is too large: {error}; at most {most_pixels:,} pixels are taken.") from error
    except UnreadableData as error:
        raise InvalidInput(f"This image file cannot be taken: {error}.") from error
