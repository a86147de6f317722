"""How well the changed pixel is found, and the label restored."""

from __future__ import annotations

from typing import Any

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.values import Batch
from heatprint.detectors.locator import locate
from heatprint.evaluation.shares import share

NEAR = 1  # rows and columns by which a place may be off


def located(classifier: Classifier, clean: Batch, attacked: Batch) -> dict[str, Any]:
    """Shares of images whose changed pixel was found within one pixel, and whose true label came back.

    Args:
        classifier: The victim.
        clean: The images before, under the same ids, in any order; others may be among them.
        attacked: Images in each of which one pixel was changed.
    """
    place = {name: row for row, name in enumerate(clean.ids)}
    before = clean.pixels[torch.tensor([place[name] for name in attacked.ids])]
    found = locate(classifier, attacked.pixels)
    truth = (before != attacked.pixels).any(1).flatten(1).float().argmax(1)
    width = attacked.pixels.shape[3]
    off = (found.place - torch.stack([truth // width, truth % width], 1)).abs().amax(1)
    count = len(attacked)
    return {
        "exactly": share(int((off == 0).sum()), count),
        "within one pixel": share(int((off <= NEAR).sum()), count),
        "label restored": share(int((found.label == attacked.labels).sum()), count),
    }
