"""Networks made of networks: something in front of one, or several side by side, saved and rebuilt like any other.

The architecture of such a network is spelled ``PART:ARGUMENT|ARCHITECTURE``, e.g. ``"median:3|vgg-slim"``, and parts
may stand before parts. Parts take images in [0, 1]; what stands behind normalises by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.models.wrap import wrap


class Normalised(nn.Module):
    """A network with its normalisation: takes images in [0, 1].

    Args:
        network: Takes normalised images.
        mean: Subtracted per channel.
        std: Divided by.
    """

    mean: Tensor
    std: Tensor
    folds = ("network",)

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class Fronted(nn.Module):
    """Something that changes images, and a network that sees what it leaves.

    With `straight_through`, gradients pass the front as if it were not there, forward passes stay what they are: the
    backward pass differentiable approximation of Athalye, Carlini and Wagner (2018), for attackers of fronts that have
    no useful gradient.
    """

    folds = ("network",)

    def __init__(self, front: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.front, self.network = front, network
        self.straight_through = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K]."""
        seen = self.front(images)
        if self.straight_through:
            seen = images + (seen - images).detach()
        logits: Tensor = self.network(seen)
        return logits


class Together(nn.Module):
    """Several networks: the mean of their log-probabilities, so that logits stay logits and none outshouts the rest."""

    folds = ("members",)

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Mean log-probabilities [N, K]."""
        return torch.stack([member(images).log_softmax(1) for member in self.members]).mean(0)


def fronted(classifier: Classifier, front: nn.Module, spelled: str, *, name: str = "") -> Classifier:
    """A classifier behind a front.

    Args:
        classifier: What sees the changed images; copied.
        front: Images in [0, 1] to images in [0, 1] of the same shape.
        spelled: How `build` makes the front: ``"PART"`` or ``"PART:ARGUMENT"``.
        name: Of the result.
    """
    return composed(Fronted(front, inside(classifier)), classifier, spelled, name)


def together(classifiers: Sequence[Classifier], *, name: str = "") -> Classifier:
    """Classifiers of equal classes, size and architecture as one.

    Raises:
        InvalidInput: None, or they do not fit together.
    """
    kinds = {(one.classes, one.size, one.architecture) for one in classifiers}
    if len(kinds) != 1:
        raise InvalidInput(
            f"together: {len(classifiers)} classifiers of {len(kinds)} kinds; give one or more of equal classes, size "
            "and architecture."
        )
    return composed(
        Together([inside(one) for one in classifiers]), classifiers[0], f"ensemble:{len(classifiers)}", name
    )


def inside(classifier: Classifier) -> nn.Module:
    """A copy of a classifier's network that takes images in [0, 1]."""
    network = copy.deepcopy(classifier.trainable)
    plain = not any(classifier.mean) and all(s == 1 for s in classifier.std)
    return network if plain and "|" in classifier.architecture else Normalised(network, classifier.mean, classifier.std)


def composed(network: nn.Module, like: Classifier, spelled: str, name: str) -> Classifier:
    """A network that takes images in [0, 1], made of the one of `like`, as a classifier."""
    architecture = f"{spelled}|{like.architecture}" if like.architecture else ""
    network = network.to(like.device)
    return wrap(network, classes=like.classes, size=like.size, name=name or like.name, architecture=architecture)
