"""Logits of many images, in batches, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import to_images
from heatprint.core.limits import images_at_a_time

BATCH = 64  # on CPU larger batches are no faster; on a GPU this is called with more


def batch_size(classifier: Classifier) -> int:
    """Images per forward pass that keep the device busy without filling its memory."""
    return images_at_a_time(BATCH if classifier.device.type == "cpu" else 4 * BATCH)


@torch.no_grad()
def predict(classifier: Classifier, pixels: Tensor, *, batch: int | None = None) -> Tensor:
    """Logits float32 [N, K], on the CPU, of 8-bit images uint8 [N, 3, H, W]."""
    step = batch or batch_size(classifier)
    parts = [classifier(to_images(part.to(classifier.device))).float().cpu() for part in torch.split(pixels, step)]
    return torch.cat(parts) if parts else torch.empty((0, len(classifier.classes)))
