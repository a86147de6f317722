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

from heatprint.runs.columns import packed
from heatprint.runs.finished import CLEAN, has_atlas
from heatprint.runs.shown import Shown, read_shown

MOST = 2000  # pairs in one file
TILE = 48  # side of a thumbnail, pixels
QUALITY = 80  # of the sheet of thumbnails, WebP
LEVELS = 127  # of a small heat map, on either side of zero


def explored(folder: Path) -> dict[str, Any] | None:
    """What the page needs, ready to be put into JSON; None where the run has no map.

    Of more than `MOST` pairs, that many are taken by a hash of their names, with as many originals that did not fall;
    ``"left"`` says how many points there are beyond.
    """
    if not has_atlas(folder):
        return None
    shown = read_shown(folder)
    if not len(shown):
        return None
    some = shown.take(_chosen(shown))
    meta, block = packed(some)
    scales, levels = _levels(some.maps)
    return {
        "facts": {**meta, "live": False, "left": len(shown) - len(some)},
        "points": _base64(block),
        "sheet": "data:image/webp;base64," + _base64(_sheet(some.images)),
        "tile": TILE,
        "across": _across(len(some)),
        "side": int(some.maps.shape[1]),
        "scales": _base64(scales.astype("<f4").tobytes()),
        "heat": _base64(levels.tobytes()),
    }


def spelled(told: dict[str, Any]) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(told, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _chosen(shown: Shown) -> list[int]:
    """Rows: copies by a hash of their names with their originals, then other originals, in the order of the run."""
    kind, pair = shown.columns["kind"], shown.columns["pair"]
    clean = shown.kinds.index(CLEAN)

    def lot(row: int) -> bytes:
        return hashlib.sha256(f"{kind[row]}/{shown.ids[row]}".encode("utf-8", "surrogatepass")).digest()

    copies = sorted((row for row in range(len(shown)) if kind[row] != clean), key=lot)[:MOST]
    taken = set(copies) | {int(pair[row]) for row in copies if pair[row] >= 0}
    others = sorted((row for row in range(len(shown)) if kind[row] == clean and row not in taken), key=lot)
    return sorted(taken | set(others[: max(0, 2 * MOST - len(taken))]))


def _across(count: int) -> int:
    return max(1, int(np.ceil(np.sqrt(count))))


def _sheet(images: Any) -> bytes:
    """All thumbnails in one picture, row by row."""
    across = _across(len(images))
    sheet = Image.new("RGB", (across * TILE, -(-len(images) // across) * TILE))
    for place, content in enumerate(images):
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            small = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.BOX)
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
