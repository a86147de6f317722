"""Which pixel was changed, the image with it repaired, and the label that comes back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import to_images
from heatprint.detectors.door import check_pixels
from heatprint.detectors.filters import box3, median3
from heatprint.detectors.look import Look

TRIED = 12  # pixels that are repaired on trial, one by one
CHUNK = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """Where few changed pixels are, image by image, as if one had been changed.

    Attributes:
        place: int64 [N, 2], row and column of the most suspicious pixel.
        restored: uint8 [N, 3, H, W], the image with this pixel set to the median of its 3 x 3.
        label: int64 [N], what the classifier says of the restored image.
        changed: bool [N], whether that is another class than before: only then is a one-pixel attack likely.
    """

    place: Tensor
    restored: Tensor
    label: Tensor
    changed: Tensor


def locate(classifier: Classifier, pixels: Tensor) -> Located:
    """The pixel whose repair takes most of the margin, among those that stick out where the classifier looks.

    Candidates are the twelve pixels with the largest residual times slope of the margin (what they add to the margin
    to first order), weighted by how far they stand out of their surroundings. Each is repaired on trial: a slope at
    the attacked image tells the first order only, and a search by differential evolution goes beyond it.

    Args:
        classifier: The one that was attacked.
        pixels: uint8 [N, 3, H, W].

    Raises:
        InvalidInput: Not 8-bit images of the classifier's size.
    """
    check_pixels(classifier, pixels)
    parts = [_located(classifier, part) for part in torch.split(pixels, CHUNK)] if len(pixels) else []
    if not parts:
        empty = torch.empty(0, dtype=torch.long)
        return Located(place=empty.view(0, 2), restored=pixels, label=empty, changed=empty.bool())
    return Located(**{name: torch.cat([getattr(p, name) for p in parts]) for name in Located.__dataclass_fields__})


def _located(classifier: Classifier, pixels: Tensor) -> Located:
    look = Look(classifier, pixels)
    width = pixels.shape[3]
    middle = median3(look.pixels)
    suspicion = _suspicion(look).flatten(1)
    candidates = suspicion.topk(min(TRIED, suspicion.shape[1]), dim=1).indices
    own = look.predicted
    fallen = []
    for rank in range(candidates.shape[1]):
        with torch.no_grad():
            logits = classifier(to_images(_repaired(look.pixels, middle, candidates[:, rank]))).float()
        lead = logits.gather(1, own[:, None]) - logits.scatter(1, own[:, None], -torch.inf).amax(1, keepdim=True)
        fallen.append(look.margins[:, :1] - lead)
    fall = torch.cat(fallen, 1)
    best = candidates.gather(1, fall.argmax(1, keepdim=True)).squeeze(1)
    restored = _repaired(look.pixels, middle, best)
    with torch.no_grad():
        label = classifier(to_images(restored)).argmax(1)
    place = torch.stack([best // width, best % width], 1)
    return Located(place=place.cpu(), restored=restored.cpu(), label=label.cpu(), changed=(label != own).cpu())


def _suspicion(look: Look) -> Tensor:
    carried = (look.residual * look.slopes[:, 0]).sum(1).clamp_min(0)
    size = look.residual.abs().amax(1)
    around = box3(box3(size[:, None]))[:, 0]
    return carried * size / (around + 2 / 255)


def _repaired(pixels: Tensor, middle: Tensor, place: Tensor) -> Tensor:
    """Images with one pixel each, int64 [N], set to the median of its surroundings."""
    out = pixels.clone().flatten(2)
    index = place[:, None, None].expand(-1, 3, 1)
    out.scatter_(2, index, middle.flatten(2).gather(2, index))
    return out.view_as(pixels)
