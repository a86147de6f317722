"""Where an image that was not there lies on a stored map of signatures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import StoreError
from heatprint.core.protocols import Signer
from heatprint.core.reading import read_json
from heatprint.core.values import Batch
from heatprint.runs.parts import Step, Stored
from heatprint.signatures import SIGNERS, sign
from heatprint.signatures.embeddings.floor import ROUNDING
from heatprint.signatures.neighbours import nearest

STEP, RECIPE = "global", "recipe.json"
COLUMNS = ("x", "y", "px", "py")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image lies, about.

    Attributes:
        x: On the map by UMAP, as is `y`.
        y: See `x`.
        px: On the map by PCA, as is `py`.
        py: See `px`.
        exact: It has the signature of a stored image, but for rounding, and so its place; otherwise the place is the
            mean of its neighbours', each weighted by one over its distance: between them, never beyond the map's edge.
        neighbours: Rows of the map and Euclidean distances between signatures, nearest first.
    """

    x: float
    y: float
    px: float
    py: float
    exact: bool
    neighbours: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMap:
    """The map of a run.

    Attributes:
        signer: Made the signatures.
        vectors: [P, D], signatures of clean and attacked images; they stay on disk, being as many as the images.
        points: float64 [P, 4], places by UMAP and by PCA, in the order of `COLUMNS`.
    """

    signer: Signer
    vectors: Stored = field(repr=False)
    points: np.ndarray = field(repr=False)

    @classmethod
    def load(cls, run: Path) -> StoredMap | None:
        """The map of a run folder; None where the run has none yet.

        Raises:
            StoreError: It is damaged, or what made it is not told.
        """
        step = Step.open(run, STEP)
        vectors = step.arrays().get("signatures")
        if vectors is None:
            return None
        rows = step.rows(dict.fromkeys(COLUMNS, pa.float64()), needed=COLUMNS)
        try:
            signature = dict(read_json(run / RECIPE)["map"]["signature"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"laboratory: {run / RECIPE} does not tell how the map's signatures were made ({error}). Run the "
                "study again."
            ) from error
        points = np.stack([rows.numbers(name, "<f8") for name in COLUMNS], 1)
        return cls(signer=SIGNERS.make("lrp", **signature), vectors=vectors, points=points)

    def place(self, classifier: Classifier, images: Tensor, *, count: int = 10) -> Place:
        """The place of one image.

        Args:
            classifier: The one the map was made with.
            images: uint8 [1, 3, H, W].
            count: Neighbours looked at, or all of a smaller map.
        """
        batch = Batch(ids=("live",), pixels=images, labels=torch.tensor([-1]))
        vector = sign(classifier, batch, self.signer).vectors
        rows, distances = self._nearest(vector, count)
        exact = bool(distances[0] <= ROUNDING * np.linalg.norm(vector))
        # far from all others the weights become equal, and a distance of 0 is never divided by
        weights = np.arange(len(rows)) == 0 if exact else distances[0] / distances
        x, y, px, py = (weights @ self.points[rows] / weights.sum()).tolist()
        neighbours = tuple(zip(rows.tolist(), distances.tolist(), strict=True))
        return Place(x=x, y=y, px=px, py=py, exact=exact, neighbours=neighbours)

    def _nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and distances of the nearest stored signatures, nearest first; of equally near ones the lower row."""
        rows, far = np.empty(0, np.int64), np.empty(0)
        for start, block in self.vectors.blocks():
            near, distances = nearest(block, min(count, len(block)), queries=vector)
            rows, far = np.append(rows, start + near[0]), np.append(far, distances[0])
            best = np.lexsort((rows, far))[:count]
            rows, far = rows[best], far[best]
        return rows, far
