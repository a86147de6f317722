"""The map of signatures: where clean and attacked images lie together, and what of that map can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from heatprint.core.protocols import Embedder
from heatprint.core.store import Part
from heatprint.core.values import Batch
from heatprint.evaluation import share
from heatprint.signatures import embed
from heatprint.signatures.embeddings.density import density, levels
from heatprint.signatures.embeddings.floor import Floor, displacements, usual_distance, with_floor
from heatprint.signatures.embeddings.quality import Quality, quality
from heatprint.study.atlas_told import read, spelled
from heatprint.study.explaining import Signed

GRID = 40  # cells to a side of a density
FEWEST = 8  # images of a class, below which its density says nothing


def measure_places(
    classes: Sequence[str],
    sets: Mapping[str, Batch],
    signed: Mapping[str, Signed],
    embedders: Mapping[str, Embedder],
    *,
    seed: int,
) -> Part:
    """The places of signed images.

    Args:
        classes: Names of the classes.
        sets: ``"clean"`` and, by attack, the attacked copies.
        signed: Of each set, what `heatprint.study.explaining` measured.
        embedders: ``"umap"`` and ``"pca"``; the map that is measured is the first.
        seed: Of the noise floor.

    Returns:
        One row per image of each set. Under ``signatures`` float32 [P, D]; under ``clean_plane`` float64 [C, 2] a map
        of the clean images alone: on the common one the attacked copies pull at the images that fell.
    """
    kinds = [name for name, batch in sets.items() for _ in batch.ids]
    vectors = np.concatenate([signed[name].vectors for name in sets])
    guess = np.concatenate([signed[name].predicted for name in sets])
    labels = torch.cat([batch.labels for batch in sets.values()]).numpy()
    points, floor = with_floor(vectors, embedders["umap"], seed=seed)
    flat = embed(vectors, embedders["pca"])
    measured = quality(vectors, points)
    fell = {i for name, batch in sets.items() if name != "clean" for i in batch.ids}
    ids = [i for batch in sets.values() for i in batch.ids]
    rows = {
        "id": ids,
        "label": [classes[k] for k in labels],
        "kind": kinds,
        "predicted": [classes[k] for k in guess],
        "success": [i in fell for i in ids],
        **{"x": points[:, 0], "y": points[:, 1]},
        **{"px": flat[:, 0], "py": flat[:, 1]},
        "preserved": measured.preservation,
    }
    told = {
        "points": len(ids),
        "clean": kinds.count("clean"),
        "attacked": len(ids) - kinds.count("clean"),
        **_trusted(measured, floor),
        "displacement": _displaced(sets, kinds, vectors, points, floor),
    }
    clean = np.array(kinds) == "clean"
    arrays = {
        "signatures": vectors,
        "clean_plane": embed(vectors[clean], embedders["umap"]),
        "contours": spelled([_contours(name, points[clean & (labels == k)]) for k, name in enumerate(classes)]),
        "told": spelled(told),
    }
    return Part(rows=rows, arrays=arrays)


def _trusted(measured: Quality, floor: Floor) -> dict[str, Any]:
    return {
        "trust": measured.overall.trustworthiness,
        "continuity": measured.overall.continuity,
        "preserved": measured.overall.preservation,
        "chance": measured.overall.chance,
        "neighbours": measured.neighbours,
        "floor": asdict(floor),
    }


def summarised(part: Part) -> dict[str, Any]:
    """What ``metrics.json`` says of the map."""
    told: dict[str, Any] = read(part)
    return told


def _displaced(
    sets: Mapping[str, Batch], kinds: list[str], vectors: np.ndarray, points: np.ndarray, floor: Floor
) -> dict[str, Any]:
    """Per attack how far its images moved: median and quartiles, and how many arrows are longer than the floor."""
    kind = np.array(kinds)
    place = {i: row for row, i in enumerate(sets["clean"].ids)}
    clean, clean_points = vectors[kind == "clean"], points[kind == "clean"]
    unit = usual_distance(clean)
    found = {}
    for name, batch in sets.items():
        if name == "clean":
            continue
        own, copies = [place[i] for i in batch.ids], kind == name
        moved = displacements(clean[own], vectors[copies], clean_points[own], points[copies], floor, unit=unit)
        found[name] = {
            "images": len(own),
            "signature": _quartiles(moved.relative),
            "plane": _quartiles(moved.shown),
            "moved": share(int(moved.moved.sum()), len(own)),
            "beyond_floor": share(int(moved.beyond.sum()), len(own)),
        }
    return found


def _contours(name: str, points: np.ndarray) -> dict[str, Any]:
    """The density of a class on the map, and the levels above which half and nine tenths of it lie."""
    if len(points) < FEWEST or not points.var(0).any():
        return {"class": name, "x": [], "y": [], "value": [], "levels": []}
    found = density(points, grid=GRID)
    shown = found.value / found.value.max()  # in six decimals, whatever the units of the plane
    return {
        "class": name,
        "x": found.x.tolist(),
        "y": found.y.tolist(),
        "value": shown.tolist(),
        "levels": sorted(level / float(found.value.max()) for level in levels(found)),
    }


def _quartiles(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.nanquantile(values, [0.25, 0.5, 0.75]) if np.isfinite(values).any() else [np.nan] * 3
    return {"median": median, "low": low, "high": high}
