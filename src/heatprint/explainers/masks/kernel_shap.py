"""KernelSHAP: Shapley values of superpixels as a weighted regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.explainers.masks.engine import MaskedImage
from heatprint.explainers.masks.superpixels import Superpixels


@dataclass(frozen=True, kw_only=True)
class KernelShap(Superpixels):
    """Shapley values of the superpixels for the score (Lundberg and Lee 2017, theorem 2).

    The game's players are the superpixels; a coalition is worth the score of the image in which only its superpixels
    are on. With S superpixels and 2^S <= samples all coalitions are asked about and the values are exact. Otherwise
    coalitions are drawn in proportion to the Shapley kernel, each with its complement (paired sampling: Covert and Lee
    2021, section 4.2), and the values are those of the regression on them. Either way they sum to the score of the
    image less that of the image with all superpixels off, up to rounding: the constraint is built into the solution.

    The relevance of a pixel is its superpixel's value divided by the superpixel's number of pixels, shared equally by
    the channels. `facts` has ``"exact"``, 1 where every coalition was asked about, else 0; and ``"base"``, the score
    with all superpixels off.

    Costs at most `samples` + 2 forward passes per image (2^S where exact).

    Attributes:
        samples: Coalitions asked about at most, besides the empty and the full one; 2 or more. Fewer than two per
            superpixel do not determine the values: the smallest that fit are taken.
    """

    samples: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2:
            raise InvalidInput(f"KernelShap: samples = {self.samples}; write 2 or more.")

    def weigh(self, masked: MaskedImage, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        """See `Superpixels.weigh`."""
        size = masked.size
        exact = size < 64 and 2**size <= self.samples  # 64: where numpy's integers end
        masks, weights = every_coalition(size) if exact else drawn_coalitions(size, self.samples // 2, rng)
        ends = torch.stack([torch.zeros(size), torch.ones(size)]).bool()
        values = masked.scores(torch.cat([ends, masks])).double().cpu()
        found = shapley_regression(masks, values[2:], weights, empty=values[0], full=values[1])
        return found, {"exact": float(exact), "base": float(values[0])}


def every_coalition(size: int) -> tuple[Tensor, Tensor]:
    """All coalitions but the empty and the full one, bool [2^S - 2, S], and their Shapley kernel, float64."""
    numbers = np.arange(1, 2**size - 1)
    masks = (numbers[:, None] >> np.arange(size)) & 1 == 1
    kernel = np.array([0.0, *((size - 1) / (comb(size, k) * k * (size - k)) for k in range(1, size))])
    return torch.from_numpy(masks), torch.from_numpy(kernel[masks.sum(1)])


def drawn_coalitions(size: int, pairs: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Coalitions drawn from the Shapley kernel, each followed by its complement, bool [2 pairs, S], and weights 1."""
    sizes = np.arange(1, size)
    mass = 1 / (sizes * (size - sizes))
    drawn = rng.choice(sizes, size=pairs, p=mass / mass.sum())
    rank = rng.random((pairs, size)).argsort(1).argsort(1)
    masks = torch.from_numpy(rank < drawn[:, None])
    return torch.stack([masks, ~masks], 1).flatten(0, 1), torch.ones(2 * pairs, dtype=torch.float64)


def shapley_regression(masks: Tensor, values: Tensor, weights: Tensor, *, empty: Tensor, full: Tensor) -> Tensor:
    """The phi [S] that minimise sum w (v(z) - v(empty) - z.phi)^2 subject to sum phi = v(full) - v(empty).

    phi is its mean plus a rest that sums to 0; of the masks the rest sees only what sums to 0 too, so the least-squares
    solution of smallest length keeps the constraint by itself, but for rounding, which is taken off at the end.

    Args:
        masks: z, bool [M, S].
        values: v(z), float64 [M].
        weights: w, float64 [M].
        empty: Value of the coalition of nobody.
        full: Value of the coalition of all.
    """
    z = masks.double()
    mean = (full - empty) / z.shape[1]
    rest = z - z.mean(1, keepdim=True)
    left = values - empty - z.sum(1) * mean
    root = weights.sqrt()[:, None]
    found: Tensor = torch.linalg.lstsq(rest * root, left[:, None] * root, driver="gelsd").solution[:, 0]
    return mean + found - found.mean()
