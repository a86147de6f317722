"""What an attack may see of the classifier. Every question is counted, per image.

A black-box attack gets a handle that has no gradients to give, so a threat model cannot be left by accident.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract
from heatprint.core.goals import Goal
from heatprint.models.predict import batch_size


class ScoreAccess:
    """Logits only.

    Attributes:
        forwards: int64 [N], images sent through the network per attacked image.
        backwards: int64 [N], gradients asked for per attacked image.
        batch: Images per call that suit the device.
        device: Where the classifier lives.
    """

    def __init__(self, classifier: Classifier, goal: Goal) -> None:
        self._classifier = classifier
        self._goal = goal
        count = len(goal.labels)
        self.forwards = torch.zeros(count, dtype=torch.long)
        self.backwards = torch.zeros(count, dtype=torch.long)
        self.batch = batch_size(classifier)
        self.device = classifier.device

    @torch.no_grad()
    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, K] of images [M, 3, H, W] in [0, 1]; row i belongs to attacked image ``rows[i]``."""
        self._count(self.forwards, rows)
        return self._classifier(images).float()

    def gradient(self, images: Tensor, rows: Tensor, loss: str) -> tuple[Tensor, Tensor]:
        """Refused: this handle has no gradients.

        Raises:
            BrokenContract: Always.
        """
        del images, rows, loss
        raise BrokenContract(
            "attack: a black-box attack asked for a gradient. Declare knowledge='white box' in its taxonomy."
        )

    @staticmethod
    def _count(ledger: Tensor, rows: Tensor) -> None:
        rows = rows.cpu()
        ledger.index_add_(0, rows, torch.ones_like(rows))


class WhiteBox(ScoreAccess):
    """Logits and gradients of the goal's loss."""

    def gradient(self, images: Tensor, rows: Tensor, loss: str) -> tuple[Tensor, Tensor]:
        """Gradient [M, 3, H, W] of the goal's loss, and the logits [M, K] of the same pass.

        Args:
            images: Images [M, 3, H, W] in [0, 1].
            rows: The attacked image each belongs to, [M].
            loss: ``"cross_entropy"`` or ``"margin"``; both are to be raised.
        """
        self._count(self.forwards, rows)
        self._count(self.backwards, rows)
        goal = self._goal.take(rows).to(images.device)
        leaf = images.detach().clone().requires_grad_(True)
        logits = self._classifier(leaf)
        value = goal.margin(logits) if loss == "margin" else goal.cross_entropy(logits)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return gradient, logits.detach().float()
