"""Basic iterative method: FGSM in small steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from heatprint.attacks.pgd import PGD
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class BIM:
    """PGD in the maximum norm from the clean image itself (Kurakin et al. 2017, section 2.2).

    Attributes:
        eps: Radius in the maximum norm, pixel values in [0, 1], rounded down to whole levels; 0 changes nothing.
        step: Length of one step.
        steps: Iterations.
        loss: ``"cross_entropy"`` (as published) or ``"margin"``.
    """

    eps: Level = 8 / 255
    step: Level = 1 / 255
    steps: int = 12
    loss: Literal["margin", "cross_entropy"] = "cross_entropy"

    def __post_init__(self) -> None:
        self._descent  # noqa: B018  checks the settings

    @property
    def _descent(self) -> PGD:
        return PGD(eps=self.eps, step=self.step, steps=self.steps, loss=self.loss, random_start=False)

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, iterative."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="linf",
            paper="Kurakin, Goodfellow, Bengio 2017, arXiv:1607.02533",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        return self._descent.perturb(access, images, goal, streams=streams, progress=progress)
