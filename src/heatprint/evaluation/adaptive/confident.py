"""Carlini and Wagner's attack with a ladder of confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from heatprint.attacks import attack
from heatprint.attacks.carlini_wagner import CarliniWagner
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion
from heatprint.core.lattice import Level, check_level, whole_levels
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.evaluation.adaptive.guarded import Guarded, fools
from heatprint.evaluation.adaptive.walk import Evaded


@dataclass(frozen=True, kw_only=True)
class Confident:
    """Of attacks with growing confidence, for each image the least suspicious that fools the classifier.

    High-confidence examples broke detectors that learned from examples on the border (Carlini and Wagner 2017,
    "MagNet and efficient defenses are not robust"; Athalye et al. 2018 on LID). A result that leaves the ball of the
    maximum norm is clipped to it and judged as it is then.

    Attributes:
        eps: Radius in the maximum norm, pixel values in [0, 1].
        margins: Leads in logits asked for, one attack each.
        method: The attack.
    """

    eps: Level = 8 / 255
    margins: tuple[float, ...] = (1.0, 4.0)
    method: CarliniWagner = CarliniWagner(steps=20, searches=2, start=0.1)  # noqa: RUF009 frozen

    def __post_init__(self) -> None:
        check_level("Confident: eps", self.eps)
        if not self.margins or min(self.margins) < 0:
            raise InvalidInput(f"Confident: margins = {self.margins} must be one lead in logits or more, each 0 or up.")

    def perturb(self, guarded: Guarded, batch: Batch, *, seed: int, progress: Progress) -> Evaded:
        """See `heatprint.evaluation.adaptive.walk.Adaptive`; the extra counts which confidence was kept."""
        levels, clean = whole_levels(self.eps), batch.pixels.to(torch.int16)
        best = torch.full((len(batch),), torch.inf, dtype=torch.float64)
        found, kept = batch.pixels.clone(), torch.full((len(batch),), -1)
        for place, margin in enumerate(self.margins):
            made = attack(guarded.classifier, batch, self.method, criterion=Criterion(margin=margin), seed=seed)
            change = made.adversarial.pixels.to(torch.int16) - clean
            pixels = (clean + change.clamp(-levels, levels)).to(torch.uint8)
            scores = torch.from_numpy(guarded.ask(pixels)[1])
            better = fools(guarded.classifier, pixels, batch.labels) & (scores < best)
            found[better], best[better], kept[better] = pixels[better], scores[better], place
            progress(place + 1, len(self.margins), f"margin {margin:g}")
        counts = {f"{margin:g}": int((kept == place).sum()) for place, margin in enumerate(self.margins)}
        return Evaded(pixels=found, fooled=kept >= 0, extras={"kept at margin": counts})
