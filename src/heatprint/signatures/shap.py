"""The SHAP signature: Shapley values of the last hidden neurons, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.explainers.target import weights
from heatprint.signatures.activations import ActivationSignature
from heatprint.signatures.door import sign
from heatprint.signatures.relevance import What, asked, check_explained


@dataclass(frozen=True, kw_only=True)
class SHAPSignature:
    """Shapley values of the neurons a that the last linear layer w reads (Fidel, Bitton and Shabtai 2020).

    A logit is linear in them, so against a background of independent neurons the value of neuron j for class c is
    exactly w_cj (a_j - mean a_j), which the paper estimates by DeepExplainer. The paper joins the values of all
    classes; distances between those are exactly the distances between (a_j - mean a_j) ||w_:j||, which are returned
    for ``explained="every"``. Distances there do not depend on the background at all.

    Attributes:
        explained: ``"predicted"``; ``"contrast"``: the predicted class minus the runner-up; or ``"every"``.
        mean: Mean activation of each neuron over the background, D values; `fitted` measures it. Empty stands for a
            background of silent neurons, all zero: the values are then those of LRP-0, w_cj a_j.
    """

    explained: What = "every"
    mean: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_explained("SHAPSignature", self.explained)
        if not all(map(math.isfinite, self.mean)):
            raise InvalidInput("SHAPSignature: mean has values that are not finite; let `fitted` measure it.")

    def fitted(self, classifier: Classifier, background: Batch, *, progress: Progress = silent) -> SHAPSignature:
        """The same with the mean activations of background images, usually training images, each counted as given.

        Args:
            classifier: The classifier whose images will be signed.
            background: One image or more.
            progress: Told how far it is.

        Raises:
            InvalidInput: There are no images.
            Unsupported: The logits are not the output of a linear layer on vectors.
        """
        vectors = sign(classifier, background, ActivationSignature(), progress=progress).vectors
        ordered = np.sort(vectors.astype(np.float64), axis=0)  # so that the sum does not depend on the order of images
        return replace(self, mean=tuple(ordered.mean(0).tolist()))

    def sign(self, classifier: Classifier, images: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Signer`.

        Raises:
            InvalidInput: The mean is of another network's neurons.
            Unsupported: The logits are not the output of a linear layer on vectors.
        """
        hidden, weight, logits = last_neurons(classifier, images)
        if self.mean and len(self.mean) != hidden.shape[1]:
            raise InvalidInput(
                f"SHAPSignature: the mean has {len(self.mean)} values, but {classifier.name!r} has {hidden.shape[1]} "
                "last neurons; write SHAPSignature().fitted(classifier, background)."
            )
        centred = hidden - hidden.new_tensor(self.mean) if self.mean else hidden
        if self.explained == "every":
            return centred * weight.square().sum(0).sqrt()
        return (weights(asked(self.explained, logits), logits) @ weight) * centred
