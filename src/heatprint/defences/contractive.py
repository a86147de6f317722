"""Contractive training: small derivatives, so that small changes of an image change little."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.values import Attacked, Batch
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models.lesson import Lesson
from heatprint.models.train import Training, train


@dataclass(frozen=True, kw_only=True)
class Contractive:
    """Train on with a penalty on Jacobians (Gu and Rigazio 2014, section 3, the deep contractive network).

    The loss is the cross-entropy plus `weight` times |J|^2 (Frobenius) over the number of outputs, mean over images:
    the mean squared gradient of an output. It is estimated without bias by |J' v|^2 of `probes` random v ~ N(0, I)
    (Hutchinson 1990), one backward pass each instead of one per output.

    J leads from the image to the logits with `through` ``"network"``: what the paper wants to be small and finds too
    costly (Hoffman, Roberts and Yaida 2019, do it so). With ``"layers"`` it is the paper's stand-in, the sum over
    layers of |d h_j / d h_(j-1)|^2. A layer leads from the input of one convolution or dense layer to that of the next
    in the order they run, or to the logits; where two do not depend on each other, as beside a shortcut, there is
    nothing to penalise.

    Deviations: each layer counts by its mean over outputs, instead of by a weight of its own; and under batch norm, in
    training mode, the derivative of the whole batch is meant. Gu and Rigazio find the perturbations needed a few tenths
    larger, not large: this is a regulariser, measured by the mean minimal L2 of an attack against that of the
    clean-only control.

    Attributes:
        weight: Of the penalty, 0 or more; what it buys in distance it costs in accuracy. 0 is the clean-only control.
            Where ``"network"`` wants 0.005, ``"layers"`` wants about 0.1.
        probes: Random vectors per Jacobian and step, 1 or more.
        through: ``"network"`` or ``"layers"``, which takes a pass for every layer.
        training: The recipe.
    """

    weight: float = 0.005
    probes: int = 1
    through: Literal["network", "layers"] = "network"
    training: Training = field(default_factory=lambda: FINE_TUNE)

    def __post_init__(self) -> None:
        Contracting(weight=self.weight, probes=self.probes, through=self.through)

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
        objective = Contracting(weight=self.weight, probes=self.probes, through=self.through)
        safe, _ = train(classifier, train_batch, self.training, objective=objective, seed=seed, checkpoint=checkpoint,
                        progress=progress)  # fmt: skip
        return safe


@dataclass(frozen=True, kw_only=True)
class Contracting:
    """Cross-entropy and the penalty; see `Contractive`."""

    weight: float
    probes: int
    through: Literal["network", "layers"]
    replays = 1

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf or self.probes < 1:
            raise InvalidInput(
                f"Contractive: weight = {self.weight} must be 0 or more and finite, and probes = {self.probes} 1 or "
                "more."
            )
        if self.through not in ("layers", "network"):
            raise InvalidInput(f"Contractive: through = {self.through!r} must be 'network' or 'layers'.")

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        images = lesson.images.detach().requires_grad_(True)
        points = layer_points(lesson.network, lambda: lesson.logits(images))
        logits = points[-1]
        loss = F.cross_entropy(logits, lesson.labels, label_smoothing=lesson.label_smoothing)
        if not self.weight:
            return loss, logits
        points = points if self.through == "layers" else [images, logits]
        return loss + self.weight * jacobian_penalty(points, lesson.rng, self.probes), logits


def layer_points(network: nn.Module, run: Callable[[], Tensor]) -> list[Tensor]:
    """The inputs of a network's convolutions and dense layers in the order they run, and what `run` returns."""
    found: list[Tensor] = []
    kernels = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_pre_hook(lambda _, given: found.append(given[0])) for module in kernels]
    try:
        out = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, out]


def jacobian_penalty(points: Sequence[Tensor], rng: np.random.Generator, probes: int) -> Tensor:
    """Sum over neighbours of the mean squared gradient of a neuron of one in the other, mean over images; a scalar.

    An unbiased estimate of |J|^2 / neurons (Frobenius), since E |J' v|^2 = trace(J J') for v ~ N(0, I).

    Args:
        points: Tensors [N, ...] of one graph, each made from the one before it, or not.
        rng: Where the seeds of the random vectors come from.
        probes: Random vectors for each pair.
    """
    device = points[-1].device
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**63)))
    total = torch.zeros((), device=device)
    for before, after in pairwise(points):
        for _ in range(probes):
            probe = torch.randn(after.shape, generator=generator, device=device).to(after.dtype)
            (pulled,) = torch.autograd.grad(
                after, before, probe, create_graph=True, allow_unused=True, materialize_grads=True
            )
            total = total + pulled.float().flatten(1).square().sum(1).mean() / after[0].numel()
    return total / probes
