"""Relevance as one compiled program."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from heatprint.explainers.lrp.composite import Composite
from heatprint.explainers.lrp.propagate import propagate


def compiled(
    network: nn.Module, inputs: Tensor, target: Tensor, composite: Composite, *, backend: str = "inductor"
) -> Callable[[Tensor, Tensor], Tensor]:
    """Trace one explanation down to PyTorch's operators and compile it.

    `torch.compile` cannot look into the way the forward pass is watched, so both passes are traced first, and the
    program that comes out is compiled. It holds for the shapes and the weights it was traced with.

    Args:
        network: Inputs to logits [N, K]; in evaluation mode.
        inputs: Inputs of the shape to compile for, [N, ...].
        target: Classes, int64 [N], or weights of the logits, float [N, K].
        composite: The rules.
        backend: As `torch.compile` takes it.

    Returns:
        Inputs and target to relevance.
    """

    def relevance(x: Tensor, wanted: Tensor) -> Tensor:
        return propagate(network, x, wanted, composite).relevance

    program: Callable[[Tensor, Tensor], Tensor] = torch.compile(make_fx(relevance)(inputs, target), backend=backend)
    return program
