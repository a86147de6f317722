"""Mahalanobis distances of activations to the nearest class, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import CLEAN, Examples
from heatprint.detectors.published.layers import averaged, check_layers
from heatprint.detectors.published.logistic import apply_logistic, fit_logistic, folds_by_source

FEWEST_CLEAN = 10  # clean images, below which no covariance is estimated
BLOCK = 2**22  # differences held at a time: 32 MiB


@dataclass(frozen=True, kw_only=True)
class Mahalanobis:
    """How far an image's activations lie from the nearest class, and a logistic regression over layers.

    Lee et al. (2018): at each layer the classes of clean images are Gaussians with means of their own and one tied
    covariance S (equation 1); the confidence is the largest -(a - m_c)' S^-1 (a - m_c) over classes c (equation 2) of
    the activations a averaged over positions (section 2.2); the layers are weighted by a logistic regression
    (Algorithm 1).

    Deviations, each against a number that would be too good:

    - No input preprocessing: its magnitude was chosen for each attack, with the attack in hand.
    - The layers' weights are fitted to distances from Gaussians that were fitted to other sources, in up to five
      folds, and so is the penalty chosen. Distances of images that made the covariance are smaller than those of new
      images, and adversarials of the same images inherit that. The Gaussians that are kept are fitted to all.
    - The covariance is shrunk (Ledoit and Wolf 2004), since layers have as many channels as there may be images.

    Attributes:
        layers: Module names, and ``"last"`` for the last hidden neurons. Empty: the output of every pooling module
            and the last hidden neurons. Networks that pool by functions, or hardly pool, need names here.
    """

    layers: tuple[str, ...] = ()
    unsupervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layers("Mahalanobis", self.layers)

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """Class means and a whitening matrix per layer, and the regression's arrays.

        Raises:
            InvalidInput: Too few clean images.
        """
        clean = np.asarray(examples.names) == CLEAN
        if clean.sum() < FEWEST_CLEAN:
            raise InvalidInput(
                f"Mahalanobis: {int(clean.sum())} of {len(examples)} images are named {CLEAN!r}; give "
                f"{FEWEST_CLEAN} or more, from which the classes' means and covariance are measured."
            )
        layers = list(averaged(classifier, examples.pixels, self.layers, progress=progress).values())
        labels = examples.labels.cpu().numpy()
        far = np.zeros((len(examples), len(layers)))
        for fit, held in folds_by_source(examples.sources) or [(np.arange(len(far)), np.arange(len(far)))]:
            rows = fit[clean[fit]]
            if len(rows) < 2:
                raise InvalidInput(
                    "Mahalanobis: nearly all clean images are of one source; give clean images of many sources."
                )
            for place, values in enumerate(layers):
                far[held, place] = distances(gaussian(values[rows], labels[rows]), values[held])
        learned = fit_logistic(far, examples.attacked, examples.sources)
        for place, values in enumerate(layers):
            learned |= {f"{place}/{name}": array for name, array in gaussian(values[clean], labels[clean]).items()}
        return learned

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Log-odds that an image was attacked, float64 [N]."""
        if not len(pixels):
            return np.empty(0)
        layers = averaged(classifier, pixels, self.layers).values()
        far = [
            distances({name: learned[f"{place}/{name}"] for name in ("means", "whitening")}, values)
            for place, values in enumerate(layers)
        ]
        return apply_logistic(learned, np.stack(far, 1))


def gaussian(values: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Classes with means of their own and one tied, shrunk covariance.

    Args:
        values: float64 [N, C].
        labels: int [N].

    Returns:
        ``means`` float64 [K, C] of the classes that occur, and ``whitening`` float64 [C, C], a matrix W with
        W W' = S^-1. Directions that do not vary at all are left out.
    """
    classes, place = np.unique(labels, return_inverse=True)
    means = np.stack([values[place.ravel() == row].mean(0) for row in range(len(classes))])
    tied = ledoit_wolf(values - means[place.ravel()], assume_centered=True)[0]
    sizes, directions = eigh(tied)
    kept = sizes > max(sizes[-1], 0) * len(sizes) * np.finfo(np.float64).eps
    return {"means": means, "whitening": directions * np.where(kept, np.where(kept, sizes, 1) ** -0.5, 0)}


def distances(model: Mapping[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    """Square Mahalanobis distance to the nearest class, float64 [N], of values [N, C]."""
    means, whitening = model["means"], model["whitening"]
    least = np.full(len(values), np.inf)
    rows = max(1, BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        for mean in means:
            white = (values[part] - mean) @ whitening
            least[part] = np.minimum(least[part], np.square(white).sum(1))
    return least
