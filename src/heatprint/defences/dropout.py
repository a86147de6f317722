"""Monte Carlo dropout in the head of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.values import Attacked, Batch
from heatprint.models.compose import composed, inside
from heatprint.models.head import begin
from heatprint.models.parts.dropout import DropoutHead


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """The mean log-probability of a head that is run many times with neurons left out.

    Gal and Ghahramani (2016, "Dropout as a Bayesian Approximation", section 4) average predictions under dropout at
    test time; Feinman et al. (2017) tell attacks by their spread. Dropout is on the input of every linear layer of the
    head (`models.head`), whether the network was trained with it there or not; what lies before is run once.

    Deviations: the masks are drawn once from the seed, so that the answer is a function of the image, which an attacker
    can differentiate and needs no expectation for; and log-probabilities are averaged, not probabilities, as in
    `models.compose.Together`. With fixed masks this is one more network, somewhat smoother in its head: expect little.

    Attributes:
        passes: Of the head, 1 or more.
        rate: Share of the inputs that is left out, 0 or more and below 1; the others are divided by 1 - rate.
    """

    passes: int = 30
    rate: float = 0.3

    def __post_init__(self) -> None:
        if self.passes < 1 or not 0 <= self.rate < 1:
            raise InvalidInput(
                f"Dropout: passes = {self.passes} must be 1 or more, and rate = {self.rate} 0 or more and below 1. "
                "Write 0.3 for three in ten."
            )

    def protect(
        self,
        classifier: Classifier,
        train_batch: Batch,
        attacked: Mapping[str, Attacked],
        *,
        seed: int,
        checkpoint: Path | None,
        progress: Progress,
    ) -> Classifier:
        """See `heatprint.core.protocols.Defence`.

        Raises:
            InvalidInput: The network has no linear layer of vectors behind its convolutions.
            Unsupported: Its head mixes images, or returns something else than logits.
        """
        del train_batch, attacked, checkpoint  # nothing is learnt
        grey = torch.full((1, 3, classifier.size, classifier.size), 0.5, device=classifier.device)
        begin(classifier.network, classifier.normalise(grey))  # refuses a network without a head
        masks = seed % 2**32
        head = DropoutHead(inside(classifier), self.passes, self.rate, masks)
        safe = composed(head, classifier, f"dropout:{self.passes}:{self.rate}:{masks}", "")
        progress(1, 1)
        return safe
