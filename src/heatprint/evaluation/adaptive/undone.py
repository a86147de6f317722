"""Written against the undo test: fools the classifier with a pattern that the test does not find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.detectors.features.table import columns, measure
from heatprint.detectors.filters import box3
from heatprint.evaluation.adaptive.guarded import Guarded
from heatprint.evaluation.adaptive.soft import soft_columns
from heatprint.evaluation.adaptive.walk import Evaded, Walk, shortfall, unit

FREE = 0.5
Shape = Literal["any", "grey", "smooth"]


@dataclass(frozen=True, kw_only=True)
class Undone:
    """Steps that raise the wrong answer's lead and bring the columns of the undo test back to the clean image's.

    The test asks whether the image is rougher with the slope's pattern added than with it taken out. So the image is
    moved until it is not: the columns of `features.undo` and `features.key` at the attacked image, where the slope is
    another one, are made equal to those of the clean image, through autograd. No detector is learned from, no tree
    followed: it needs to know the columns alone. Distances are in units of each column's spread over the clean images;
    up to half of one is free, and beyond they count as Huber's loss.

    Attributes:
        walk: Radius, steps, questions.
        weight: Of the columns' gradient beside that of the lead, both scaled to a mean size of 1, above 0.
        families: Whose columns.
        shape: ``"any"``; ``"grey"``: steps are shared by the channels, so that colour differences stay as they were;
            ``"smooth"``: shared and blurred over 3 x 3.
        second_order: Whether the slope moves with the image (see `soft_columns`): the test at the end point.
    """

    walk: Walk = Walk(steps=16, every=4)  # noqa: RUF009 frozen
    weight: float = 1.0
    families: tuple[str, ...] = ("undo", "key")
    shape: Shape = "any"
    second_order: bool = True

    def __post_init__(self) -> None:
        if not self.weight > 0 or self.shape not in get_args(Shape):
            raise InvalidInput(
                f"Undone: weight = {self.weight} must be above 0, shape = {self.shape!r} one of "
                f"{', '.join(get_args(Shape))}."
            )

    @property
    def eps(self) -> float:
        """Radius in the maximum norm."""
        return self.walk.eps

    def perturb(self, guarded: Guarded, batch: Batch, *, seed: int, progress: Progress) -> Evaded:
        """See `heatprint.evaluation.adaptive.walk.Adaptive`; the extra is the undo test's own column."""
        del seed  # nothing is random here
        table = measure(guarded.classifier, batch.pixels, self.families)
        low, high = np.quantile(table, [0.25, 0.75], axis=0)
        device = guarded.classifier.device
        spread = torch.from_numpy(np.maximum(high - low, 1e-3)).float().to(device)
        clean = torch.from_numpy(table).to(device)

        def direction(images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
            images.requires_grad_()
            found, logits = soft_columns(guarded.classifier, images, self.families, second_order=self.second_order)
            away = ((found - clean[rows.to(device)]) / spread).abs() - FREE
            cost = F.huber_loss(away.clamp_min(0), torch.zeros_like(away), reduction="none").sum(1)
            lacking = shortfall(logits, labels, self.walk.margin)
            of_lead = torch.autograd.grad(lacking.sum(), images, retain_graph=True)[0]
            return self._shaped(unit(of_lead) + self.weight * unit(torch.autograd.grad(cost.sum(), images)[0]))

        def judge(pixels: Tensor) -> np.ndarray:
            return guarded.ask(pixels)[1]

        found = self.walk.run(guarded, batch, direction, judge, enough=guarded.enough, progress=progress)
        return Evaded(pixels=found.pixels, fooled=found.fooled, extras=self._told(guarded, table, found))

    def _shaped(self, gradient: Tensor) -> Tensor:
        if self.shape == "any":
            return gradient
        grey = gradient.mean(1, keepdim=True)
        return (box3(grey) if self.shape == "smooth" else grey).expand_as(gradient)

    def _told(self, guarded: Guarded, table: np.ndarray, found: Evaded) -> dict[str, object]:
        """Median of the first column, clean and attacked, of the images that fool."""
        fooled = found.fooled.numpy()
        if not fooled.any():
            return {}
        after = measure(guarded.classifier, found.pixels[found.fooled], self.families)
        sides = {"clean": table[fooled], "attacked": after}
        return {columns(self.families)[0]: {what: round(float(np.median(t[:, 0])), 4) for what, t in sides.items()}}
