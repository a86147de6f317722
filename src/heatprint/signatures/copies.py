"""Images that occur more than once."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def distinct_images(pixels: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The different ones among some images, in an order that depends on their pixels alone.

    An attack that failed leaves an image as it was. What is computed once per different image is bit for bit the same
    for both; computed twice, in batches of other sizes, its last digits would differ.

    Args:
        pixels: uint8 [N, 3, H, W].
        beside: int64 [N], where two images count as the same only if these numbers too are equal: the class explained.

    Returns:
        Rows int64 [M], the first of each different image, and place int64 [N], which of the M each image is.
    """
    numbers = torch.zeros(len(pixels), dtype=torch.int64) if beside is None else beside.cpu()
    names = [
        hashlib.blake2b(image.numpy().tobytes() + number.numpy().tobytes(), digest_size=20).digest()
        for image, number in zip(pixels.cpu(), numbers, strict=True)
    ]
    first: dict[bytes, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    order = {name: place for place, name in enumerate(sorted(first))}
    return torch.tensor([first[name] for name in order]).long(), torch.tensor([order[name] for name in names]).long()
