"""A run folder as columns for the inspector: a million images in seconds, since no row becomes an object of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heatprint.runs.attempts import Attempts, matched, read_attempts
from heatprint.runs.card import Card, read_card, unfinished
from heatprint.runs.finished import CLEAN
from heatprint.runs.heat import Maps
from heatprint.runs.parts import NOWHERE, Rows, Step, Stored
from heatprint.runs.pictures import Pictures
from heatprint.runs.shown import Shown

PLACES, IMAGES, SCORES, FLOWS = "global", "atlas/images", "forensics/scores", "atlas/flows"
POINT = {
    "id": pa.string(), "label": pa.string(), "kind": pa.string(), "predicted": pa.string(), "success": pa.bool_(),
    "x": pa.float64(), "y": pa.float64(), "px": pa.float64(), "py": pa.float64(), "preserved": pa.float64(),
}  # fmt: skip
IMAGE = {"id": pa.string(), "strategy": pa.string()}
OUTCOMES = (
    ("gain", "step", "<i2", NOWHERE),
    ("l0", "l0", "<i4", 0),
    ("l2", "l2", "<f4", 0),
    ("linf", "linf", "<f4", 0),
)
MOVED_AT_ONCE = 2**15  # pairs whose signatures are in memory together


@dataclass(frozen=True, kw_only=True, eq=False)
class _Map:
    """The rows of the map, and what is known of them from elsewhere.

    Attributes:
        step: Where the map is stored.
        points: Its rows.
        ids: Source image of each.
        kinds: ``"clean"``, then the attacks by name.
        kind: Of each row its place in `kinds`, int16.
        rows_of: Kind to its rows.
        images: Where the images of the atlas are stored.
        atlas: Its rows.
        own: Of each image of the atlas its row on the map, or `NOWHERE`.
        attempts: Attack to what it tried.
        pair: See `_pairs`.
    """

    step: Step
    points: Rows
    ids: pa.Array
    kinds: Sequence[str]
    kind: np.ndarray
    rows_of: Mapping[str, np.ndarray]
    images: Step
    atlas: Rows
    own: np.ndarray
    attempts: Mapping[str, Attempts]
    pair: np.ndarray


def read_shown(folder: Path, *, distances: bool = True) -> Shown:
    """Read a run folder for the inspector or for the report.

    Args:
        folder: The run folder.
        distances: Have columns ``"l0"``, ``"l2"`` and ``"linf"``; who has the pictures can measure them as well.

    Raises:
        StoreError: It is not a finished run with an atlas, or damaged.
    """
    card = read_card(folder)
    found = _read_map(folder, distances)
    signatures = found.step.arrays().get("signatures")
    if signatures is not None and len(signatures) != len(found.ids):
        signatures = None
    strategies = sorted({str(one) for one in pc.unique(found.atlas.text("strategy")).to_pylist() if one is not None})
    pictures = _pictures(found)
    columns = {
        **_places_and_names(found, card.classes),
        "pair": found.pair,
        "strategy": _strategy(found, strategies),
        "confidence": _confidence(found),
        **_outcomes(found, OUTCOMES if distances else OUTCOMES[:1]),
        "moved": _moved(signatures, found.pair, found.kind),
        "pictured": (pictures.step != NOWHERE).astype("u1"),
        **_scores(folder, len(found.ids)),
    }
    known = card.settings.get("attacks", {})
    return Shown(
        name=card.name, facts=_facts(card), classes=card.classes, kinds=found.kinds, strategies=strategies,
        titles={kind: str(known.get(kind, {}).get("title") or kind) for kind in found.kinds},
        digest=_digest([found.step, *pictures.steps]), ids=found.ids, columns=columns, images=pictures,
        signatures=signatures, maps=_maps(found),
    )  # fmt: skip


def _read_map(run: Path, distances: bool) -> _Map:
    step, images = Step.open(run, PLACES), Step.open(run, IMAGES)
    for one in (step, images):
        if not one.digests:
            raise unfinished(run, f"step {one.name!r} is not marked done")
    points = step.rows(POINT, needed=tuple(name for name in POINT if name != "preserved"))
    ids, words = points.text("id"), points.text("kind")
    kinds = [CLEAN, *sorted({str(kind) for kind in pc.unique(words).to_pylist()} - {CLEAN})]
    kind = _codes(words, kinds)
    rows_of = {name: np.flatnonzero(kind == code) for code, name in enumerate(kinds)}
    clean = ids.take(pa.array(rows_of[CLEAN]))
    attempts = {
        name: read_attempts(run, name, clean, ids.take(pa.array(rows_of[name])), distances=distances)
        for name in kinds[1:]
    }
    atlas = images.rows(IMAGE, needed=tuple(IMAGE))
    return _Map(
        step=step, points=points, ids=ids, kinds=kinds, kind=kind, rows_of=rows_of, images=images, atlas=atlas,
        own=_rows(rows_of[CLEAN], matched(atlas.text("id"), clean)), attempts=attempts,
        pair=_pairs(ids, rows_of, attempts),
    )  # fmt: skip


def _pairs(ids: pa.Array, rows_of: Mapping[str, np.ndarray], attempts: Mapping[str, Attempts]) -> np.ndarray:
    """Of an attacked copy the row of its original; of an original the row of its first attacked copy; else -1."""
    pair = np.full(len(ids), NOWHERE, dtype="<i4")
    clean = rows_of[CLEAN]
    for name, one in attempts.items():
        rows = rows_of[name]
        pair[rows] = _rows(clean, _rows(one.clean, one.copy))
        lost = rows[pair[rows] == NOWHERE]
        if len(lost):  # no row of the attack tells of them
            pair[lost] = _rows(clean, matched(ids.take(pa.array(lost)), ids.take(pa.array(clean))))
    copies = np.concatenate([rows_of[name] for name in attempts]) if attempts else np.empty(0, np.int64)
    copies = np.sort(copies[pair[copies] != NOWHERE])[::-1]
    pair[pair[copies]] = copies  # of several the first, which is written last
    return pair


def _places_and_names(found: _Map, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """What the map itself tells of each row."""
    points = found.points

    def plane(x: str, y: str) -> np.ndarray:
        return np.stack([points.numbers(x, "<f4"), points.numbers(y, "<f4")], 1)

    return {
        "umap": plane("x", "y"),
        "pca": plane("px", "py"),
        "kind": found.kind,
        "label": _codes(points.text("label"), classes),
        "predicted": _codes(points.text("predicted"), classes),
        "success": points.numbers("success", "u1"),
        "preserved": points.numbers("preserved", "<f4"),
    }


def _strategy(found: _Map, names: Sequence[str]) -> np.ndarray:
    """Of clean images and of their copies the strategy of the clean heat map, int16."""
    strategy = np.full(len(found.ids), NOWHERE, dtype="<i2")
    there = found.own != NOWHERE
    strategy[found.own[there]] = _codes(found.atlas.text("strategy"), names)[there]
    copies = np.flatnonzero((found.kind > 0) & (found.pair != NOWHERE))
    strategy[copies] = strategy[found.pair[copies]]
    return strategy


def _confidence(found: _Map) -> np.ndarray:
    """Probability of the predicted class, float32; of clean images that no attack tells of and no atlas has NaN."""
    sure = np.full(len(found.ids), np.nan, dtype="<f4")
    for name, one in found.attempts.items():
        before, after = one.rows.numbers("confidence_before", "<f4"), one.rows.numbers("confidence", "<f4")
        there = np.flatnonzero(one.clean != NOWHERE)
        sure[found.rows_of[CLEAN][one.clean[there]]] = before[there]
        sure[found.rows_of[name]] = _values(after, one.copy, np.nan)
    there = found.own != NOWHERE
    sure[found.own[there]] = _sure(_logits(found))[there]
    return sure


def _logits(found: _Map) -> np.ndarray:
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


def _outcomes(found: _Map, wanted: Sequence[tuple[str, str, str, int]]) -> dict[str, np.ndarray]:
    """What the attacks tell of their copies."""
    columns = {}
    for column, told, dtype, none in wanted:
        columns[column] = np.full(len(found.ids), none, dtype)
        for name, one in found.attempts.items():
            if one.rows.table[told].null_count < len(one.rows):  # else no part has the column
                columns[column][found.rows_of[name]] = _values(one.rows.numbers(told, dtype), one.copy, none)
    return columns


def _pictures(found: _Map) -> Pictures:
    steps = [found.images, *(one.step for one in found.attempts.values())]
    count = len(found.ids)
    step = np.full(count, NOWHERE, np.int16)
    part, place = np.zeros(count, np.int32), np.zeros(count, np.int32)
    sources = [(found.own, np.arange(len(found.atlas)), found.atlas)]
    sources += [(found.rows_of[name], one.copy, one.rows) for name, one in found.attempts.items()]
    for number, (rows, told, stored) in enumerate(sources):
        there = (rows != NOWHERE) & (told != NOWHERE)
        step[rows[there]] = number
        part[rows[there]], place[rows[there]] = stored.part[told[there]], stored.place[told[there]]
    return Pictures(steps=steps, step=step, part=part, place=place)


def _maps(found: _Map) -> Maps:
    """Pooled heat maps of all points, those of attacked copies from where the atlas followed them."""
    count = len(found.ids)
    source, place = np.full(count, NOWHERE, np.int16), np.zeros(count, np.int32)
    stored: list[Stored] = []

    def add(rows: np.ndarray, told: Rows, array: Stored | None) -> None:
        if array is None or len(array) != len(told):
            return  # not in runs of before
        there = rows != NOWHERE
        source[rows[there]], place[rows[there]] = len(stored), np.flatnonzero(there)
        stored.append(array)

    add(found.own, found.atlas, found.images.arrays().get("maps"))
    for name in found.attempts:
        flow = Step.open(found.step.run, f"{FLOWS}/{name}")
        told = flow.rows({"id": pa.string()})
        copies = found.rows_of[name]
        add(_rows(copies, matched(told.text("id"), found.ids.take(pa.array(copies)))), told, flow.arrays().get("moved"))
    return Maps(side=stored[0].shape[1] if stored else 1, stored=stored, source=source, place=place)


def _moved(signatures: Stored | None, pair: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Distance between the signatures of a pair, float32 [rows]; NaN without a partner."""
    moved = np.full(len(pair), np.nan, dtype="<f4")
    copies = np.flatnonzero((pair >= 0) & (kind > 0))
    if signatures is None:
        return moved
    for start in range(0, len(copies), MOVED_AT_ONCE):
        rows = copies[start : start + MOVED_AT_ONCE]
        moved[rows] = np.linalg.norm(signatures.take(rows) - signatures.take(pair[rows]), axis=1)
    clean = np.flatnonzero((pair >= 0) & (kind == 0))
    moved[clean] = moved[pair[clean]]
    return moved


def _scores(run: Path, count: int) -> dict[str, np.ndarray]:
    """What the run's detector says of each point, where `heatprint detect --benchmark` has run."""
    scores = Step.open(run, SCORES).arrays().get("scores")
    if scores is None or len(scores) != count:  # of an earlier map
        return {}
    return {"score": scores.rows(0, count).astype("<f4")}


def _facts(card: Card) -> dict[str, str]:
    data = card.settings["data"]
    return {
        "data": str(data.get("name") or data.get("source") or "unnamed"),
        "network": card.architecture,
        "recipe": str(card.settings["recipe_name"]),
        "seed": str(card.settings["seed"]),
    }


def _digest(steps: Sequence[Step]) -> str:
    found = blake2b(digest_size=8)
    for step in steps:
        for number, files in step.digests.items():
            found.update(f"{step.name}/{number}/{sorted(files.items())}".encode())
    return found.hexdigest()


def _codes(values: pa.Array, names: Sequence[str]) -> np.ndarray:
    """Of each text its place among some names, int16; `NOWHERE` for others and for none."""
    places = pc.index_in(values, value_set=pa.array(list(names), pa.string()), skip_nulls=True)
    return np.asarray(places.fill_null(NOWHERE).to_numpy(zero_copy_only=False)).astype("<i2")


def _rows(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rows at some places; `NOWHERE` stays."""
    return _values(rows, places, NOWHERE)


def _values(values: np.ndarray, places: np.ndarray, none: float) -> np.ndarray:
    """The values at some places, and `none` where a place is `NOWHERE`."""
    if not len(values):
        return np.full(len(places), none, values.dtype)
    return np.where(places == NOWHERE, np.asarray(none, values.dtype), values[places])
