"""What is known of the rows of a map from elsewhere, read when the map is on the screen: the attacks, the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heatprint.runs.attempts import Attempts, at
from heatprint.runs.card import unfinished
from heatprint.runs.charted import IMAGES, Charted
from heatprint.runs.finished import CLEAN
from heatprint.runs.parts import NOWHERE, Stored
from heatprint.runs.pictures import InParts, Located, Source

OUTCOMES = (
    ("gain", "step", "<i2", NOWHERE),
    ("l0", "l0", "<i4", 0),
    ("l2", "l2", "<f4", 0),
    ("linf", "linf", "<f4", 0),
)  # column here, column there, type, and what says that there is none
PAIRS_AT_ONCE = 2**15  # pairs whose signatures are in memory together


def confidence(found: Charted, attempts: Mapping[str, Attempts]) -> np.ndarray:
    """Probability of the predicted class, float32; NaN for clean images of which neither attack nor atlas tells."""
    sure = np.full(len(found.ids), np.nan, dtype="<f4")
    for name, one in attempts.items():
        before, after = one.rows.numbers("confidence_before", "<f4"), one.rows.numbers("confidence", "<f4")
        there = np.flatnonzero(one.clean != NOWHERE)
        sure[found.rows_of[CLEAN][one.clean[there]]] = before[there]
        sure[found.rows_of[name]] = at(after, one.copy, np.nan)
    there = found.own != NOWHERE
    sure[found.own[there]] = _sure(_logits(found))[there]
    return sure


def _logits(found: Charted) -> np.ndarray:
    logits = found.images.arrays().get("logits")
    if not len(found.atlas):
        return np.zeros((0, 1), np.float32)
    if logits is None or len(logits) != len(found.atlas):
        raise unfinished(found.images.run, f"step {IMAGES!r} has no logits for each image")
    return logits.rows(0, len(logits))


def _sure(logits: np.ndarray) -> np.ndarray:
    """Probability of the likeliest class of each image, from logits [N, K]."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers.max(1) / powers.sum(1))


def outcomes(found: Charted, attempts: Mapping[str, Attempts], *, distances: bool) -> dict[str, np.ndarray]:
    """What the attacks tell of their copies: minimal gain, and how far they went."""
    columns = {}
    for column, told, dtype, none in OUTCOMES if distances else OUTCOMES[:1]:
        columns[column] = np.full(len(found.ids), none, dtype)
        for name, one in attempts.items():
            if one.rows.table[told].null_count < len(one.rows):  # else no part has the column
                columns[column][found.rows_of[name]] = at(one.rows.numbers(told, dtype), one.copy, none)
    return columns


def moved(signatures: Stored | None, pair: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Distance between the signatures of a pair, float32 [rows]; NaN without a partner."""
    far = np.full(len(pair), np.nan, dtype="<f4")
    copies = np.flatnonzero((pair >= 0) & (kind > 0))
    if signatures is None:
        return far
    for start in range(0, len(copies), PAIRS_AT_ONCE):
        rows = copies[start : start + PAIRS_AT_ONCE]
        far[rows] = np.linalg.norm(signatures.take(rows) - signatures.take(pair[rows]), axis=1)
    clean = np.flatnonzero((pair >= 0) & (kind == 0))
    far[clean] = far[pair[clean]]
    return far


def located(found: Charted, attempts: Mapping[str, Attempts]) -> Located:
    """Where the pictures are: clean ones in the atlas or where the study keeps its images, copies with their attack."""
    count = len(found.ids)
    source, part, place = np.full(count, NOWHERE, np.int16), np.zeros(count, np.int32), np.zeros(count, np.int32)
    sources: list[Source] = []

    def add(held: Source, rows: np.ndarray, parts: Sequence[int] | np.ndarray, places: np.ndarray) -> None:
        source[rows], part[rows], place[rows] = len(sources), parts, places
        sources.append(held)

    if found.originals is not None:
        rows = np.flatnonzero(found.kept != NOWHERE)
        add(found.originals, rows, np.zeros(len(rows), np.int32), found.kept[rows])
    there = np.flatnonzero(found.own != NOWHERE)
    add(InParts(step=found.images), found.own[there], found.atlas.part[there], found.atlas.place[there])
    for name, one in attempts.items():
        there = np.flatnonzero(one.copy != NOWHERE)
        told = one.copy[there]
        add(InParts(step=one.step), found.rows_of[name][there], one.rows.part[told], one.rows.place[told])
    broken = [error for one in attempts.values() for error in one.broken]
    return Located(sources=sources, source=source, part=part, place=place, broken=broken)
