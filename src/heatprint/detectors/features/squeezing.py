"""Feature squeezing: how the margin changes when the image is simplified (Xu, Evans and Qi 2018)."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from heatprint.core.lattice import to_images
from heatprint.detectors.filters import box3, median3
from heatprint.detectors.look import Look


@dataclass(frozen=True, kw_only=True)
class Squeezing:
    """The margin of the predicted class after median, fewer bits, JPEG, blur, and after repairing suspicious pixels.

    Xu, Evans and Qi (NDSS 2018) compare probabilities; with two classes their L1 distance saturates, so the margin
    itself is compared: its change, and its change in units of the margin. The repair sets the one pixel, or the three,
    whose residual times slope is largest to their 3 x 3 median, the matched test for attacks on few pixels. Seven
    forward passes.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        kinds = ("median", "5 bits", "jpeg 90", "jpeg 75", "blur", "one pixel", "three pixels")
        return (*(f"{kind} {what}" for kind in kinds for what in ("change", "left")), "most")

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns]."""
        own = look.predicted[:, None]
        before = look.margins[:, 0]
        columns = []
        for squeezed in _squeezed(look):
            with torch.no_grad():
                logits = look.classifier(squeezed).float()
            after = (logits.gather(1, own) - logits.scatter(1, own, -torch.inf).amax(1, keepdim=True)).squeeze(1)
            columns += [before - after, after / (before + 0.05)]
        changes = torch.stack(columns, 1)
        return torch.cat([changes, changes[:, ::2].amax(1, keepdim=True)], 1)


def _squeezed(look: Look) -> list[Tensor]:
    images, pixels = look.images, look.pixels
    middle = to_images(median3(pixels))
    blur = box3(images)
    suspicion = (look.residual * look.slopes[:, 0]).sum(1)
    return [
        middle,
        (images * 31).round() / 31,
        saved_as_jpeg(pixels, 90).to(images),
        saved_as_jpeg(pixels, 75).to(images),
        (images + blur) / 2,
        _repaired(images, middle, suspicion, 1),
        _repaired(images, middle, suspicion, 3),
    ]


def _repaired(images: Tensor, middle: Tensor, suspicion: Tensor, count: int) -> Tensor:
    place = suspicion.flatten(1).topk(count, dim=1).indices
    chosen = torch.zeros_like(suspicion).flatten(1).scatter(1, place, 1).view_as(suspicion)[:, None]
    return torch.where(chosen > 0, middle, images)


def saved_as_jpeg(pixels: Tensor, quality: int) -> Tensor:
    """Images float32 in [0, 1] of pixels uint8 [N, 3, H, W] after a JPEG file of this quality, 1 to 100."""
    out = []
    for image in pixels.cpu().permute(0, 2, 3, 1).numpy():
        stream = io.BytesIO()
        Pillow.fromarray(np.ascontiguousarray(image)).save(stream, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.array(Pillow.open(stream))).permute(2, 0, 1))
    return to_images(torch.stack(out)) if out else to_images(pixels.cpu())
