"""Adversarial retraining as the paper does it, and its control."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import Level, check_level
from heatprint.core.protocols import Progress
from heatprint.core.values import Attacked, Batch, join
from heatprint.defences.adversarial.watch import Watch, watched
from heatprint.models.augment import Augmentation
from heatprint.models.train import Training, train

FINE_TUNE = Training(
    lr=5e-4,
    stages=((2, 0),),
    augmentation=Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True, jitter=0.0),
)
"""Trained weights, few epochs, at the classifier's size and without crops: either would resample the very perturbation
that is to be learnt."""


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Train on from the trained weights, on clean images and successful adversarials with their true labels.

    (Klawikowska et al. 2020, section 2.2.) Without attacks it is the control: the same epochs on clean images alone;
    so it is where no attack succeeded. The adversarials are those made against the old weights (`Regenerate` renews
    them); the defence is measured against new ones elsewhere.

    Attributes:
        attacks: Names of the attacks whose successes are added; none for the clean-only control.
        successes_only: Leave failed attempts out, as published; else all that were attempted are added.
        training: The recipe.
        watch: Hold images and their attacked copies out, tell their accuracy after each epoch and keep the best
            epoch; None, as published, learns from all images and keeps the last epoch. An alarm makes little sense
            here: what learns from single steps need not withstand PGD.
        eps: Radius in the maximum norm of the attacks that watch; ``"2/255"`` is accepted.
    """

    attacks: tuple[str, ...] = ()
    successes_only: bool = True
    training: Training = field(default_factory=lambda: FINE_TUNE)
    watch: Watch | None = None
    eps: Level = 2 / 255

    def __post_init__(self) -> None:
        check_level("Retrain: eps", self.eps)

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
        if self.watch is None:
            data = self._learnt(train_batch, attacked, frozenset())
            safe, _ = train(classifier, data, self.training, seed=seed, checkpoint=checkpoint, progress=progress)
            return safe
        clean, held = self.watch.parts(train_batch)
        data = self._learnt(clean, attacked, frozenset(held.ids))
        return watched(
            classifier, data, held, self.training, None, self.watch, (("linf", self.eps),), seed=seed,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip

    def _learnt(self, clean: Batch, attacked: Mapping[str, Attacked], without: Set[str]) -> Batch:
        """Clean images and attacked copies."""
        failed = not self.successes_only
        return join([clean, *(successes(attacked[n], n, failed=failed, without=without) for n in self.attacks)])


def successes(attacked: Attacked, name: str, *, failed: bool = False, without: Set[str] = frozenset()) -> Batch:
    """The images that fooled the classifier, with their true labels; ids say by which attack.

    Args:
        attacked: An attack's result.
        name: Of the attack.
        failed: Take failed attempts too.
        without: Ids of clean images whose copies are left out.
    """
    wanted = ~attacked.skipped if failed else attacked.success
    kept = torch.tensor([i not in without for i in attacked.clean.ids], dtype=torch.bool)
    found = attacked.adversarial.take((wanted & kept).nonzero().squeeze(1))
    return Batch(ids=tuple(f"{name}:{i}" for i in found.ids), pixels=found.pixels, labels=found.labels)
