"""What an attack is after, as a value: the one place that knows signs and success."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """Flip the label, or reach a target class.

    Attributes:
        labels: int64 [N]: the true classes (untargeted), or the classes to reach (targeted).
        targeted: Which of the two.
    """

    labels: Tensor
    targeted: bool = False

    def take(self, rows: Tensor) -> Goal:
        """The goal of some rows."""
        return Goal(labels=self.labels[rows.to(self.labels.device)], targeted=self.targeted)

    def to(self, device: torch.device) -> Goal:
        """The same goal on another device."""
        return Goal(labels=self.labels.to(device), targeted=self.targeted)

    def reached(self, logits: Tensor) -> Tensor:
        """Success: bool [N] from logits [N, K]. The same argmax decides here and everywhere else."""
        hit = logits.argmax(1) == self.labels
        return hit if self.targeted else ~hit

    def margin(self, logits: Tensor) -> Tensor:
        """How far past the goal, [N]: positive when reached, 0 on the boundary.

        Untargeted: the best other logit minus the label's. Targeted: the target's minus the best other.
        """
        own = logits.gather(1, self.labels[:, None]).squeeze(1)
        other = logits.scatter(1, self.labels[:, None], -torch.inf).amax(1)
        return own - other if self.targeted else other - own

    def log_probability(self, logits: Tensor) -> Tensor:
        """Log-probability to be raised, [N]: of the target, or of not being the label.

        Computed without forming probabilities, so it still ranks images whose softmax has saturated.
        """
        return F.logsigmoid(self.cross_entropy(logits))

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Cross-entropy to be raised, [N], without the factor that makes its gradient underflow.

        The gradient of cross-entropy is (1 - p) times that of logsumexp(others) - own, and 1 - p rounds to 0 at a
        margin of about 17 in float32. The value without the factor has the same direction at every point.
        """
        own = logits.gather(1, self.labels[:, None]).squeeze(1)
        others = logits.scatter(1, self.labels[:, None], -torch.inf).logsumexp(1)
        return own - others if self.targeted else others - own


def untargeted(labels: Tensor) -> Goal:
    """The goal "any class but the true one"."""
    return Goal(labels=labels)


def targeted(labels: Tensor, targets: Tensor) -> Goal:
    """The goal "exactly this class".

    Raises:
        InvalidInput: A target equals the true class: nothing would have to change.
    """
    if bool((labels == targets).any()):
        row = int((labels == targets).nonzero()[0])
        raise InvalidInput(
            f"targeted: the target of row {row} is its true class {int(labels[row])}. Name another class."
        )
    return Goal(labels=targets, targeted=True)
