"""Superpixels: an image as a few connected regions that are switched on and off together."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from skimage.segmentation import expand_labels, felzenszwalb, quickshift, slic
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import to_pixels

Kind = Literal["slic", "felzenszwalb", "quickshift", "grid"]
"""SLIC (Achanta et al. 2012), Felzenszwalb and Huttenlocher 2004, quickshift (Vedaldi and Soatto 2008), squares."""


def segment(pixels: np.ndarray, kind: Kind, number: int) -> np.ndarray:
    """The label map of one image: which superpixel each pixel belongs to. The same image gives the same map.

    Every algorithm but the grid follows the image and may find more regions than asked for: the `number` largest
    are kept, and each pixel of a smaller one goes to the nearest of them. An image in which it finds no two regions
    (a constant one) is cut into a grid.

    Args:
        pixels: uint8 [H, W, 3].
        kind: The algorithm.
        number: How many superpixels at most, 4 or more; the grid has the largest square number that is not above.

    Returns:
        int64 [H, W], numbered 0 to S - 1 with 2 <= S <= number.
    """
    height, width = pixels.shape[:2]
    if kind == "slic":
        found = slic(pixels, n_segments=number, start_label=0)
    elif kind == "felzenszwalb":
        found = felzenszwalb(pixels, min_size=max(1, height * width // (4 * number)))
    elif kind == "quickshift":
        found = quickshift(pixels)  # type: ignore[no-untyped-call]
    else:
        found = _grid(height, width, number)
    labels = _numbered(found)
    if labels.max() == 0:
        return _grid(height, width, number)
    return _largest(labels, number)


def recovered_pixels(classifier: Classifier, image: Tensor) -> np.ndarray:
    """The 8-bit image, uint8 [H, W, 3], behind a normalised one [3, H, W]."""
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (classifier.mean, classifier.std))
    pixels: np.ndarray = to_pixels(image.detach() * std + mean).permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def label_map(classifier: Classifier, image: Tensor, kind: Kind, number: int) -> Tensor:
    """`segment` of a normalised image [3, H, W]: int64 [H, W], on its device."""
    labels = segment(recovered_pixels(classifier, image), kind, number)
    return torch.from_numpy(labels).to(image.device)


def _grid(height: int, width: int, number: int) -> np.ndarray:
    side = int(number**0.5)
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    return _numbered(rows[:, None] * side + columns[None, :])


def _numbered(labels: np.ndarray) -> np.ndarray:
    """The same regions, numbered without gaps."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def _largest(labels: np.ndarray, number: int) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    if len(sizes) <= number:
        return labels
    kept = np.argsort(-sizes, kind="stable")[:number]
    seeds = np.where(np.isin(labels, kept), labels + 1, 0)  # 0 is what has no label yet
    return _numbered(expand_labels(seeds, distance=sum(labels.shape)))  # type: ignore[no-untyped-call]
