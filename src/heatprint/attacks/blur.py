"""Gaussian blur: the control that shows what an image out of focus does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class Blur:
    """The image blurred by a Gaussian, reflected at its border, in 8 bits; not an attack, the control beside one.

    No radius bounds it: the norm of its taxonomy only fills the column. The step of the result is always -1: nothing
    was asked.

    Attributes:
        sigma: Standard deviation in pixels, >= 0. 0 changes nothing.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise InvalidInput(f"Blur: sigma = {self.sigma} pixels must be 0 or more. Write e.g. 1.0.")

    @property
    def taxonomy(self) -> Taxonomy:
        """Knows nothing and asks nothing."""
        return Taxonomy(knowledge="none", specificity="untargeted", frequency="one-time", norm="linf", paper="control")

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del access, goal, streams
        blurred = gaussian_filter(images.numpy(), sigma=(0, 0, self.sigma, self.sigma), mode="reflect")
        progress(len(images), len(images))
        return Perturbed(images=to_images(to_pixels(torch.from_numpy(blurred))), step=torch.full((len(images),), -1))
