"""One image as a live question has it, and the way a single image is best computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Batch


def images_of(classifier: Classifier, pixels: np.ndarray) -> Tensor:
    """One image uint8 [3, H, W] as a batch of its own, uint8 [1, 3, H, W].

    Raises:
        InvalidInput: Not an 8-bit colour image of the classifier's size.
    """
    side = classifier.size
    if pixels.dtype != np.uint8 or pixels.shape != (3, side, side):
        raise InvalidInput(
            f"laboratory: {classifier.name!r} takes one image uint8 [3, {side}, {side}], got {pixels.dtype} "
            f"{list(pixels.shape)}. Resize it, and give its bytes channel by channel."
        )
    return torch.from_numpy(pixels.copy())[None]  # a copy, so that an array nobody may write to will do


def batch_of(classifier: Classifier, pixels: np.ndarray, label: int) -> Batch:
    """One image with its class, as a batch.

    Raises:
        InvalidInput: Not an image of the classifier's, or not a class of it.
    """
    check_class(classifier, label)
    return Batch(ids=("live",), pixels=images_of(classifier, pixels), labels=torch.tensor([label]))


def check_class(classifier: Classifier, number: int) -> None:
    """Refuse a number that is no class.

    Raises:
        InvalidInput: With the range.
    """
    most = len(classifier.classes) - 1
    if not 0 <= number <= most:
        raise InvalidInput(f"laboratory: class {number} does not exist; {classifier.name!r} has classes 0 to {most}.")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core, and leave the number of threads as it was.

    The layers of one small image take well under a millisecond. Several threads meet after each of them, and wherever
    another process holds one of the cores all wait until the scheduler lets the last one run: a hundred times longer
    than one thread needs for the whole image.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
