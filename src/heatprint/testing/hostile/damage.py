"""Damage to any file: bytes changed, cut out, repeated, cut off."""

from __future__ import annotations

import numpy as np


def mangled(content: bytes, draw: np.random.Generator) -> bytes:
    """A copy with one to eight places damaged, and one in five cut off; never the file itself.

    Args:
        content: A file; not empty.
        draw: Of where and how.
    """
    found = bytearray(content)
    for _ in range(int(draw.integers(1, 9))):
        at, way = int(draw.integers(len(found))), int(draw.integers(5))
        if way < 3:  # most of all, single bytes
            found[at] ^= int(draw.integers(1, 256))
        elif way == 3:
            del found[at : at + int(draw.integers(1, 16))]
        else:
            found[at:at] = found[at : at + int(draw.integers(1, 64))]
        found = found or bytearray(1)
    end = int(draw.integers(len(found))) if draw.random() < 0.2 else len(found)
    return bytes(found[:end]) if bytes(found[:end]) != content else content[:-1]
