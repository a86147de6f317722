"""Adversarial retraining whose adversarials are made anew in every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint import attacks
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import Level, check_level, to_images
from heatprint.core.protocols import Attack, Progress
from heatprint.core.values import Attacked, Batch
from heatprint.defences.adversarial.watch import Watch, watched
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models.lesson import Lesson
from heatprint.models.train import Training
from heatprint.models.wrap import wrap


@dataclass(frozen=True, kw_only=True)
class NamedAttack:
    """An attack by name.

    Attributes:
        method: A name of `heatprint.attacks.names`.
        settings: Its settings.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Attack:
        """The attack."""
        return attacks.make(self.method, **self.settings)


@dataclass(frozen=True, kw_only=True)
class Regenerate:
    """Adversarial retraining (Klawikowska et al. 2020, section 2.2) against the weights of each epoch.

    When an epoch begins, a sample of the training images is attacked with every method, through the same door as any
    attack. Each batch of the epoch is learnt together with the adversarials of its images, clean and attacked images
    counting the same. Adversarials are shown as they were made: flips act on clean images alone. Where no attack
    succeeds the epoch is one on clean images.

    Attributes:
        methods: The attacks, by name and with settings.
        sample: Training images attacked by each method in each epoch, drawn anew.
        successes_only: Leave failed attempts out.
        training: The recipe; every stage at the classifier's image size, which 0 stands for, since resampling undoes
            perturbations.
        watch: How it is watched. Here it keeps the epoch with the best mean of clean and PGD accuracy and has no
            alarm: what learns from single steps need not withstand PGD.
        eps: Radius in the maximum norm of the attacks that watch; ``"2/255"`` is accepted.
    """

    methods: tuple[NamedAttack, ...]
    sample: int = 512
    successes_only: bool = True
    training: Training = field(default_factory=lambda: FINE_TUNE)
    watch: Watch = field(default_factory=lambda: Watch(score="mean", alarm=False))
    eps: Level = 2 / 255

    def __post_init__(self) -> None:
        check_level("Regenerate: eps", self.eps)
        if not self.methods or self.sample < 1:
            raise InvalidInput(
                f"Regenerate: {len(self.methods)} methods and sample = {self.sample}: name at least one attack and "
                "one image; for training on clean images alone write the defence 'retrain' without attacks."
            )
        for method in self.methods:
            method.make()

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
        del attacked
        if any((size or classifier.size) != classifier.size for _, size in self.training.stages):
            raise InvalidInput(
                f"Regenerate: stages = {self.training.stages} must all be at the {classifier.size} px of "
                f"{classifier.name!r}: resampling would undo the perturbations."
            )
        learnt, held = self.watch.parts(train_batch)
        objective = RenewedLoss(
            methods=self.methods, sample=self.sample, successes_only=self.successes_only, like=classifier, data=learnt
        )
        return watched(
            classifier, learnt, held, self.training, objective, self.watch, (("linf", self.eps),), seed=seed,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class RenewedLoss:
    """Cross-entropy on a batch and on the adversarials of its images, made when the epoch began.

    It is not frozen: it keeps the adversarials of the present epoch, so it belongs to one training. Its fields are the
    settings alone; what it is given to work with and what it keeps are none, and no digest depends on them.

    Attributes:
        methods: The attacks.
        sample: Images attacked by each.
        successes_only: Leave failed attempts out.
        like: The classifier whose weights are learning.
        data: All images that are learnt, in the order of `Lesson.rows`.
    """

    methods: tuple[NamedAttack, ...]
    sample: int
    successes_only: bool
    like: InitVar[Classifier]
    data: InitVar[Batch]

    replays = 1

    def __post_init__(self, like: Classifier, data: Batch) -> None:
        self._like, self._data = like, data
        self._epoch = -1
        self._rows, self._pixels = torch.empty(0, dtype=torch.long), data.pixels[:0]

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`; accuracy is counted on the clean images."""
        if self._epoch != lesson.epoch:
            self._rows, self._pixels = self._attacked(lesson)
            self._epoch = lesson.epoch
        found, place = (self._rows[:, None] == lesson.rows[None]).nonzero(as_tuple=True)
        adversarial = to_images(self._pixels[found].to(lesson.images.device))
        logits = lesson.logits(torch.cat([lesson.images, adversarial]))
        labels = torch.cat([lesson.labels, lesson.labels[place.to(lesson.labels.device)]])
        loss = F.cross_entropy(logits, labels, label_smoothing=lesson.label_smoothing)
        return loss, logits[: len(lesson.images)]

    def _attacked(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """Adversarials against the weights as they are: rows int64 [M] of their sources, pixels [M, 3, H, W]."""
        like, data = self._like, self._data
        classifier = wrap(lesson.network, classes=like.classes, size=like.size, mean=like.mean, std=like.std)
        rows, pixels = [], []
        with torch.autocast(like.device.type, enabled=False):
            for method in self.methods:
                chosen = torch.from_numpy(lesson.rng.permutation(len(data))[: self.sample])
                seed = int(lesson.rng.integers(2**63))
                made = attacks.attack(classifier, data.take(chosen), method.make(), seed=seed)
                wanted = made.success if self.successes_only else ~made.skipped
                rows.append(chosen[wanted])
                pixels.append(made.adversarial.pixels[wanted])
        return torch.cat(rows), torch.cat(pixels)
