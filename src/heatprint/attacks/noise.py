"""Random noise: the control that shows what a perturbation of that size does without aim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks.parts.balls import check_radius
from heatprint.attacks.parts.rounding import fit
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, whole_levels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

KINDS = ("sign", "uniform", "gaussian")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise of the size an attack has, on the 8-bit lattice; not an attack, the control beside one.

    In L2 the noise has length `eps`, or falls short of it by less than one more level of one channel would add; a
    channel that would leave [0, 1] moves the other way. In the maximum norm it is clipped to [0, 1] instead. The step
    of the result is always -1: nothing was asked.

    Attributes:
        eps: Size in `norm`, pixel values in [0, 1]. In the maximum norm the largest change of a channel, rounded down
            to whole levels; in L2 the length of the change. 0 changes nothing.
        kind: ``"sign"``: every channel moves by the same amount up or down, as FGSM moves it; ``"uniform"``: by any
            amount between; ``"gaussian"``: normally, in the maximum norm scaled so that the largest draw is `eps`.
        norm: ``"linf"`` or ``"l2"``.
    """

    eps: Level = 8 / 255
    kind: Literal["sign", "uniform", "gaussian"] = "sign"
    norm: Literal["linf", "l2"] = "linf"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise InvalidInput(f"Noise: norm = {self.norm!r} is not one it is scaled to. Write 'linf' or 'l2'.")
        if self.kind not in KINDS:
            raise InvalidInput(f"Noise: kind = {self.kind!r} is not known. Write one of {', '.join(KINDS)}.")
        check_radius("Noise: eps", self.eps, self.norm)

    @property
    def taxonomy(self) -> Taxonomy:
        """Knows nothing and asks nothing."""
        return Taxonomy(
            knowledge="none", specificity="untargeted", frequency="one-time", norm=self.norm, paper="control"
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del access, goal
        out = images.clone()
        for row in range(len(images)):
            rng, shape = streams.of(row), tuple(images.shape[1:])
            if self.norm == "linf":
                out[row] += self._levels(rng, shape) / LEVELS
            else:
                out[row] = self._of_length(rng, images[row])
            progress(row + 1, len(images))
        return Perturbed(images=out.clamp_(0, 1), step=torch.full((len(images),), -1))

    def _levels(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
        """Changes in whole levels, at most `eps` in each channel."""
        levels = whole_levels(self.eps)
        if self.kind == "sign":
            delta = rng.integers(0, 2, shape) * 2 * levels - levels
        elif self.kind == "uniform":
            delta = rng.integers(-levels, levels + 1, shape)
        else:
            drawn = rng.standard_normal(shape)
            delta = (drawn * (levels / np.abs(drawn).max())).round()
        return torch.from_numpy(delta.astype(np.float32))

    def _of_length(self, rng: np.random.Generator, image: Tensor) -> Tensor:
        """One image [3, H, W] changed by `eps` in L2."""
        shape = tuple(image.shape)
        if self.kind == "sign":
            drawn = rng.integers(0, 2, shape) * 2.0 - 1
        else:
            drawn = rng.uniform(-1, 1, shape) if self.kind == "uniform" else rng.standard_normal(shape)
        delta = torch.from_numpy((drawn * (self.eps / np.linalg.norm(drawn))).astype(np.float32))
        outside = ((image + delta) < 0) | ((image + delta) > 1)
        changed = (image + torch.where(outside, -delta, delta)).clamp(0, 1)
        return fit(image[None], changed[None], "l2", self.eps)[0]
