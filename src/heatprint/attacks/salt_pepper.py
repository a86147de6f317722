"""Salt and pepper: the control beside attacks that change few pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class SaltPepper:
    """A share of the pixels, drawn at random, set to black or white or a pure colour; not an attack.

    The step of the result is always -1: nothing was asked.

    Attributes:
        share: Share of the pixels, in [0, 1], rounded to a whole number of them. 0 changes nothing.
        coloured: Each channel is 0 or 1 by itself, so that a pixel takes one of the eight corners of the colour cube,
            which attacks of few pixels prefer; otherwise black or white.
    """

    share: float = 0.01
    coloured: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput(
                f"SaltPepper: share = {self.share} of the pixels must be from 0 to 1. Write 0.01 for 1 %."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """Knows nothing and asks nothing."""
        return Taxonomy(knowledge="none", specificity="untargeted", frequency="one-time", norm="l0", paper="control")

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del access, goal
        out = images.clone()
        size = images[0, 0].numel()
        count = round(self.share * size)
        for row in range(len(images)):
            rng = streams.of(row)
            place = torch.from_numpy(rng.permutation(size)[:count])
            shape = (3, count) if self.coloured else (count,)
            colour = torch.from_numpy(rng.integers(0, 2, shape).astype(np.float32))
            out[row].view(3, size)[:, place] = colour
            progress(row + 1, len(images))
        return Perturbed(images=out, step=torch.full((len(images),), -1))
