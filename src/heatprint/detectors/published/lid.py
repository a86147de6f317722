"""Local intrinsic dimension of activations among clean images, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.streams import stream
from heatprint.detectors.door import STREAM, Learned
from heatprint.detectors.examples import CLEAN, Examples
from heatprint.detectors.published.layers import averaged, check_layers
from heatprint.detectors.published.logistic import apply_logistic, fit_logistic, groups
from heatprint.signatures.neighbours import nearest

FEWEST_CLEAN = 10  # images to be neighbours of
NEAREST = 1e-3  # in units of the k-th distance; what is nearer, as a copy is, counts as so near
MOST = 1e3  # dimensions; as many are given where all k distances are equal


@dataclass(frozen=True, kw_only=True)
class LID:
    """In how many directions the clean images around an image lie, and a logistic regression over layers.

    Ma et al. (2018), equation 4: the maximum likelihood estimate -(1/k sum_i log(r_i / r_k))^-1 of the local
    intrinsic dimension, r_i the distance to the i-th nearest clean image at one layer; adversarials are expected
    where more dimensions are filled.

    Deviations:

    - The neighbours are looked for in a fixed reference set, drawn from the clean images learned from and kept. The
      paper takes the minibatch the image came in. Then the score of an image depends on the images beside it: a single
      image has none, and whoever sends the batch can choose its neighbours.
    - Images of the same source are no neighbours while learning. In the paper's Algorithm 1 the nearest neighbour of
      an adversarial is its own original, which a detector at work never has.
    - k and the layers are not tuned for each attack.
    - Maps are averaged over the cells of a grid, so that the reference set stays small; the paper compares whole maps.
      Averaged over all positions (a grid of 1), hardly anything is left to be found.

    Scores of images it was fitted to, and of others made from them, mean nothing: they find themselves among their
    neighbours.

    Attributes:
        layers: Module names, and ``"last"`` for the last hidden neurons. Empty: the output of every pooling module
            and the last hidden neurons. Networks that pool by functions, or hardly pool, need names here.
        neighbours: k, 2 or more; fewer are taken where the reference set is too small for so many of other sources.
        reference: Most clean images that are kept, 10 or more; drawn at random where there are more.
        grid: Cells per side that maps are averaged over, 1 or more; smaller maps stay whole.
    """

    layers: tuple[str, ...] = ()
    neighbours: int = 20
    reference: int = 1000
    grid: int = 7
    unsupervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layers("LID", self.layers)
        if self.neighbours < 2:
            raise InvalidInput(f"LID: neighbours = {self.neighbours}; write 2 or more, 20 as in the paper.")
        if self.reference < FEWEST_CLEAN:
            raise InvalidInput(f"LID: reference = {self.reference}; write {FEWEST_CLEAN} images or more, e.g. 1000.")
        if self.grid < 1:
            raise InvalidInput(f"LID: grid = {self.grid}; write 1 or more, 7 as the default.")

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """The reference set's activations per layer, how many neighbours are taken, and the regression's arrays.

        Raises:
            InvalidInput: Too few clean images.
        """
        rows = self._drawn(examples, seed)
        source = groups(examples.sources)
        own = int(np.unique(source[rows], return_counts=True)[1].max(initial=0))  # most of one source
        count = min(self.neighbours, len(rows) - own)
        if len(rows) < FEWEST_CLEAN or count < 2:
            raise InvalidInput(
                f"LID: {len(rows)} images named {CLEAN!r}, {own} of them of one source; give {FEWEST_CLEAN} or "
                "more clean images of many sources, among which neighbours are looked for."
            )
        kept = self._layers(classifier, examples.pixels[torch.from_numpy(rows)])
        columns: list[np.ndarray] = []
        for start in range(0, len(examples), STREAM):
            part = slice(start, start + STREAM)
            asked = zip(kept, self._layers(classifier, examples.pixels[part]), strict=True)
            found = [nearest(reference, count + own, queries=values) for reference, values in asked]
            others = [_of_others(far, source[rows][near] == source[part, None], count) for near, far in found]
            columns.append(np.stack([dimension(far) for far in others], 1))
            progress(min(start + STREAM, len(examples)), len(examples))
        learned = fit_logistic(np.concatenate(columns), examples.attacked, examples.sources)
        learned["neighbours"] = np.array([count])
        return learned | {f"{place}/reference": values for place, values in enumerate(kept)}

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Log-odds that an image was attacked, float64 [N]."""
        if not len(pixels):
            return np.empty(0)
        layers, count = self._layers(classifier, pixels), int(learned["neighbours"][0])
        columns = [
            dimension(nearest(learned[f"{place}/reference"], count, queries=values)[1])
            for place, values in enumerate(layers)
        ]
        return apply_logistic(learned, np.stack(columns, 1))

    def _layers(self, classifier: Classifier, pixels: Tensor) -> list[np.ndarray]:
        """Activations per layer, float32: all layers of a thousand references are kept."""
        found = averaged(classifier, pixels, self.layers, grid=self.grid)
        return [values.astype(np.float32) for values in found.values()]

    def _drawn(self, examples: Examples, seed: int) -> np.ndarray:
        clean = np.flatnonzero(np.asarray(examples.names) == CLEAN)
        if len(clean) <= self.reference:
            return clean
        return np.sort(stream(seed, "lid/reference").choice(clean, self.reference, replace=False))


def dimension(far: np.ndarray) -> np.ndarray:
    """The estimate from distances [N, k] to the k nearest, in ascending order: float64 [N], 0 to 1000.

    0 where all k are the image itself: the layer tells nothing there.
    """
    last = far[:, -1:]
    ratios = np.maximum(far / np.where(last > 0, last, 1), NEAREST)
    return np.asarray(np.where(last[:, 0] > 0, 1 / np.maximum(-np.log(ratios).mean(1), 1 / MOST), 0))


def _of_others(far: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
    """The first distances of each row [N, count + ...] that are not marked as its own."""
    order = np.argsort(own, axis=1, kind="stable")[:, :count]  # others first, the nearest first among them
    return np.take_along_axis(far, order, 1)
