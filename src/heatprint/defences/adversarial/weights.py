"""Adversarial weight perturbation: the loss is taken where the weights are worse, the weights stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from heatprint.models.lesson import Lesson


def perturbed_weights(lesson: Lesson, loss: Callable[[Lesson], Tensor], gamma: float) -> Lesson:
    """The lesson with weights moved one step up the loss (Wu, Xia and Wang 2020, section 4, one step).

    Each weight w with gradient g becomes w + gamma * |w| * g / |g|, layer by layer; biases and batch norm stay. The
    shift is a constant of the graph: a loss of the returned lesson has the perturbed weights' gradient and leaves it
    in the true ones, which are nowhere overwritten, so there is nothing to restore. Weight decay therefore shrinks
    the true weights, where the published code shrinks the perturbed ones. The ascent runs in training mode on copies
    of the buffers: statistics of batch norm do not see it.

    Args:
        lesson: Images and network.
        loss: What the shift is to raise, a scalar from a lesson.
        gamma: Length of the shift relative to each layer's weights, 0.005 to 0.01 in the paper.
    """
    network = lesson.network
    weights = {name: p for name, p in network.named_parameters() if p.ndim > 1 and p.requires_grad}
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    with torch.enable_grad():
        raised = loss(replace(lesson, network=_Elsewhere(network, buffers)))
    gradients = torch.autograd.grad(raised, list(weights.values()), allow_unused=True)
    moved = {
        name: weight + (gamma * weight.norm() / gradient.norm().clamp_min(1e-30) * gradient).detach()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        if gradient is not None
    }
    return replace(lesson, network=_Elsewhere(network, moved))


class _Elsewhere(nn.Module):
    """A network computed with other tensors in the place of some of its own."""

    def __init__(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.training = network.training
        self._network, self._tensors = network, dict(tensors)

    def forward(self, inputs: Tensor) -> Any:
        """What the network returns."""
        return functional_call(self._network, self._tensors, inputs)
