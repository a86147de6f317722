"""Fools the classifier while its heat map stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress
from heatprint.core.values import Batch
from heatprint.detectors.features.table import CHUNK
from heatprint.evaluation.adaptive.guarded import Guarded
from heatprint.evaluation.adaptive.walk import Evaded, Walk, shortfall, unit


@dataclass(frozen=True, kw_only=True)
class KeepExplanation:
    """Steps that raise the wrong answer's lead and bring the heat map back to that of the clean image.

    Dombrowski et al. 2019, "Explanations can be manipulated and geometry is to blame" (equation 1 and section 4.1) and
    ADV2 (Zhang et al. 2020, "Interpretable deep learning under fire", equation 3). The map is |image times gradient|
    of the answer's margin, summed over channels and scaled to a sum of 1; the loss is its squared distance to the clean
    image's. Second derivatives of a network of ReLU are zero almost everywhere, so in that pass alone every ReLU is a
    softplus. The published attacks choose the map of any other image; here it is the clean image's own.

    Attributes:
        walk: Radius, steps, questions.
        weight: Of the map's gradient beside that of the lead, both scaled to a mean size of 1, above 0.
        beta: Sharpness of the softplus, above 0; Dombrowski et al. raise it to 100.
    """

    walk: Walk = Walk(steps=16, every=4)  # noqa: RUF009 frozen
    weight: float = 1.0
    beta: float = 30.0

    def __post_init__(self) -> None:
        if not (self.weight > 0 and self.beta > 0):
            raise InvalidInput(f"KeepExplanation: weight = {self.weight} and beta = {self.beta} must be above 0.")

    @property
    def eps(self) -> float:
        """Radius in the maximum norm."""
        return self.walk.eps

    def perturb(self, guarded: Guarded, batch: Batch, *, seed: int, progress: Progress) -> Evaded:
        """See `heatprint.evaluation.adaptive.walk.Adaptive`; the extra is the maps' likeness, a median cosine."""
        del seed  # nothing is random here
        classifier = guarded.classifier
        softened, plain = (maps(classifier, batch.pixels, beta=beta) for beta in (self.beta, None))

        def direction(images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
            images.requires_grad_()
            lacking = shortfall(classifier(images), labels, self.walk.margin)
            of_lead = unit(torch.autograd.grad(lacking.sum(), images)[0])
            wanted = softened[rows].to(images.device)
            gap = (heat(classifier, images, beta=self.beta) - wanted).square().sum((1, 2))
            return of_lead + self.weight * unit(torch.autograd.grad(gap.sum(), images)[0])

        def judge(pixels: Tensor) -> np.ndarray:
            return guarded.ask(pixels)[1]

        found = self.walk.run(guarded, batch, direction, judge, enough=guarded.enough, progress=progress)
        kept = F.cosine_similarity(maps(classifier, found.pixels, beta=None).flatten(1), plain.flatten(1))[found.fooled]
        likeness = round(float(kept.median()), 4) if len(kept) else None
        return Evaded(pixels=found.pixels, fooled=found.fooled, extras={"likeness of maps": likeness})


def maps(classifier: Classifier, pixels: Tensor, *, beta: float | None) -> Tensor:
    """Heat maps [N, H, W] of 8-bit images, on the CPU; with softplus for ReLU where `beta` is given."""
    parts = [
        heat(classifier, to_images(some.to(classifier.device)).requires_grad_(), beta=beta).detach().cpu()
        for some in torch.split(pixels, CHUNK)
    ]
    return torch.cat(parts)


def heat(classifier: Classifier, images: Tensor, *, beta: float | None) -> Tensor:
    """|image times gradient| of the answer's margin, a sum of 1 over pixels, [N, H, W], with a graph."""
    with _Softplus(beta):
        logits = classifier(images)
        own = logits.argmax(1, keepdim=True)
        margin = logits.gather(1, own) - logits.scatter(1, own, -torch.inf).amax(1, keepdim=True)
        gradient = torch.autograd.grad(margin.sum(), images, create_graph=True)[0]
    found = (images * gradient).sum(1).abs()
    return found / found.sum((1, 2), keepdim=True).clamp_min(1e-12)


class _Softplus(TorchFunctionMode):
    """While it is entered, every ReLU is a softplus; nothing is written into the network."""

    def __init__(self, beta: float | None) -> None:
        super().__init__()
        self._beta = beta

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation, or a softplus."""
        if self._beta is not None and getattr(func, "__name__", "") in ("relu", "relu_"):
            return F.softplus(args[0], beta=self._beta)
        return func(*args, **(kwargs or {}))
