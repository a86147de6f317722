"""Features of images, each family measured once, however many ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.detectors.features.table import columns, measure


@dataclass(frozen=True, kw_only=True, eq=False)
class Traces:
    """Images and what was measured of them so far.

    Attributes:
        classifier: Who looks at them.
        pixels: uint8 [N, 3, H, W].
        known: Family of features and number of rivals to float32 [N, columns].
    """

    classifier: Classifier
    pixels: Tensor
    known: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def table(self, families: Sequence[str], rivals: int) -> np.ndarray:
        """Features of all images, float32 [N, columns], in the order of the families."""
        missing = [name for name in families if (name, rivals) not in self.known]
        if missing:
            found = measure(self.classifier, self.pixels, missing, rivals=rivals)
            ends = np.cumsum([len(columns([name])) for name in missing])
            for name, part in zip(missing, np.split(found, ends[:-1], axis=1), strict=True):
                self.known[name, rivals] = part
        return np.concatenate([self.known[name, rivals] for name in families], axis=1)

    def take(self, rows: np.ndarray) -> Traces:
        """Some of the images, with what is known of them."""
        return Traces(
            classifier=self.classifier,
            pixels=self.pixels[torch.from_numpy(rows)],
            known={key: values[rows] for key, values in self.known.items()},
        )
