"""The ramp of FGSM for one image: its direction is asked for once, every gain is then a sum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from heatprint.attacks.access import WhiteBox
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.lattice import LEVELS
from heatprint.live.specimen import batch_of

KEPT = 32  # images whose direction is remembered


class Ramp:
    """Gains of the attack ``fgsm``, with its loss and its clean gradient.

    Args:
        classifier: The victim.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._remembered = lru_cache(maxsize=KEPT)(self._direction)

    def at(self, pixels: np.ndarray, label: int, gain: int) -> np.ndarray:
        """The image, uint8 [3, H, W], moved by so many levels along the sign of the gradient at it.

        Args:
            pixels: uint8 [3, H, W].
            label: Its true class, whose loss rises.
            gain: 0 to 255 levels.

        Raises:
            InvalidInput: A gain, a class or an image that is none.
        """
        if not 0 <= gain <= LEVELS:
            raise InvalidInput(f"laboratory: gain = {gain} must be 0 to {LEVELS} levels of 1/{LEVELS}.")
        batch_of(self._classifier, pixels, label)  # refuses what is no image of this classifier's
        moved = (pixels.astype(np.int16) + gain * self._remembered(pixels.tobytes(), label)).clip(0, LEVELS)
        levels: np.ndarray = moved.astype(np.uint8)
        return levels

    def along(self, pixels: np.ndarray, label: int, gains: Sequence[int]) -> np.ndarray:
        """The image at each of the gains, uint8 [G, 3, H, W]."""
        if not len(gains):
            raise InvalidInput("laboratory: a curve needs one gain or more.")
        return np.stack([self.at(pixels, label, gain) for gain in gains])

    def _direction(self, content: bytes, label: int) -> np.ndarray:
        """Sign of the gradient of the loss, int16 [3, H, W]; 0 at a kink."""
        side = self._classifier.size
        batch = batch_of(self._classifier, np.frombuffer(content, np.uint8).reshape(3, side, side), label)
        access = WhiteBox(self._classifier, untargeted(batch.labels), batch.images)
        gradient, _ = access.gradient(batch.images.to(access.device), torch.tensor([0]), "cross_entropy")
        signs: np.ndarray = gradient[0].sign().to(torch.int16).cpu().numpy()
        return signs
