"""All that the map needs, as one block of bytes: no rows of text, nothing that is sent twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from heatprint.runs.finished import CLEAN
from heatprint.runs.shown import Shown

ALIGN = 8  # bytes, what typed arrays of a browser may start at
TYPES = {"<f4": "float32", "<i4": "int32", "<i2": "int16", "|u1": "uint8"}


class _Block:
    """Arrays one after the other, each at a multiple of 8 bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._size = 0

    def add(self, piece: np.ndarray) -> int:
        """Append an array; where it begins."""
        begin, pad = self._size, -piece.nbytes % ALIGN
        self._pieces.extend((np.ascontiguousarray(piece).reshape(-1).view("u1").data, bytes(pad)))
        self._size += piece.nbytes + pad
        return begin

    def column(self, name: str, values: np.ndarray) -> dict[str, Any]:
        """Append a column; what a page must know to read it."""
        width = values.shape[1] if values.ndim > 1 else 1
        return {"name": name, "type": TYPES[values.dtype.str], "width": width, "offset": self.add(values)}

    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)


def packed(shown: Shown) -> tuple[dict[str, Any], bytes]:
    """A run as what a page reads first (names, and where each column lies), and the block itself.

    The block is little-endian, and all in it begins at multiples of 8 bytes: every column in turn, then uint32 where
    each id begins and the last one ends, then the ids as UTF-8, one after the other. A copy has the id of its original,
    so that only originals, and copies without one, have an id there: column ``"source"`` says which.
    """
    source, named = _sources(shown)
    begins, text = _text(shown.ids.take(pa.array(named)))
    block = _Block()
    meta = {
        "name": shown.name,
        "facts": dict(shown.facts),
        "classes": list(shown.classes),
        "kinds": [{"name": kind, "title": shown.titles[kind]} for kind in shown.kinds],
        "strategies": list(shown.strategies),
        "digest": shown.digest,
        "rows": len(shown),
        "columns": [block.column(name, values) for name, values in {**shown.columns, "source": source}.items()],
        "ids": {"count": len(named), "begins": block.add(begins), "offset": block.add(text), "bytes": len(text)},
    }
    return meta, block.bytes()


def packed_more(shown: Shown) -> tuple[dict[str, Any], bytes]:
    """The further columns of a run: where each lies, what could not be read in words, and the block."""
    block = _Block()
    columns = [block.column(name, values) for name, values in shown.more().items()]
    broken = shown.broken()
    others = f" So are {len(broken) - 1:,} others." if len(broken) > 1 else ""
    return {"columns": columns, "broken": f"{broken[0]}{others}" if broken else ""}, block.bytes()


def _sources(shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """Of each row which id it has, int32, and the rows whose ids these are."""
    kind, pair = shown.columns["kind"], shown.columns["pair"]
    own = (kind == list(shown.kinds).index(CLEAN)) | (pair < 0)
    source = (np.cumsum(own) - 1).astype("<i4")
    source[~own] = source[pair[~own]]
    return source, np.flatnonzero(own)


def _text(ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each text begins and the last one ends, uint32, and all as UTF-8, as the library has them already."""
    begins = np.zeros(1, "<u4")
    if not len(ids):
        return begins, np.empty(0, "u1")
    _, offsets, content = ids.buffers()
    begins = np.frombuffer(offsets, "<i4")[ids.offset : ids.offset + len(ids) + 1]
    text = np.frombuffer(content, "u1")[begins[0] : begins[-1]] if content else np.empty(0, "u1")
    return (begins - begins[0]).astype("<u4"), text
