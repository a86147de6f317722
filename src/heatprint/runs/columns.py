"""All that the map needs, as one block of bytes: no rows of text, nothing that is sent twice."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from heatprint.runs.shown import Shown

ALIGN = 8  # bytes, what typed arrays of a browser may start at
TYPES = {"<f4": "float32", "<i4": "int32", "<i2": "int16", "|u1": "uint8"}


def packed(shown: Shown) -> tuple[dict[str, Any], bytes]:
    """A run as what a page reads first (names, and where each column lies), and the block itself.

    The block is little-endian: every column in turn, each at a multiple of 8 bytes, then the ids as UTF-8 with a zero
    byte between.
    """
    block, columns = bytearray(), []
    for name, values in shown.columns.items():
        width = values.shape[1] if values.ndim > 1 else 1
        columns.append({"name": name, "type": TYPES[values.dtype.str], "width": width, "offset": len(block)})
        block += np.ascontiguousarray(values).tobytes()
        block += bytes(-len(block) % ALIGN)
    ids = "\0".join(name.replace("\0", "\\0") for name in shown.ids).encode("utf-8", "backslashreplace")
    meta = {
        "name": shown.name,
        "facts": dict(shown.facts),
        "classes": list(shown.classes),
        "kinds": [{"name": kind, "title": shown.titles[kind]} for kind in shown.kinds],
        "strategies": list(shown.strategies),
        "digest": _digest(shown.images),
        "rows": len(shown),
        "columns": columns,
        "ids": {"offset": len(block), "bytes": len(ids)},
    }
    return meta, bytes(block) + ids


def _digest(images: Sequence[bytes]) -> str:
    """Of all images: what a browser keeps of one run must not be shown for another."""
    found = blake2b(digest_size=8)
    for image in images:
        found.update(image)
    return found.hexdigest()
