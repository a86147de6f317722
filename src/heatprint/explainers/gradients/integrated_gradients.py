"""Integrated gradients: the score's change along a straight line, shared out to the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers.fills import Fill, check_fill, filled
from heatprint.explainers.gradients.gradient import gradients_of_copies
from heatprint.explainers.target import refuse_layers, score


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """(x - x') times the mean gradient on the line from a baseline x' to the image x (Sundararajan et al. 2017, eq. 1).

    The integral is a Gauss-Legendre quadrature in place of the paper's Riemann sum (equation 3): exact on smooth
    networks; where the gradient jumps no rule is clearly ahead (measured: docs/explainers.md). The relevance then adds
    up to score(x) - score(x') (proposition 1, completeness) but for the error of the quadrature, which is
    reported as the fact ``"completeness"``: (sum of relevance - difference) / |difference|. Infinite says that image
    and baseline have the same score. Cost: `steps` forward and backward passes, and two forward.

    Attributes:
        baseline: What the image is compared with: ``"black"`` (the paper's), ``"grey"``, ``"mean"`` or ``"blur"``;
            see `heatprint.explainers.fills`. Pixels equal to the baseline get no relevance, dark objects none with
            ``"black"``.
        steps: Points on the line, >= 1; the paper takes 20 to 300. Where the completeness is poor, more.
    """

    baseline: Fill = "black"
    steps: int = 50

    at_once: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_fill("IntegratedGradients: baseline", self.baseline)
        if self.steps < 1:
            raise InvalidInput(f"IntegratedGradients: steps = {self.steps} must be 1 or more, e.g. 50.")

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("integrated_gradients", layers)
        inputs = inputs.detach()
        start = filled(self.baseline, classifier, inputs)
        way = inputs - start
        nodes, weights = (inputs.new_tensor(values).view(-1, 1, 1, 1) for values in _quadrature(self.steps))

        def place(images: Tensor, copies: Tensor) -> Tensor:
            return start[images, None] + nodes[copies] * way[images, None]

        mean = torch.zeros_like(inputs)
        for images, copies, gradients in gradients_of_copies(classifier, inputs, target, self.steps, place):
            mean[images] += (weights[copies] * gradients).sum(1)
        relevance = way * mean
        with torch.no_grad():
            value = score(classifier.network(inputs.clone()), target)
            difference = value - score(classifier.network(start.clone()), target)
        gap = relevance.sum((1, 2, 3)) - difference
        completeness = torch.where(gap == 0, gap, gap / difference.abs())
        return Explained(
            ids=(), relevance=relevance, target=target, score=value, facts={"completeness": completeness}
        ), {}


def _quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (0, 1) and weights of Gauss and Legendre: exact for polynomials of degree 2 * steps - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2
