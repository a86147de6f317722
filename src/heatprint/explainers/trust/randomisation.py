"""Whether a map depends on what the network has learned: its weights are destroyed, and the map must change."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Explainer
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.explainers.conservation import ConservationWarning
from heatprint.explainers.door import explain
from heatprint.explainers.ranks import spearman
from heatprint.explainers.trust.similarity import ssim
from heatprint.models.predict import predict

HARDLY = 0.5  # a map that still correlates this much with the original has hardly changed

Mode = Literal["cascading", "independent"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Randomisation:
    """How alike the maps before and after are; alike is bad.

    Attributes:
        layers: The layer each row stands for, the network's top first. Cascading, all layers up to and including it
            are randomised; independent, it alone.
        spearman: float [L, N], rank correlation of the two maps; NaN where one of them is constant.
        ssim: float [L, N], their structural similarity.
    """

    layers: tuple[str, ...]
    spearman: Tensor
    ssim: Tensor

    @property
    def passed(self) -> bool | None:
        """Whether the map of the last row's network has lost the original's order; None where it cannot be decided."""
        return verdict(self.spearman[-1])

    @property
    def undefined(self) -> int:
        """Images of the last row without a rank correlation, which `passed` leaves out."""
        return int(self.spearman[-1].isnan().sum())


def verdict(correlations: Tensor) -> bool | None:
    """Whether maps have lost their order: the mean of |Spearman| is below `HARDLY`.

    The sign is of no use to a map that ignores the weights: one that is only turned round has not changed.

    Args:
        correlations: Of the maps before and after, float [N]; NaN is left out.

    Returns:
        None where every correlation is NaN: nothing is known, so nothing has passed.
    """
    known = correlations[~correlations.isnan()]
    return bool(known.abs().mean() < HARDLY) if len(known) else None


def randomisation(
    classifier: Classifier,
    batch: Batch,
    method: Explainer,
    *,
    target: Tensor | None = None,
    mode: Mode = "cascading",
    stops: int | None = 4,
    seed: int = 0,
) -> Randomisation:
    """Model-parameter randomisation test (Adebayo et al. 2018, section 3).

    A map that hardly changes when the network forgets everything does not explain the network; it draws the image's
    edges. The same class is explained before and after.

    Args:
        classifier: The classifier; copies are randomised, it is untouched.
        batch: The images.
        method: The explainer.
        target: The class explained, int64 [N]; the predicted one of the intact network.
        mode: From the top down to each layer, or each layer alone.
        stops: At most so many layers, evenly spread and the last one included; None for all.
        seed: Of the new weights.

    Raises:
        InvalidInput: An unknown mode, no stops, or a network without weights.
    """
    layers = weighted_layers(classifier.network)[::-1]
    if mode not in ("cascading", "independent") or (stops is not None and stops < 1):
        raise InvalidInput(
            f"randomisation: mode = {mode!r} must be 'cascading' or 'independent', stops = {stops} >= 1."
        )
    if not layers:
        raise InvalidInput(f"randomisation: {classifier.name!r} has no weights that could be randomised.")
    wanted = predict(classifier, batch.pixels).argmax(1) if target is None else target
    heat = explain(classifier, batch, method, target=wanted).heat
    places = _spread(len(layers), stops or len(layers))
    orders, structures = [], []
    for place in places:
        chosen = layers[: place + 1] if mode == "cascading" else [layers[place]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConservationWarning)  # of a network that is broken on purpose
            after = explain(randomised(classifier, chosen, seed=seed), batch, method, target=wanted).heat
        orders.append(spearman(heat, after))
        structures.append(ssim(heat, after))
    return Randomisation(
        layers=tuple(layers[place] for place in places), spearman=torch.stack(orders), ssim=torch.stack(structures)
    )


def weighted_layers(network: nn.Module) -> list[str]:
    """Names of the modules that hold weights of their own, in the order they were registered (input first)."""
    return [name for name, module in network.named_modules() if any(True for _ in module.parameters(recurse=False))]


def randomised(classifier: Classifier, layers: Sequence[str], *, seed: int = 0) -> Classifier:
    """A copy of a classifier whose named layers have forgotten what they learned.

    The values of each weight tensor are shuffled. Adebayo et al. draw them from the layer's initialiser, which a
    network from elsewhere does not name; a shuffle keeps their distribution, so that the copy's activations neither
    die nor explode and the map changes for no other reason than the loss of what was learned.

    Args:
        classifier: The original.
        layers: Names as in `weighted_layers`.
        seed: Each tensor's shuffle depends on it and on the tensor's name alone.
    """
    network = copy.deepcopy(classifier.network)
    with torch.no_grad():
        for layer in layers:
            for name, weight in network.get_submodule(layer).named_parameters(recurse=False):
                order = torch.from_numpy(stream(seed, "trust/randomise", layer, name).permutation(weight.numel()))
                weight.copy_(weight.flatten()[order.to(weight.device)].view(weight.shape))
    return replace(classifier, network=network, trainable=network, name=f"{classifier.name}, randomised")


def _spread(count: int, stops: int) -> list[int]:
    """At most `stops` places among `count`, evenly spread; the last one is always there."""
    ends = torch.linspace(0, count, min(stops, count) + 1, dtype=torch.float64)[1:]
    return [round(float(end)) - 1 for end in ends]
