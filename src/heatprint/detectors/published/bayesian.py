"""Bayesian uncertainty and kernel density (Feinman et al. 2017), without the leaks of the published code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
from heatprint.models.head import through_head

ROWS = 1024  # of passes through the head at a time: 100 MB of the 25,088 inputs of a VGG16's


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

    Deviations: dropout is on the input of every linear layer of the head, as `models.head` finds it (the
    dense layers of a VGG, the one of a ResNet), so one pass through the convolutions serves all `passes`, and a network
    trained without dropout can be asked, too. (On the input of the last layer alone it misled on our photographs: what
    that layer reads is small near the border, and so is what dropout does to it.) All images meet the same masks, drawn
    once from the seed: a score depends on the image alone, and two images differ by what they are, not by their draws.

    Attributes:
        passes: Dropout passes, 2 or more; the paper's 50.
        dropout: Share of a layer's inputs that is left out, above 0 and below 1; the others are divided by the rest.
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
            Unsupported: The logits are not the output of a linear layer on vectors, or the head mixes images.
        """
        sources, clean = groups(examples.sources), clean_rows("Bayesian", examples)
        kernels = self.kernels(classifier, examples.take(clean), sources[clean], seed)
        columns = []
        for start in range(0, len(examples), STREAM):
            rows = slice(start, start + STREAM)
            columns.append(self.columns(classifier, kernels, seed, examples.pixels[rows], sources[rows]))
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
        return apply_logistic(learned, self.columns(classifier, kernels, int(learned["seed"][0]), pixels))

    def kernels(self, classifier: Classifier, clean: Examples, sources: np.ndarray, seed: int) -> Density:
        """The density of the last hidden neurons of clean images, int64 [N] numbering the source of each."""
        order = stream(seed, "bayesian/centres").permutation(len(clean))
        labels = clean.labels.numpy()
        rows = np.sort(np.concatenate([order[labels[order] == c][: self.centres] for c in np.unique(labels)]))
        chosen = clean.take(rows)
        hidden = torch.cat([
            last_neurons(classifier, to_images(part))[0].float().cpu() for part in torch.split(chosen.pixels, STREAM)
        ])  # fmt: skip
        return density.fitted(hidden.numpy(), labels[rows], sources[rows])

    def columns(
        self, classifier: Classifier, kernels: Density, seed: int, pixels: Tensor, sources: np.ndarray | None = None
    ) -> np.ndarray:
        """Uncertainty and log density, float64 [N, 2], in learning and in scoring.

        Args:
            classifier: Left as it is.
            kernels: Of `kernels`.
            seed: Of the dropout masks.
            pixels: uint8 [N, 3, H, W].
            sources: int64 [N], numbered as for the kernels, where these images may be among those: their own kernels
                are then left out. None where they are not; for images that are, that is a leak.
        """
        columns = []
        for start in range(0, len(pixels), max(1, ROWS // self.passes)):
            part = slice(start, start + max(1, ROWS // self.passes))
            images = to_images(pixels[part].to(classifier.device))
            hidden, _, logits = last_neurons(classifier, images)
            passes = through_head(classifier, images, self.passes, partial(self.mask, seed))
            usual = kernels.log(
                hidden.double().cpu().numpy(), logits.argmax(1).cpu().numpy(),
                sources=None if sources is None else sources[part],
            )  # fmt: skip
            columns.append(np.stack([dropout_variance(passes.double().cpu().numpy()), usual], 1))
        return np.concatenate(columns) if columns else np.empty((0, 2))

    def mask(self, seed: int, layer: int, width: int) -> Tensor:
        """What the inputs of a linear layer of the head, numbered from 0, are multiplied with: float32 [passes, D]."""
        kept = stream(seed, "bayesian/dropout", layer).random((self.passes, width)) >= self.dropout
        return torch.from_numpy((kept / (1 - self.dropout)).astype(np.float32))


def dropout_variance(logits: np.ndarray) -> np.ndarray:
    """Variance of the softmax over dropout passes, mean over classes, float64 [N], of logits [T, N, K]."""
    variance: np.ndarray = softmax(logits, axis=2).var(0).mean(1)
    return variance
