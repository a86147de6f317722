"""A project for ViRelAy (Anders et al. 2021, arXiv:2106.13200), the viewer of spectral relevance analysis.

    project.yaml                   opens with ``virelay FOLDER/project.yaml``
    label_map.json                 class names
    images.input.h5                data uint8 [N, 3, H, W], label
    heatmaps.attribution.h5        attribution float32 [N, 3, side, side], label, prediction
    strategies.analysis.h5         one group per class explained: index, embedding/{spectral, pca, umap}, cluster/spray

The layout is the one that ViRelAy 0.6 reads, which differs from its written description (``cluster/<name>`` instead
of ``clustering/<id>/root``). Image n and heat map n belong together, so no file needs an ``index`` of its own. Bytes
are exact, and spare ViRelAy its guess at the range of floating-point pixels. Three things are not as CoRelAy would
write them:

- a pooled map has lost its colours, but ViRelAy 0.6 cannot draw maps of one channel: each of three gets a third, and
  ViRelAy adds them up again;
- ``prediction`` holds the logits;
- beside the eigenvectors, on which the strategies were found, stand the run's own planes of signatures;
- an image whose signature is not on the map is left out of the analysis, but kept among the images.
"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from heatprint.core.errors import MissingExtra, StoreError
from heatprint.core.pictures import stored
from heatprint.runs.finished import Finished

CLUSTERING = "spray"
EMBEDDINGS = {"umap": ("x", "y"), "pca": ("px", "py")}


def write_virelay(run: Finished, out: Path) -> None:
    """Write the project into a folder.

    Raises:
        MissingExtra: h5py is not installed.
        StoreError: No image of the atlas has a place on the map.
    """
    h5py = _h5py()
    with h5py.File(out / "images.input.h5", "w") as file:
        _images(file, run)
    with h5py.File(out / "heatmaps.attribution.h5", "w") as file:
        _maps(file, run)
    with h5py.File(out / "strategies.analysis.h5", "w") as file:
        _analysis(file, run)
    labels = [{"index": n, "word_net_id": _category(n), "name": name} for n, name in enumerate(run.classes)]
    (out / "label_map.json").write_text(json.dumps(labels, indent=1), encoding="utf-8")
    project = json.dumps({"project": _project(run)}, indent=1, ensure_ascii=False)  # JSON is YAML
    (out / "project.yaml").write_text(project, encoding="utf-8")


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "export", "export to ViRelAy") from error
    module: ModuleType = h5py
    return module


def _category(number: int) -> str:
    """A class as ViRelAy names a category: eight digits in the place of a WordNet id."""
    return f"{number:08d}"


def _numbers(run: Finished, column: str) -> np.ndarray:
    """A column of class names as their numbers, uint16 [N]."""
    number = {name: n for n, name in enumerate(run.classes)}
    return np.array([number[name] for name in run.images[column]], np.uint16)


def _images(file: Any, run: Finished) -> None:
    pictures = [picture["bytes"] for picture in run.images["image"]]
    first = _pixels(pictures[0])
    data = file.create_dataset("data", (len(pictures), *first.shape), np.uint8)
    for row, png in enumerate(pictures):  # one at a time: decoded images are larger than their files
        data[row] = _pixels(png)
    file["label"] = _numbers(run, "label")


def _pixels(png: bytes) -> np.ndarray:
    return stored(png).transpose(2, 0, 1)


def _maps(file: Any, run: Finished) -> None:
    file["attribution"] = np.repeat(run.maps[:, None] / 3, 3, axis=1)
    file["label"] = _numbers(run, "label")
    file["prediction"] = run.logits


def _analysis(file: Any, run: Finished) -> None:
    """One group per class explained, of its images that have a place on the map."""
    places, predicted = run.places(), _numbers(run, "predicted")
    where = [places.get((i, "clean"), {}) for i in run.images["id"]]
    spectra = {one["class"]: one["eigenvalues"][: run.spectral.shape[1]] for one in run.atlas["classes"]}
    placed = np.array([bool(place) and all(map(isfinite, place.values())) for place in where])
    for number in range(len(run.classes)):
        rows = np.flatnonzero(placed & (predicted == number))
        if not len(rows):
            continue
        names = [run.images["strategy"][row] or "" for row in rows]
        strategies = sorted(set(names), key=_ordinal)
        group = file.create_group(_category(number))
        group["index"] = rows.astype(np.uint32)
        for name, axes in EMBEDDINGS.items():
            group[f"embedding/{name}"] = np.array([[where[row][axis] for axis in axes] for row in rows], np.float32)
        values = spectra.get(run.classes[number], [])
        if values:
            spectral = group.create_dataset("embedding/spectral", data=run.spectral[rows, : len(values)])
            spectral.attrs["eigenvalue"] = np.array(values, np.float32)
        cluster = group.create_dataset(f"cluster/{CLUSTERING}", data=np.array([strategies.index(n) for n in names]))
        cluster.attrs["k"], cluster.attrs["embedding"] = len(strategies), "spectral"
    if not len(file):
        raise StoreError("export: no image of the atlas is on the map, so ViRelAy has nothing to show. Run again.")


def _ordinal(strategy: str) -> int:
    """The number at the end of ``"dogs 2"``; strategies of one class are counted by falling size."""
    number = strategy.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def _project(run: Finished) -> dict[str, Any]:
    """What ``project.yaml`` says."""
    return {
        "name": run.name,
        "model": run.architecture,
        "label_map": "label_map.json",
        "dataset": {"name": run.name, "type": "hdf5", "path": "images.input.h5"},
        "attributions": {
            "attribution_method": str(run.atlas.get("explainer", "")),
            "attribution_strategy": "predicted_label",
            "sources": ["heatmaps.attribution.h5"],
        },
        "analyses": [{"analysis_method": str(run.atlas.get("method", "spray")), "sources": ["strategies.analysis.h5"]}],
    }
