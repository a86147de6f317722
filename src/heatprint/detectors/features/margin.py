"""The margin alone: the baseline that any use of heat maps has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.detectors.look import Look


@dataclass(frozen=True, kw_only=True)
class Margin:
    """How sure the classifier is: the margin to the runner-up, its logarithm and the largest logit.

    Attacks that stop at their first success leave images near the border, so a detector may be nothing but a
    threshold on this.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        return ("margin", "log margin", "largest logit")

    def measure(self, look: Look) -> Tensor:
        """float32 [N, 3]."""
        margin = look.margins[:, 0]
        return torch.stack([margin, (margin + 0.05).log(), look.logits.amax(1)], 1)
