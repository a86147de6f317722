"""Random noise: the control that shows what a perturbation of that size does without aim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level, whole_levels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise of at most `eps` per channel, on the 8-bit lattice; not an attack, the control beside one.

    Attributes:
        eps: Largest change, pixel values in [0, 1]; rounded down to whole levels. 0 changes nothing.
        kind: ``"sign"``: every channel moves by +eps or -eps, the size FGSM has; ``"uniform"``: any level between.
    """

    eps: Level = 8 / 255
    kind: Literal["sign", "uniform"] = "sign"

    def __post_init__(self) -> None:
        check_level("Noise: eps", self.eps)

    @property
    def taxonomy(self) -> Taxonomy:
        """Knows nothing and asks nothing."""
        return Taxonomy(knowledge="none", specificity="untargeted", frequency="one-time", norm="linf", paper="control")

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del access, goal
        levels = whole_levels(self.eps)
        out = images.clone()
        for row in range(len(images)):
            rng = streams.of(row)
            shape = tuple(images.shape[1:])
            delta = rng.integers(0, 2, shape) * 2 * levels - levels
            if self.kind == "uniform":
                delta = rng.integers(-levels, levels + 1, shape)
            out[row] += torch.from_numpy(delta.astype(np.float32) / LEVELS)
            progress(row + 1, len(images))
        return Perturbed(images=out.clamp_(0, 1), step=torch.full((len(images),), -1))
