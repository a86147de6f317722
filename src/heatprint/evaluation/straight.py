"""The attacker who knows that a part of the network gives no gradient, and leads gradients past it."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.values import Batch
from heatprint.models.compose import Fronted

PROBED = 4  # images on which a front is asked for its gradient


def stand_in(classifier: Classifier, batch: Batch) -> Classifier | None:
    """The classifier with gradients led past every front that gives none; None where there is no such front.

    Forward passes stay what they are up to rounding errors: the backward pass differentiable approximation (Athalye,
    Carlini and Wagner 2018, section 4.1). What an attack finds on the stand-in is to be judged on the classifier.
    Masks and noise of the shipped defences are drawn once, so their gradient is that of what is asked, and fine.

    Args:
        classifier: Left as it is.
        batch: Some images, on the first of which the fronts are probed.
    """
    network = copy.deepcopy(classifier.network)
    images = batch.take(range(min(PROBED, len(batch)))).images.to(classifier.device, classifier.dtype)
    blocked = [
        part
        for part in network.modules()
        if isinstance(part, Fronted) and not part.straight_through and not _has_gradient(part.front, images)
    ]
    for part in blocked:
        part.straight_through = True
    return replace(classifier, network=network) if blocked else None


def _has_gradient(front: nn.Module, images: Tensor) -> bool:
    leaf = images.clone().requires_grad_(True)
    with torch.enable_grad():
        seen = front(leaf)
        if not seen.requires_grad:
            return False
        (slope,) = torch.autograd.grad(seen.sum(), leaf, allow_unused=True)
    return slope is not None and bool(slope.any())
