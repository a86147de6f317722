"""The inner maximum of adversarial training: near each image of a lesson, one on which the network does worse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from heatprint.attacks.parts.balls import check_radius, steepest
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.norms import length, project
from heatprint.models.compose import Fronted
from heatprint.models.lesson import Lesson

InnerNorm = Literal["linf", "l2"]
Start = Literal["uniform", "gaussian", "clean"]
InnerLoss = Literal["cross_entropy", "margin", "kl"]
NEAR = 1e-3  # deviation of the gaussian start (Zhang et al. 2019, algorithm 1)


@dataclass(frozen=True, kw_only=True)
class InnerAttack:
    """Projected gradient ascent on a whole batch (Madry et al. 2018, equation 2.1, inner maximum).

    All steps are taken for all images, also for those that are misclassified already: a training wants the largest
    loss, not the first success. The network stands in evaluation mode meanwhile, as it will be attacked, so neither
    the statistics of batch norm nor the draws of dropout change; gradients of the weights are not touched.

    Attributes:
        eps: Radius in `norm`, pixel values in [0, 1]; 0 for no attack.
        norm: ``"linf"`` or ``"l2"``.
        step: Length of one step in `norm`.
        steps: Iterations, 1 or more.
        start: ``"uniform"`` in the ball, ``"gaussian"`` of deviation 0.001 around the image (TRADES), or ``"clean"``,
            the image itself.
        loss: ``"cross_entropy"`` without the factor that lets it saturate, the ``"margin"`` of the logits, or
            ``"kl"``, the divergence of the probabilities from those of the clean image, which needs a random start.
    """

    eps: float
    norm: InnerNorm = "linf"
    step: float
    steps: int
    start: Start = "uniform"
    loss: InnerLoss = "cross_entropy"

    def __post_init__(self) -> None:
        check_radius("InnerAttack: eps", self.eps, self.norm)
        if not 0 <= self.step < float("inf"):
            raise InvalidInput(f"InnerAttack: step = {self.step} must be 0 or more, in the units of eps.")
        if self.steps < 1:
            raise InvalidInput(f"InnerAttack: steps = {self.steps} must be 1 or more.")
        if self.loss == "kl" and self.start == "clean":
            raise InvalidInput(
                "InnerAttack: the gradient of 'kl' is zero at the clean image. Write start='gaussian' or 'uniform'."
            )

    def images(self, lesson: Lesson) -> Tensor:
        """The attacked images of a lesson.

        Returns:
            float32 [N, 3, H, W] in [0, 1], within `eps` of the lesson's; without a graph.
        """
        clean = lesson.images.detach()
        current = self._start(clean, lesson.rng)
        with attackable(lesson.network):
            with torch.no_grad():
                reference = lesson.logits(clean) if self.loss == "kl" else None
            for _ in range(self.steps):
                gradient = self._gradient(lesson, current, reference)
                moved = current - clean + self.step * steepest(gradient, self.norm)
                current = (clean + project(moved, self.norm, self.eps)).clamp(0, 1)
        return current

    def _start(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Where the ascent begins: in the ball and in [0, 1]."""
        if self.start == "clean":
            return clean
        shape = tuple(clean.shape)
        if self.start == "uniform" and self.norm == "linf":
            noise = torch.from_numpy(rng.random(shape, dtype=np.float32)).to(clean) * (2 * self.eps) - self.eps
        else:
            noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(clean)
            if self.start == "uniform":  # a random direction, and the d-th root of a uniform share of the radius
                radius = torch.from_numpy(rng.random(len(clean)) ** (1 / clean[0].numel())).to(clean)
                noise *= (self.eps * radius / length(noise, "l2")).view(-1, 1, 1, 1)
            else:
                noise = project(noise * NEAR, self.norm, self.eps)
        return (clean + noise).clamp(0, 1)

    def _gradient(self, lesson: Lesson, images: Tensor, reference: Tensor | None) -> Tensor:
        """Gradient [N, 3, H, W] of what is to be raised."""
        with torch.enable_grad():
            images = images.detach().requires_grad_(True)
            logits = lesson.logits(images)
            if reference is not None:
                value = divergence(reference.double(), logits.double())
            else:
                goal = untargeted(lesson.labels)
                value = goal.margin(logits) if self.loss == "margin" else goal.cross_entropy(logits)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return gradient


def divergence(of: Tensor, against: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p || q), [N], of the probabilities of two logits [N, K]: p of `of`."""
    first, second = of.log_softmax(1), against.log_softmax(1)
    return (first.exp() * (first - second)).sum(1)


@contextmanager
def attackable(network: nn.Module) -> Iterator[None]:
    """The network as it will be attacked, in single precision; afterwards it is as it was.

    In evaluation mode, and with gradients that pass its fronts: a front without a useful gradient would leave every
    attack without one, and the training with noise (Athalye, Carlini and Wagner 2018).
    """
    modes = [(module, module.training) for module in network.modules()]
    fronts = [(module, module.straight_through) for module in network.modules() if isinstance(module, Fronted)]
    device = next((p.device.type for p in network.parameters()), "cpu")
    network.eval()
    for front, _ in fronts:
        front.straight_through = True
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for front, straight in fronts:
            front.straight_through = straight


def usual_step(eps: float, steps: int) -> float:
    """The step with which `steps` of them go 2.5 times the radius: from any start to any edge of the ball.

    (Madry et al. 2018 choose theirs so in L2; at ten steps it is a quarter of the radius.)
    """
    return 2.5 * eps / steps
