"""Feature squeezing: an image that was attacked is judged otherwise once it is simplified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import Examples
from heatprint.detectors.filters import median3, repeated
from heatprint.models.predict import batch_size


@dataclass(frozen=True, kw_only=True)
class SqueezingDetector:
    """The largest change of the softmax under any squeezer (Xu, Evans and Qi 2018, section V, joint detection).

    The score is the maximum over squeezers s of ||softmax f(x) - softmax f(s(x))||_1, between 0 and 2. Nothing is
    learned; the door's calibration is the paper's: the threshold that clean images exceed at the rate allowed.

    Deviations: a 3 x 3 median takes the place of non-local means, which costs more than the network on a CPU and is
    not the matched test for attacks on single pixels. The softmax is computed in float64, since with two classes the
    distance 2 |p - p'| saturates.

    Attributes:
        bits: Bits per channel that colours are reduced to, 1 to 7; 5 is the paper's choice for colour photographs. 0
            leaves this squeezer out.
        medians: Sides of the median filters in pixels, 2 or 3 or both. The window of the 2 x 2 one lies towards the
            top left, and of its four values the second largest is taken, as by scipy, which the paper used.
    """

    bits: int = 5
    medians: tuple[int, ...] = (2, 3)
    unsupervised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bits not in range(8):
            raise InvalidInput(f"SqueezingDetector: bits = {self.bits}; write 1 to 7, or 0 to leave it out.")
        if not set(self.medians) <= {2, 3} or len(set(self.medians)) != len(self.medians):
            raise InvalidInput(f"SqueezingDetector: medians = {self.medians}; write (2,), (3,), (2, 3) or ().")
        if not (self.bits or self.medians):
            raise InvalidInput("SqueezingDetector: there is no squeezer; set bits or medians.")

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """Nothing: the squeezers are fixed."""
        return {}

    @torch.no_grad()
    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Largest L1 distance of the softmax, float64 [N], 0 to 2."""
        found = []
        for part in torch.split(pixels.to(classifier.device), batch_size(classifier)):
            own = _softmax(classifier, to_images(part))
            changes = [(own - _softmax(classifier, images)).abs().sum(1) for images in self._squeezed(part)]
            found.append(torch.stack(changes).amax(0).cpu().numpy())
        return np.concatenate(found) if found else np.empty(0)

    def _squeezed(self, pixels: Tensor) -> Iterator[Tensor]:
        if self.bits:
            yield reduced(to_images(pixels), self.bits)
        medians: dict[int, Callable[[Tensor], Tensor]] = {2: median2, 3: median3}
        for side in self.medians:
            yield to_images(medians[side](pixels))


def reduced(images: Tensor, bits: int) -> Tensor:
    """Images in [0, 1] on the nearest of 2^bits levels per channel."""
    steps = float(2**bits - 1)
    return (images * steps).round() / steps  # no 8-bit colour lies halfway: 255 is odd, and so is the number of steps


def median2(pixels: Tensor) -> Tensor:
    """Second largest of the 2 x 2 values above and to the left, edges repeated: [N, C, H, W] to the same."""
    height, width = pixels.shape[2:]
    padded = repeated(pixels)
    a, b, c, d = (padded[:, :, i : i + height, j : j + width] for i in range(2) for j in range(2))
    upper, lower = torch.maximum(a, b), torch.minimum(a, b)
    other_upper, other_lower = torch.maximum(c, d), torch.minimum(c, d)
    return torch.maximum(torch.minimum(upper, other_upper), torch.maximum(lower, other_lower))


def _softmax(classifier: Classifier, images: Tensor) -> Tensor:
    softmax: Tensor = classifier(images).double().softmax(1)
    return softmax
