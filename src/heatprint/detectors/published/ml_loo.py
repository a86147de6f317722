"""The dispersion of attributions at several layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import Examples
from heatprint.detectors.published.layers import LAST, check_layers, check_seen, outputs, poolings
from heatprint.detectors.published.logistic import apply_logistic, fit_logistic
from heatprint.explainers import EXPLAINERS
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.explainers.lrp.explainer import LRP
from heatprint.explainers.target import weights
from heatprint.models.predict import batch_size
from heatprint.signatures.relevance import What, asked

GRADIENT = "input_t_gradient"


@dataclass(frozen=True, kw_only=True)
class MLLOO:
    """How widely attributions scatter at several layers, and a logistic regression on that (Yang et al. 2020).

    Of the attributions phi of the input's values and of the neurons at each layer the standard deviation, the median
    absolute deviation and the interquartile range are taken ("ML-LOO", sections on dispersion and on the extension to
    several layers); those of adversarials are larger.

    Deviation: the paper's attribution is leave-one-out, f(x) - f(x without value i), which takes as many forward
    passes as the input has values, 37,633 at 112 x 112 pixels, and as many again at layers as they have neurons. Here
    it is the first-order term of that, a_i df/da_i, for all values and layers from one backward pass, or relevance.
    Leave-one-out and this are equal where the logit is linear in the value left out. Of the logit, not the
    probability, whose slope vanishes for sure answers.

    Gradients jump where a rectifier or a maximum switches, so that in float32 the rounding of another batch size can
    move a score by about a thousandth of the scores' spread; in float64 it does not.

    Attributes:
        attribution: ``"input_t_gradient"``, or the name of an ``lrp.`` method.
        explained: ``"predicted"`` class, or ``"contrast"``: the predicted minus the runner-up.
        layers: Besides the input. For the gradient module names, for LRP names as its plan prints them; ``"last"`` for
            the last hidden neurons. Empty: the output of every pooling layer and the last hidden neurons.
    """

    attribution: str = GRADIENT
    explained: What = "predicted"
    layers: tuple[str, ...] = ()
    unsupervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layers("MLLOO", self.layers)
        if self.attribution != GRADIENT and not issubclass(EXPLAINERS.load(self.attribution), LRP):
            raise InvalidInput(
                f"MLLOO: attribution = {self.attribution!r} knows no layers; write {GRADIENT!r} or an 'lrp.' method."
            )
        if self.explained not in ("predicted", "contrast"):
            raise InvalidInput(f"MLLOO: explained = {self.explained!r}; write 'predicted' or 'contrast'.")

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """The regression's arrays."""
        features = self.dispersions(classifier, examples.pixels, progress=progress)
        return fit_logistic(features, examples.attacked, examples.sources)

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Log-odds that an image was attacked, float64 [N]."""
        return apply_logistic(learned, self.dispersions(classifier, pixels)) if len(pixels) else np.empty(0)

    def dispersions(self, classifier: Classifier, pixels: Tensor, *, progress: Progress = silent) -> np.ndarray:
        """Three numbers for the input and for each layer, float64 [N, 3 (1 + layers)].

        Args:
            classifier: Left as it is.
            pixels: uint8 [N, 3, H, W], N 1 or more.
            progress: Told how many images are through.

        Raises:
            InvalidInput: There is no such layer.
        """
        parts: list[np.ndarray] = []
        done = 0
        for part in torch.split(pixels, max(1, batch_size(classifier) // 4)):  # a backward pass needs memory
            found = self.attributions(classifier, to_images(part.to(classifier.device)))
            parts.append(np.concatenate([dispersion(phi.flatten(1).cpu().numpy()) for phi in found.values()], 1))
            progress(done := done + len(part), len(pixels))
        return np.concatenate(parts)

    def attributions(self, classifier: Classifier, images: Tensor) -> Mapping[str, Tensor]:
        """Attributions of the input and of each layer, [N, ...], by name.

        Args:
            classifier: Left as it is.
            images: [N, 3, H, W] in [0, 1], all explained at one time.
        """
        if self.attribution == GRADIENT:
            return self._gradients(classifier, images)
        method = EXPLAINERS.make(self.attribution)
        assert isinstance(method, LRP)
        inputs = classifier.normalise(images)
        with torch.no_grad():
            target = asked(self.explained, classifier.network(inputs))
        layers = self.layers or (*_pooled_by_plan(method, classifier, inputs[:1], target[:1]), LAST)
        explained, kept = method.attribute(classifier, inputs, target, layers=layers)
        return {"input": explained.relevance, **kept}

    def _gradients(self, classifier: Classifier, images: Tensor) -> Mapping[str, Tensor]:
        wanted = self.layers or (*poolings(classifier.network), LAST)
        modules = tuple(name for name in wanted if name != LAST)
        inputs = classifier.normalise(images).detach().clone().requires_grad_()
        with outputs(classifier.network, modules) as seen, torch.enable_grad():
            logits = classifier.network(inputs.clone())  # a clone, so that a network may write into its input
        check_seen(seen, modules)
        target = weights(asked(self.explained, logits.detach()), logits)
        values = {"input": inputs, **seen}
        slopes = torch.autograd.grad((logits * target).sum(), list(values.values()), materialize_grads=True)
        found = {name: (a * da).detach() for (name, a), da in zip(values.items(), slopes, strict=True)}
        if LAST in wanted:
            hidden, weight, _ = last_neurons(classifier, images)
            found[LAST] = hidden * (target @ weight)
        return found


def dispersion(phi: np.ndarray) -> np.ndarray:
    """Standard deviation, median absolute deviation and interquartile range of each row: [N, D] to float64 [N, 3]."""
    phi = phi.astype(np.float64)
    low, middle, high = np.percentile(phi, (25, 50, 75), axis=1)
    return np.stack([phi.std(1), np.median(np.abs(phi - middle[:, None]), axis=1), high - low], 1)


def _pooled_by_plan(method: LRP, classifier: Classifier, inputs: Tensor, target: Tensor) -> tuple[str, ...]:
    """Names of the pooling operations that relevance flows through."""
    plan = method.attribute(classifier, inputs, target)[0].plan
    return tuple(line.layer for line in plan if "pool" in line.operator)
