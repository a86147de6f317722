"""Adversarial retraining as the paper does it, and its control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress
from heatprint.core.values import Attacked, Batch, join
from heatprint.models.augment import Augmentation
from heatprint.models.train import Training, train

FINE_TUNE = Training(
    lr=5e-4,
    stages=((2, 112),),
    augmentation=Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True, jitter=0.0),
)
"""Trained weights, few epochs, no crops: a crop would resample the very perturbation that is to be learnt."""


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Train on from the trained weights, on clean images and successful adversarials with their true labels.

    (Klawikowska et al. 2020, section 2.2.) Without attacks it is the control: the same epochs on clean images alone.
    The adversarials are those made against the old weights; the defence is measured against new ones elsewhere.

    Attributes:
        attacks: Names of the attacks whose successes are added; none for the clean-only control.
        training: The recipe.
    """

    attacks: tuple[str, ...] = ()
    training: Training = field(default_factory=lambda: FINE_TUNE)

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
        data = join([train_batch, *(successes(attacked[name], name) for name in self.attacks)])
        safe, _ = train(classifier, data, self.training, seed=seed, checkpoint=checkpoint, progress=progress)
        return safe


def successes(attacked: Attacked, name: str) -> Batch:
    """The images that fooled the classifier, with their true labels; ids say by which attack."""
    rows = attacked.success.nonzero().squeeze(1)
    found = attacked.adversarial.take(rows)
    return Batch(ids=tuple(f"{name}:{i}" for i in found.ids), pixels=found.pixels, labels=found.labels)
