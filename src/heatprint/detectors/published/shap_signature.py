"""A small network, or a logistic regression, on SHAP signatures of the last hidden neurons."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, Signer, silent
from heatprint.core.streams import stream, torch_seed
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import CLEAN, Examples
from heatprint.detectors.published.logistic import apply_logistic, fit_logistic, standardisation
from heatprint.models.predict import batch_size
from heatprint.signatures.activations import ActivationSignature
from heatprint.signatures.relevance import What, check_explained
from heatprint.signatures.shap import SHAPSignature

Model = Literal["mlp", "logistic"]


@dataclass(frozen=True, kw_only=True)
class SHAPSignatureDetector:
    """Learns what SHAP signatures of attacked images look like (Fidel, Bitton and Shabtai 2020).

    The signature is `heatprint.signatures.shap.SHAPSignature`: Shapley values of the neurons that the last linear
    layer reads, in closed form where the paper estimates them, against the clean images learned from as background.

    What the paper's signature holds: the values of all classes are w_cj (a_j - mean a_j). Once each column is
    standardised, those of one neuron are equal but for their signs and what is left is the standardised activation
    itself; the explanation adds nothing to it. ``explained="predicted"`` or ``"contrast"`` also tells which class was
    predicted, since the sign of a value is that of the class's weight.

    Deviations: one hidden layer, chosen for neither data set nor attack; both kinds count as much (of the rarer one
    rows are drawn again); features are standardised.

    Attributes:
        explained: ``"every"`` class, as in the paper; the ``"predicted"`` one; or ``"contrast"``, the predicted class
            minus the runner-up.
        model: ``"mlp"`` or ``"logistic"``, whose penalty is chosen on sources held out.
        hidden: Neurons of the MLP, 1 or more.
        penalty: Of the MLP's square weights, 0 or more.
        epochs: Of the MLP, 1 or more. There is no early stopping: scikit-learn would hold out single images, of which
            other versions are learned from.
    """

    explained: What = "every"
    model: Model = "mlp"
    hidden: int = 32
    penalty: float = 0.01
    epochs: int = 100
    unsupervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_explained("SHAPSignatureDetector", self.explained)
        if self.model not in get_args(Model):
            raise InvalidInput(f"SHAPSignatureDetector: model = {self.model!r}; write 'mlp' or 'logistic'.")
        if self.hidden < 1 or self.epochs < 1 or not 0 <= self.penalty < np.inf:
            raise InvalidInput(
                f"SHAPSignatureDetector: hidden = {self.hidden}, epochs = {self.epochs}, penalty = {self.penalty}; "
                "hidden and epochs are 1 or more, the penalty is 0 or more. The defaults are 32, 100 and 0.01."
            )

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """The background's mean activations and the model's arrays.

        Raises:
            InvalidInput: There are no clean images for the background.
            Unsupported: The logits are not the output of a linear layer on vectors.
        """
        clean = torch.from_numpy(np.asarray(examples.names) == CLEAN)
        if not clean.any():
            raise InvalidInput(
                f"SHAPSignatureDetector: no image is named {CLEAN!r}; give clean images for the background."
            )
        mean = _vectors(classifier, examples.pixels[clean], ActivationSignature()).mean(0)
        features = _vectors(classifier, examples.pixels, self._signature(mean), progress=progress)
        if self.model == "logistic":
            found = fit_logistic(features, examples.attacked, examples.sources)
        else:
            found = self._fitted(features, np.asarray(examples.attacked, dtype=bool), seed)
        return {**found, "background": mean}

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Log-odds that an image was attacked, float64 [N]."""
        if not len(pixels):
            return np.empty(0)
        features = _vectors(classifier, pixels, self._signature(learned["background"]))
        return apply_logistic(learned, features) if self.model == "logistic" else apply_mlp(learned, features)

    def _signature(self, mean: np.ndarray) -> SHAPSignature:
        return SHAPSignature(explained=self.explained, mean=tuple(mean.tolist()))

    def _fitted(self, features: np.ndarray, attacked: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        arrays = standardisation(features)
        rows = balanced(attacked, stream(seed, "shap-signature/balance"))
        model = MLPClassifier(
            (self.hidden,),
            alpha=self.penalty,
            max_iter=self.epochs,
            random_state=torch_seed(seed, "shap-signature/mlp") % 2**32,
        )
        with warnings.catch_warnings(), threadpool_limits(1):  # the same bits on every number of cores
            warnings.simplefilter("ignore", ConvergenceWarning)  # how long it learns is a setting
            model.fit(((features - arrays["mean"]) / arrays["scale"])[rows], attacked[rows])
        (first, last), (first_bias, last_bias) = model.coefs_, model.intercepts_
        return {**arrays, "hidden weights": first, "hidden bias": first_bias, "weights": last[:, 0], "bias": last_bias}


def apply_mlp(learned: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Log-odds float64 [N] of features [N, F]: standardised, one layer of ReLU neurons, a weighted sum."""
    white = (features - learned["mean"]) / learned["scale"]
    hidden = np.maximum(white @ learned["hidden weights"] + learned["hidden bias"], 0)
    return np.asarray(hidden @ learned["weights"] + learned["bias"][0])


def balanced(attacked: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Rows int64 in which both kinds are as frequent: all of them, and some of the rarer kind once more or more often.

    Args:
        attacked: bool [N], both kinds present.
        draws: By which the rows that are left over are chosen.
    """
    often, rare = np.flatnonzero(attacked), np.flatnonzero(~attacked)
    if len(often) < len(rare):
        often, rare = rare, often
    more = draws.choice(rare, len(often) % len(rare), replace=False)
    return np.sort(np.concatenate([often, np.repeat(rare, len(often) // len(rare)), more]))


def _vectors(classifier: Classifier, pixels: Tensor, method: Signer, *, progress: Progress = silent) -> np.ndarray:
    """Signatures float64 [N, D] of images uint8 [N, 3, H, W], N 1 or more, in streams."""
    parts: list[np.ndarray] = []
    done = 0
    for part in torch.split(pixels, batch_size(classifier)):
        parts.append(method.sign(classifier, to_images(part.to(classifier.device))).double().cpu().numpy())
        progress(done := done + len(part), len(pixels))
    return np.concatenate(parts)
