"""Exact SHAP values of the last hidden neurons: a signature in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.explainers.target import weights
from heatprint.models.predict import batch_size


def last_layer_shap(classifier: Classifier, images: Tensor, background: Tensor, target: Tensor) -> Tensor:
    """The SHAP values of the neurons that feed the last linear layer (Fidel, Bitton and Shabtai 2020).

    The logit is linear in these neurons a, so its Shapley values against a background of independent neurons are
    exact: phi_i = w_i (a_i - mean a_i), w the weights of the class explained, the mean over the background images.
    They sum to the score less its mean over the background.

    Costs one forward pass per image and per background image; keep the background and ask for many images at once.

    Args:
        classifier: Ends in a linear layer; untouched afterwards.
        images: [N, 3, H, W] in [0, 1].
        background: [B, 3, H, W] in [0, 1], usually training images; B is 1 or more.
        target: Classes, int64 [N], or weights of the logits, float [N, K].

    Returns:
        [N, D], on the classifier's device, in its dtype.

    Raises:
        InvalidInput: No background.
        Unsupported: The logits are not the output of a linear layer on vectors.
    """
    if not len(background):
        raise InvalidInput("last_layer_shap: there are no background images; give at least one.")
    hidden, weight, logits = last_neurons(classifier, images)
    mean = last_neurons(classifier, background)[0].mean(0)
    return (weights(target.to(logits.device), logits) @ weight) * (hidden - mean)


@torch.no_grad()
def last_neurons(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Activations [N, D] that feed the last linear layer, how the logits depend on them [K, D], and the logits [N, K].

    Raises:
        Unsupported: See `last_layer_shap`.
    """
    hidden, logits = [], []
    for part in torch.split(images.to(classifier.device), batch_size(classifier)):
        with _LastLinear(classifier) as watch:
            out = classifier.network(classifier.normalise(part).clone())
        vectors, weight = watch.logits_from(out)
        hidden.append(vectors)
        logits.append(out)
    return torch.cat(hidden), weight, torch.cat(logits)


class _LastLinear(TorchFunctionMode):
    """Remembers the last linear map whose weight belongs to the network, however the network calls it."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self._name = classifier.name
        self._weights = {id(p) for p in classifier.network.parameters()}
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.linear:
            vectors, weight, *_ = (*args, *(kwargs or {}).values())
            if id(weight) in self._weights:
                self._last = vectors, weight, out
        return out

    def logits_from(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors [N, D] and the weights [K, D] of which these logits are made, up to a bias.

        A single output z stands for two logits, -z/2 and z/2 (`models.wrap`).
        """
        if self._last is not None:
            vectors, weight, out = self._last
            if vectors.ndim == 2 and torch.equal(out, logits):
                return vectors, weight.detach()
            if vectors.ndim == 2 and out.shape[1] == 1 and torch.equal(torch.cat([-out / 2, out / 2], 1), logits):
                return vectors, torch.cat([-weight.detach() / 2, weight.detach() / 2])
        raise Unsupported(
            f"last_layer_shap: the logits of {self._name!r} are not the output of a linear layer on vectors. "
            "Explain its input with explainers.make('shap.kernel') instead."
        )
