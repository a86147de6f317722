"""How much of an image's margin each single pixel could take, to first order, and with which colour."""

from __future__ import annotations

import numpy as np
import torch

from heatprint.core.classifier import Classifier
from heatprint.core.goals import untargeted
from heatprint.core.lattice import LEVELS
from heatprint.live.specimen import batch_of


def pixel_map(classifier: Classifier, pixels: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """The share of the margin that each pixel takes at its best colour.

    Its maximum is `heatprint.attacks.vulnerability.pixel_reach`.

    Args:
        classifier: The victim.
        pixels: uint8 [3, H, W].
        label: The true class, whose lead over the best other class is the margin.

    Returns:
        Shares float32 [H, W]: near 1 or above, this pixel alone may be enough; infinite all over where the image is
        wrong already. And the colours, uint8 [3, H, W]: black or white in each channel, or the channel as it is where
        the margin does not depend on it.

    Raises:
        InvalidInput: A class or an image that is none.
    """
    batch = batch_of(classifier, pixels, label)
    images = batch.images.to(classifier.device).requires_grad_()
    margin = -untargeted(batch.labels.to(classifier.device)).margin(classifier(images))
    (slope,) = torch.autograd.grad(margin.sum(), images)
    fall = torch.maximum(slope * images, slope * (images - 1)).sum(1)[0]
    share = torch.where(margin > 0, fall / margin, torch.inf)
    signs = slope[0].sign().cpu().numpy()
    colours = np.where(signs > 0, 0, np.where(signs < 0, LEVELS, pixels)).astype(np.uint8)
    return share.detach().float().cpu().numpy(), colours
