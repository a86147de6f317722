"""Bayesian uncertainty and kernel density (Feinman et al. 2017), without the leaks of the published code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress
from heatprint.core.streams import stream
from heatprint.detectors.door import STREAM, Learned
from heatprint.detectors.examples import Examples
from heatprint.detectors.published import density
from heatprint.detectors.published.density import Density
from heatprint.detectors.published.learning import clean_rows
from heatprint.detectors.published.logistic import apply_logistic, fit_logistic, groups
from heatprint.explainers.gradients.shap_last import last_neurons


@dataclass(frozen=True, kw_only=True)
class Bayesian:
    """How unsure the last layer is under dropout, and how usual its input is for the class predicted.

    Feinman, Curtin, Shintre and Gardner (2017, "Detecting Adversarial Samples from Artifacts"): with softmaxes y_t of T
    passes with dropout, the uncertainty is U = (1 / T) sum of y_t' y_t - m' m, m their mean (here over K, as in their
    code: the variance, mean over classes); the density is that of a Gaussian kernel estimate over the last hidden
    neurons of clean images of the predicted class, as a logarithm. Both are z-scored and joined by logistic regression.
    The score is its log odds.

    What the published code does otherwise, and this does not: it z-scores with the images it is tested on, reports the
    area under the curve of the very images the regression was fitted to, and takes the bandwidth from a table. Here
    z-scores are of the images it learns from alone, and in learning no image meets a kernel of its own source, so that
    clean images do not look more usual there than new ones will. The bandwidth maximises cross-validated likelihood.

    Deviations: dropout is on the input of the last linear layer only, so one pass through the network serves all
    `passes`, and a network trained without dropout can be asked, too. All images meet the same masks, drawn once from
    the seed: a score depends on the image alone, and two images differ by what they are, not by their draws.

    Attributes:
        passes: Dropout passes, 2 or more; the paper's 50.
        dropout: Share of the last hidden neurons that is left out, above 0 and below 1.
        centres: Kernels per class at most, 2 or more; drawn from the clean images where there are more.
    """

    passes: int = 50
    dropout: float = 0.5
    centres: int = 1000
    unsupervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.passes < 2 or self.centres < 2:
            raise InvalidInput(
                f"Bayesian: passes = {self.passes} and centres = {self.centres} must be 2 or more; a variance and a "
                "density need that many."
            )
        if not 0 < self.dropout < 1:
            raise InvalidInput(f"Bayesian: dropout = {self.dropout} must be above 0 and below 1. Write 0.5 for half.")

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """See `heatprint.detectors.door.Method`.

        Raises:
            InvalidInput: Too few clean images.
            Unsupported: The logits are not the output of a linear layer on vectors.
        """
        sources, clean = groups(examples.sources), clean_rows("Bayesian", examples)
        kernels = self._kernels(classifier, examples.take(clean), sources[clean], seed)
        columns = []
        for start in range(0, len(examples), STREAM):
            rows = slice(start, start + STREAM)
            columns.append(self._columns(classifier, kernels, seed, examples.pixels[rows], sources[rows]))
            progress(min(start + STREAM, len(examples)), len(examples))
        measured = np.concatenate(columns)
        return {
            **fit_logistic(measured, np.asarray(examples.attacked), examples.sources),
            "centres": kernels.centres, "classes": kernels.classes, "bandwidth": np.array([kernels.bandwidth]),
            "seed": np.array([seed]),
        }  # fmt: skip

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Log odds of attacked against not, float64 [N]."""
        kernels = Density(
            centres=learned["centres"], classes=learned["classes"], bandwidth=float(learned["bandwidth"][0])
        )
        return apply_logistic(learned, self._columns(classifier, kernels, int(learned["seed"][0]), pixels))

    def _kernels(self, classifier: Classifier, clean: Examples, sources: np.ndarray, seed: int) -> Density:
        order = stream(seed, "bayesian/centres").permutation(len(clean))
        labels = clean.labels.numpy()
        rows = np.sort(np.concatenate([order[labels[order] == c][: self.centres] for c in np.unique(labels)]))
        chosen = clean.take(rows)
        hidden = torch.cat([
            last_neurons(classifier, to_images(part))[0].float().cpu() for part in torch.split(chosen.pixels, STREAM)
        ])  # fmt: skip
        return density.fitted(hidden.numpy(), labels[rows], sources[rows])

    def _columns(
        self, classifier: Classifier, kernels: Density, seed: int, pixels: Tensor, sources: np.ndarray | None = None
    ) -> np.ndarray:
        """Uncertainty and log density, float64 [N, 2]."""
        hidden, weight, logits = (found.double().cpu().numpy() for found in last_neurons(classifier, to_images(pixels)))
        masks = stream(seed, "bayesian/dropout").random((self.passes, hidden.shape[1])) >= self.dropout
        unsure = dropout_variance(hidden, weight, logits, masks / (1 - self.dropout))
        usual = kernels.log(hidden, logits.argmax(1), sources=sources)
        return np.stack([unsure, usual], 1)


def dropout_variance(hidden: np.ndarray, weight: np.ndarray, logits: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Variance of the softmax over dropout passes through the last linear layer, mean over classes, float64 [N].

    Args:
        hidden: What the layer reads, [N, D].
        weight: Its weights, [K, D].
        logits: Its outputs without dropout, [N, K]; they tell the bias.
        masks: What each pass multiplies its input with, [T, D]: 0, or 1 over the share that is kept.
    """
    bias = logits - hidden @ weight.T
    mean, squares = np.zeros_like(logits), np.zeros_like(logits)
    for count, mask in enumerate(masks, start=1):  # Welford 1962: no digits lost where the variance is small
        gap = softmax((hidden * mask) @ weight.T + bias, axis=1) - mean
        mean += gap / count
        squares += gap * gap * (count - 1) / count
    variance: np.ndarray = squares.mean(1) / len(masks)
    return variance
