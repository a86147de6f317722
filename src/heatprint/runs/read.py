"""A run folder as columns for the inspector: a million images in seconds, since no row becomes an object of Python."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heatprint.core.reading import fitting_together
from heatprint.runs.attempts import at, matched, read_attempts
from heatprint.runs.card import Card, read_card, unfinished
from heatprint.runs.charted import Charted, codes, read_charted
from heatprint.runs.details import confidence, located, moved, outcomes
from heatprint.runs.heat import Maps
from heatprint.runs.late import Late
from heatprint.runs.parts import NOWHERE, Rows, Step, Stored
from heatprint.runs.pictures import Pictures
from heatprint.runs.shown import Shown

SCORES, FLOWS = "forensics/scores", "atlas/flows"


def read_shown(folder: Path, *, distances: bool = True) -> Shown:
    """Read a run folder for the inspector or for the report.

    Args:
        folder: The run folder.
        distances: Have columns ``"l0"``, ``"l2"`` and ``"linf"``; who has the pictures can measure them as well.

    Raises:
        StoreError: It is not a finished run with an atlas, or damaged.
    """
    with fitting_together(lambda what: unfinished(folder, f"what it holds does not fit together ({what})")):
        return _shown(folder, distances=distances)


def _shown(folder: Path, *, distances: bool) -> Shown:
    card = read_card(folder)
    found = read_charted(folder)
    signatures = found.step.arrays().get("signatures")
    if signatures is not None and len(signatures) != len(found.ids):
        signatures = None
    strategies = sorted({str(one) for one in pc.unique(found.atlas.text("strategy")).to_pylist() if one is not None})
    copies = {name: found.of(name) for name in found.kinds[1:]}
    attempts = Late(lambda: read_attempts(folder, found.of(found.kinds[0]), copies, distances=distances))
    more = Late(lambda: {
        "confidence": confidence(found, attempts()),
        "moved": moved(signatures, found.pair, found.kind),
        **outcomes(found, attempts(), distances=distances),
    })  # fmt: skip
    known = card.settings.get("attacks", {})
    return Shown(
        name=card.name,
        facts=_facts(card),
        classes=card.classes,
        kinds=found.kinds,
        titles={kind: str(known.get(kind, {}).get("title") or kind) for kind in found.kinds},
        strategies=strategies,
        digest=_digest([found.step, found.images]),
        ids=found.ids,
        columns=_columns(folder, found, card, strategies),
        more=more,
        broken=lambda: [str(error) for one in attempts().values() for error in one.broken],
        images=Pictures(rows=len(found.ids), located=Late(lambda: located(found, attempts()))),
        signatures=signatures,
        maps=_maps(found),
    )


def _columns(run: Path, found: Charted, card: Card, strategies: Sequence[str]) -> dict[str, np.ndarray]:
    """All that a map needs to be drawn."""
    points = found.points

    def plane(x: str, y: str) -> np.ndarray:
        return np.stack([points.numbers(x, "<f4"), points.numbers(y, "<f4")], 1)

    return {
        "umap": plane("x", "y"),
        "pca": plane("px", "py"),
        "pair": found.pair,
        "kind": found.kind,
        "label": codes(points.text("label"), card.classes),
        "predicted": codes(points.text("predicted"), card.classes),
        "strategy": _strategy(found, strategies),
        "success": points.numbers("success", "u1"),
        "preserved": points.numbers("preserved", "<f4"),
        "pictured": found.pictured,
        **_scores(run, len(found.ids)),
    }


def _strategy(found: Charted, names: Sequence[str]) -> np.ndarray:
    """Of clean images and of their copies the strategy of the clean heat map, int16."""
    strategy = np.full(len(found.ids), NOWHERE, dtype="<i2")
    there = found.own != NOWHERE
    strategy[found.own[there]] = codes(found.atlas.text("strategy"), names)[there]
    copies = np.flatnonzero((found.kind > 0) & (found.pair != NOWHERE))
    strategy[copies] = strategy[found.pair[copies]]
    return strategy


def _maps(found: Charted) -> Maps:
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
    for name in found.kinds[1:]:
        flow = Step.open(found.step.run, f"{FLOWS}/{name}")
        told = flow.rows({"id": pa.string()})
        add(at(found.rows_of[name], matched(told.text("id"), found.of(name))), told, flow.arrays().get("moved"))
    return Maps(side=stored[0].shape[1] if stored else 1, stored=stored, source=source, place=place)


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
    """Of the map, which is made from every image, and of the atlas."""
    found = blake2b(digest_size=8)
    for step in steps:
        for number, files in step.digests.items():
            found.update(f"{step.name}/{number}/{sorted(files.items())}".encode())
    return found.hexdigest()
