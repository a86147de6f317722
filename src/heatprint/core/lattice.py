"""The 8-bit lattice: images are bytes; the numbers a network sees are k / 255.

An adversarial that exists only between the levels vanishes when the image is saved, so every image that
leaves a door is held as bytes (`Batch.pixels`), and every claim about it is made after a PNG round trip.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import BeforeValidator
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.pictures import stored

LEVELS = 255
RUNS = 3  # zlib's strategy Z_RLE: noise becomes a tenth smaller with it, in three quarters of the time


def parse_level(value: object) -> object:
    """Read ``"8/255"`` as 8 / 255; leave everything else to the type check.

    Raises:
        InvalidInput: The text is not a fraction of two numbers, or the divisor is zero.
    """
    if not isinstance(value, str) or "/" not in value:
        return value
    top, _, bottom = value.partition("/")
    try:
        return float(top) / float(bottom)
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidInput(f"{value!r} is not a pixel level. Write a fraction such as '8/255'.") from error


Level = Annotated[float, BeforeValidator(parse_level)]
"""A distance between pixel values in [0, 1]; in recipes and on the command line also ``"8/255"``."""


def check_level(who: str, value: float) -> None:
    """Refuse a level outside [0, 1], the usual sign of a value meant for 0..255 pixels.

    Raises:
        InvalidInput: With the fraction that was probably meant.
    """
    if isinstance(value, str):
        raise InvalidInput(f"{who} = {value!r} is text. Write {value} without quotes, or make the method by its name.")
    if not 0 <= value <= 1:
        raise InvalidInput(
            f"{who} = {value}: pixels are in [0, 1], so levels are too. For {value:g} of 255 levels "
            f"write '{value:g}/255'."
        )


def whole_levels(eps: float) -> int:
    """How many levels of 1/255 fit into a distance: what an 8-bit image may move by at most."""
    return int(eps * LEVELS + 1e-6)


def to_images(pixels: Tensor) -> Tensor:
    """Bytes to numbers: uint8 [..] to float32 [..] in [0, 1]."""
    return pixels.to(torch.float32) / LEVELS


def to_pixels(images: Tensor) -> Tensor:
    """Numbers to the nearest byte: float [..] in [0, 1] to uint8 [..]."""
    return (images * LEVELS).round().clamp(0, LEVELS).to(torch.uint8)


def encode_png(pixels: Tensor) -> bytes:
    """One image, uint8 [3, H, W], as a lossless PNG file."""
    sink = io.BytesIO()
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
    Image.fromarray(array, mode=None).save(sink, format="PNG", compress_level=1, compress_type=RUNS)
    return sink.getvalue()


def encode_pngs(pixels: Tensor) -> list[bytes]:
    """Images uint8 [N, 3, H, W] as PNG files, on the threads torch has: Pillow works without the interpreter lock."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(encode_png, pixels))


def decode_pngs(contents: Sequence[bytes], like: Tensor) -> Tensor:
    """PNG files as uint8 [N, 3, H, W]; `like` gives the shape where there are none."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = list(pool.map(decode_png, contents))
    return torch.stack(images) if images else like.new_empty((0, *like.shape[1:]))


def decode_png(content: bytes) -> Tensor:
    """One PNG file as uint8 [3, H, W].

    Raises:
        StoreError: It is none, damaged, or larger than any that heatprint writes.
    """
    return torch.from_numpy(stored(content)).permute(2, 0, 1).contiguous()
