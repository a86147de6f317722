"""Several networks that learnt apart, asked together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.streams import stream, torch_seed
from heatprint.core.values import Attacked, Batch, join
from heatprint.defences.retrain import FINE_TUNE, successes
from heatprint.defences.stages import files, stage
from heatprint.models.compose import together
from heatprint.models.train import Training, train


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Networks fine-tuned apart from the same weights, and the mean of their log-probabilities.

    Strauss, Hanselmann, Junginger and Ulmer (2017, "Ensemble Methods as a Defense to Adversarial Perturbations Against
    Deep Neural Networks", section 3) train members with other weights or on bootstraps (Breiman 1996), and average.
    Here each member has an order of images of its own, a bootstrap where asked for, and successes of attacks that are
    dealt out in turn. Against an attacker who knows all members (`models.compose.Together` has a gradient) it is hardly
    more than one member: He, Wei, Chen, Carlini and Song (2017, "Ensembles of Weak Defenses are not Strong").

    Deviation: members start from the weights given, since a wrapped network has no fresh ones; they differ less than
    networks trained from the start.

    Attributes:
        members: Networks, 2 or more; each costs its training and, in use, its forward pass.
        bootstrap: Each learns from as many images as there are, drawn with replacement.
        attacks: Attacks whose successes are learnt, too, dealt out in turn: the first member learns from the first,
            and so on from the front again. None for clean images alone.
        training: The recipe of each.
    """

    members: int = 3
    bootstrap: bool = True
    attacks: tuple[str, ...] = ()
    training: Training = field(default_factory=lambda: FINE_TUNE)

    def __post_init__(self) -> None:
        if self.members < 2:
            raise InvalidInput(f"Ensemble: members = {self.members} must be 2 or more; for one write 'retrain'.")
        if self.members < len(self.attacks):
            raise InvalidInput(
                f"Ensemble: {self.members} members cannot each learn from one of {len(self.attacks)} attacks "
                f"({', '.join(self.attacks)}). Write members={len(self.attacks)} or more."
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
        """See `heatprint.core.protocols.Defence`."""
        made = []
        kept = files(checkpoint, *(f"member-{number}" for number in range(self.members)))
        for number, file in enumerate(kept):
            own = torch_seed(seed, "ensemble", number)
            data = self.lesson_of(number, train_batch, attacked, own)
            told = stage(progress, number, self.members, f"member {number + 1}/{self.members}")
            made.append(train(classifier, data, self.training, seed=own, checkpoint=file, progress=told)[0])
        return together(made)

    def lesson_of(self, number: int, train_batch: Batch, attacked: Mapping[str, Attacked], seed: int) -> Batch:
        """What a member, numbered from 0, learns from."""
        data = drawn_again(train_batch, stream(seed, "bootstrap")) if self.bootstrap else train_batch
        if not self.attacks:
            return data
        name = self.attacks[number % len(self.attacks)]
        return join([data, successes(attacked[name], name)])


def drawn_again(batch: Batch, rng: np.random.Generator) -> Batch:
    """As many images, drawn with replacement; ids say which copy of an image each is."""
    rows = torch.from_numpy(np.sort(rng.integers(0, len(batch), len(batch))))
    copies: dict[int, int] = {}
    ids = []
    for row in rows.tolist():
        copies[row] = copies.get(row, 0) + 1
        ids.append(f"{batch.ids[row]}#{copies[row]}")
    return Batch(ids=tuple(ids), pixels=batch.pixels[rows], labels=batch.labels[rows])
