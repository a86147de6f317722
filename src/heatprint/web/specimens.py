"""The image under study: one of the run or an upload, and what was done to it."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from heatprint.core.errors import InvalidInput
from heatprint.core.pictures import stored
from heatprint.runs.shown import Shown
from heatprint.web.bench import Bench

KEPT = 64  # uploads and results of searches that are remembered
MOST_GAIN = 64  # levels
MOST_EDITS = 1024  # pixels
Level = Annotated[int, Field(ge=0, le=255)]
Place = Annotated[int, Field(ge=0, lt=4096)]


class Specimen(BaseModel):
    """An image and its changes, as a page asks for it.

    Attributes:
        base: ``"row:12"``, an image of the run, or ``"kept:0f3a..."``, one that was uploaded or found.
        gain: Levels of FGSM, first of all.
        edits: Row, column, red, green and blue of single pixels, after that.
    """

    model_config = ConfigDict(extra="forbid")
    base: str = Field(pattern=r"^(row:\d{1,9}|kept:[0-9a-f]{16})$")
    gain: int = Field(default=0, ge=0, le=MOST_GAIN)
    edits: list[tuple[Place, Place, Level, Level, Level]] = Field(default=[], max_length=MOST_EDITS)


class Specimens:
    """Images by name.

    Args:
        shown: The run.
    """

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self._kept: OrderedDict[str, tuple[np.ndarray, int | None]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, pixels: np.ndarray, label: int | None) -> str:
        """Remember an image uint8 [3, H, W] and its true class, if known, under the name that is returned."""
        word = hashlib.sha256(pixels.tobytes() + repr((pixels.shape, label)).encode()).hexdigest()[:16]
        with self._lock:
            self._kept[word] = (pixels, label)
            self._kept.move_to_end(word)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return f"kept:{word}"

    def base(self, name: str) -> tuple[np.ndarray, int | None]:
        """The image uint8 [3, H, W] and its true class, None where nobody said.

        Raises:
            InvalidInput: There is none of that name.
        """
        kind, _, word = name.partition(":")
        if kind == "row":
            row = int(word)
            if row >= len(self.shown):
                raise InvalidInput(f"there is no image {row}; this run shows {len(self.shown)}, from 0.")
            return pixels_of(self.shown.images[row]), int(self.shown.columns["label"][row])
        with self._lock:
            if word not in self._kept:
                raise InvalidInput("the server has forgotten this image. Upload it again, or repeat the search.")
            self._kept.move_to_end(word)
            return self._kept[word]

    def made(self, specimen: Specimen, bench: Bench, method: str) -> tuple[np.ndarray, np.ndarray, int]:
        """The base, the image as it is now, and the class that counts as right.

        Raises:
            InvalidInput: No such image, or a pixel outside it.
        """
        base, label = self.base(specimen.base)
        if label is None or label < 0:
            label = bench.look(base, method=method).predicted
        now = bench.gain(base, label, specimen.gain) if specimen.gain else base
        return base, edited(now, specimen.edits), label


def edited(pixels: np.ndarray, edits: list[tuple[int, int, int, int, int]]) -> np.ndarray:
    """A copy with single pixels set."""
    now = pixels.copy()
    for row, col, *colour in edits:
        if row >= now.shape[1] or col >= now.shape[2]:
            raise InvalidInput(f"pixel {row}, {col} lies outside an image of {now.shape[1]} by {now.shape[2]}.")
        now[:, row, col] = colour
    return now


def pixels_of(content: bytes) -> np.ndarray:
    """A stored PNG as uint8 [3, H, W]."""
    return np.ascontiguousarray(stored(content).transpose(2, 0, 1))


def png_of(pixels: np.ndarray) -> bytes:
    """Uint8 [3, H, W] as PNG, quickly rather than small."""
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(sink, format="PNG", compress_level=1)
    return sink.getvalue()
