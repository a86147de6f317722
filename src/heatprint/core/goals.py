"""What an attack is after, as a value: the one place that knows signs and success."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How sure the classifier must be of its mistake before it counts; the default asks for the flip alone.

    Attributes:
        margin: Lead in logits that the mistake must have, >= 0 (C&W's confidence kappa).
        probability: Probability of the target, or of not being the label, that must be reached, in [0, 1]. Su et al.
            stop at 0.9 (targeted) and 0.95 (untargeted).
    """

    margin: float = 0.0
    probability: float = 0.0

    def __post_init__(self) -> None:
        if not (self.margin >= 0 and 0 <= self.probability < 1):
            raise InvalidInput(
                f"Criterion: margin = {self.margin} must be 0 or more logits, probability = {self.probability} "
                "0 or more and below 1."
            )


FLIP = Criterion()


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """Flip the label, or reach a target class.

    Attributes:
        labels: int64 [N]: the true classes (untargeted), or the classes to reach (targeted).
        targeted: Which of the two.
        criterion: How sure of its mistake the classifier must be.
    """

    labels: Tensor
    targeted: bool = False
    criterion: Criterion = FLIP

    def take(self, rows: Tensor) -> Goal:
        """The goal of some rows."""
        return replace(self, labels=self.labels[rows.to(self.labels.device)])

    def to(self, device: torch.device) -> Goal:
        """The same goal on another device."""
        return replace(self, labels=self.labels.to(device))

    def reached(self, logits: Tensor) -> Tensor:
        """Success: bool [N] from logits [N, K]. The same argmax decides here and everywhere else."""
        hit = logits.argmax(1) == self.labels
        hit = hit if self.targeted else ~hit
        if self.criterion.margin:
            hit = hit & (self.margin(logits) >= self.criterion.margin)
        if self.criterion.probability:
            hit = hit & (self.log_probability(logits) >= math.log(self.criterion.probability))
        return hit

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


def untargeted(labels: Tensor, criterion: Criterion = FLIP) -> Goal:
    """The goal "any class but the true one"."""
    return Goal(labels=labels, criterion=criterion)


def targeted(labels: Tensor, targets: Tensor, criterion: Criterion = FLIP) -> Goal:
    """The goal "exactly this class".

    Raises:
        InvalidInput: A target equals the true class: nothing would have to change.
    """
    if bool((labels == targets).any()):
        row = int((labels == targets).nonzero()[0])
        raise InvalidInput(
            f"targeted: the target of row {row} is its true class {int(labels[row])}. Name another class."
        )
    return Goal(labels=targets, targeted=True, criterion=criterion)
