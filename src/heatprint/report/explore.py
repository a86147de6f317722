"""The inspector's map and pair views inside the report: columns, thumbnails and small heat maps in the page itself."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatprint.core.pictures import stored
from heatprint.runs.columns import packed
from heatprint.runs.finished import CLEAN, has_atlas
from heatprint.runs.read import read_shown
from heatprint.runs.shown import Shown

MOST = 2000  # pairs in one file
TILE = 48  # side of a thumbnail, pixels
QUALITY = 80  # of the sheet of thumbnails, WebP
LEVELS = 127  # of a small heat map, on either side of zero


def explored(folder: Path) -> dict[str, Any] | None:
    """What the page needs, ready to be put into JSON; None where the run has no map.

    Of more than `MOST` pairs, that many are taken by a hash of their names, those first of which the run holds both
    pictures, with as many originals that did not fall;
    ``"left"`` says how many points there are beyond.
    """
    if not has_atlas(folder):
        return None
    shown = read_shown(folder)
    if not len(shown):
        return None
    some = shown.take(_chosen(shown))
    meta, block = packed(some)
    scales, levels = _levels(some.maps.read())
    return {
        "facts": {**meta, "live": False, "left": len(shown) - len(some)},
        "points": _base64(block),
        "sheet": "data:image/webp;base64," + _base64(_sheet(some)),
        "tile": TILE,
        "across": _across(len(some)),
        "side": some.maps.side,
        "scales": _base64(scales.astype("<f4").tobytes()),
        "heat": _base64(levels.tobytes()),
    }


def spelled(told: dict[str, Any]) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(told, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _chosen(shown: Shown) -> list[int]:
    """Rows: copies by a hash of their names with their originals, then other originals, in the order of the run."""
    kind, pair, pictured = (shown.columns[name] for name in ("kind", "pair", "pictured"))
    clean, ids = shown.kinds.index(CLEAN), shown.ids.to_pylist()

    def lot(row: int) -> bytes:
        return hashlib.sha256(f"{kind[row]}/{ids[row]}".encode("utf-8", "surrogatepass")).digest()

    def chance(row: int) -> tuple[bool, bytes]:
        return not pictured[pair[row]], lot(row)

    copies = sorted(np.flatnonzero((kind != clean) & (pictured > 0)).tolist(), key=chance)[:MOST]
    taken = {*copies, *(int(pair[row]) for row in copies if pair[row] >= 0)}
    room = max(0, 2 * MOST - len(taken))
    others = np.flatnonzero((kind == clean) & (pictured > 0)).tolist() if room else []
    return sorted(taken | set(sorted((row for row in others if row not in taken), key=lot)[:room]))


def _across(count: int) -> int:
    return max(1, int(np.ceil(np.sqrt(count))))


def _sheet(shown: Shown) -> bytes:
    """All thumbnails in one picture, row by row; the place of an image without one stays empty."""
    across = _across(len(shown))
    sheet = Image.new("RGB", (across * TILE, max(1, -(-len(shown) // across)) * TILE))
    for place in np.flatnonzero(shown.columns["pictured"]).tolist():
        small = Image.fromarray(stored(shown.images[place])).resize((TILE, TILE), Image.Resampling.BOX)
        sheet.paste(small, (place % across * TILE, place // across * TILE))
    sink = io.BytesIO()
    sheet.save(sink, "WEBP", quality=QUALITY, method=4)
    return sink.getvalue()


def _levels(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heat maps as int8 with the largest |relevance| of each, 0 where there is none."""
    scales = np.nan_to_num(np.abs(maps)).max((1, 2)) if len(maps) else np.zeros(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = np.nan_to_num(maps / scales[:, None, None] * LEVELS)
    return scales, np.rint(levels).astype(np.int8)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
