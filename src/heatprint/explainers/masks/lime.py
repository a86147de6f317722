"""LIME: a linear model of the classifier around one image, in terms of its superpixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.explainers.masks.engine import MaskedImage
from heatprint.explainers.masks.superpixels import Superpixels


@dataclass(frozen=True, kw_only=True)
class Lime(Superpixels):
    """Weighted ridge regression of the score on which superpixels are on (Ribeiro et al. 2016, equation 1).

    Masks are drawn with each superpixel on with probability 1/2; the first mask is the whole image. A mask z weighs
    exp(-D(z)^2 / width^2), D the cosine distance of z to the whole image (section 3.4). The relevance of a pixel is its
    superpixel's coefficient divided by that superpixel's number of pixels, shared equally by the channels, so that
    `heat` sums to the coefficients. `facts` has ``"r2"``, the weighted share of the score's variance that the linear
    model explains: a low one says that the map must not be trusted (1 where the score does not vary at all).

    Deviations: the score is the target's logit, not its probability, which saturates; all superpixels stay in the model
    instead of the K best (algorithm 1 selects by K-LASSO), since a map has room for all of them. The authors' code
    takes the square root of the weight: its width of 0.25 is 0.354 here.

    Costs `samples` forward passes per image.

    Attributes:
        samples: Number of masks, 2 or more; some ten per superpixel are needed for stable maps.
        width: Width of the kernel in cosine distance, above 0.
        ridge: Penalty on the squared coefficients, 0 or more; 1 as in the authors' code. It shrinks the coefficients by
            roughly ridge / (weight of all masks / 4).
    """

    samples: int = 1000
    width: float = 0.25
    ridge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2 or not 0 < self.width < inf or not 0 <= self.ridge < inf:
            raise InvalidInput(
                f"Lime: samples = {self.samples} must be 2 or more, width = {self.width} above 0 and finite, "
                f"ridge = {self.ridge} 0 or more and finite."
            )

    def weigh(self, masked: MaskedImage, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        """See `Superpixels.weigh`."""
        masks = torch.from_numpy(rng.random((self.samples, masked.size)) < 0.5)
        masks[0] = True
        scores = masked.scores(masks).double().cpu()
        closeness = torch.exp(-((cosine_distance(masks) / self.width) ** 2))
        return weighted_ridge(masks.double(), scores, closeness, self.ridge)


def cosine_distance(masks: Tensor) -> Tensor:
    """1 - cosine of masks bool [M, S] with the mask in which all is on, float64 [M]; 1 where all is off."""
    return 1 - masks.double().mean(1).sqrt()


def weighted_ridge(masks: Tensor, scores: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, Mapping[str, float]]:
    """The coefficients [S] that minimise sum w (y - b - z.c)^2 + ridge |c|^2 with a free intercept b, and their R^2.

    Args:
        masks: z, float64 [M, S].
        scores: y, float64 [M].
        weights: w, float64 [M], above 0 somewhere.
        ridge: Of several minima (ridge 0, too few masks) the smallest coefficients are taken.
    """
    share = weights / weights.sum()
    z = masks - share @ masks
    y = scores - share @ scores
    root = weights.sqrt()
    penalty = ridge**0.5 * torch.eye(z.shape[1], dtype=z.dtype)
    rows, aims = torch.cat([z * root[:, None], penalty]), torch.cat([y * root, y.new_zeros(z.shape[1])])
    found = torch.linalg.lstsq(rows, aims[:, None], driver="gelsd").solution[:, 0]
    total, left = float(share @ y**2), float(share @ (y - z @ found) ** 2)
    return found, {"r2": 1 - left / total if total > 0 else 1.0}
