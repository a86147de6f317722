"""Tracing a classifier's network, and the values of its activations on whole images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import Unsupported


def trace(classifier: Classifier) -> fx.GraphModule:
    """The network's graph.

    Raises:
        Unsupported: Its control flow depends on data, or it cannot be traced for another reason.
    """
    if any(m.training for m in classifier.network.modules()):
        raise Unsupported("it is in training mode")
    try:
        traced = fx.symbolic_trace(classifier.network)
    except Exception as error:  # whatever a stranger's forward raises when it is traced, its plain path still works
        raise Unsupported(f"it cannot be traced ({type(error).__name__})") from error
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


class Recorder(fx.Interpreter):
    """Runs a traced network and hands every activation to a function, before anything overwrites it."""

    def __init__(self, traced: fx.GraphModule, seen: Callable[[str, Any], None]) -> None:
        super().__init__(traced)
        self._seen = seen

    def run_node(self, n: fx.Node) -> Any:
        """One operation."""
        value = super().run_node(n)
        self._seen(n.name, value)
        return value


@torch.no_grad()
def shapes(traced: fx.GraphModule, classifier: Classifier) -> dict[str, tuple[int, ...]]:
    """The shape of every activation, without its batch axis.

    Raises:
        Unsupported: An activation is not one tensor per image.
    """
    found: dict[str, tuple[int, ...]] = {}
    nodes = {n.name: n for n in traced.graph.nodes}

    def seen(name: str, value: Any) -> None:
        if nodes[name].op in ("get_attr", "output"):
            return
        if isinstance(value, Tensor) and (value.ndim < 1 or len(value) != 2):
            raise Unsupported(f"{name} does not return one tensor per image")
        found[name] = tuple(value.shape[1:]) if isinstance(value, Tensor) else ()  # a size, a shape

    side = classifier.size
    Recorder(traced, seen).run(classifier.normalise(torch.full((2, 3, side, side), 0.5)))
    return found


@torch.no_grad()
def activations(traced: fx.GraphModule, inputs: Tensor, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """The named feature maps of network inputs, each as [N, H * W, C], a copy."""
    kept: list[tuple[str, Tensor]] = []

    def seen(name: str, value: Any) -> None:
        if name in names:
            kept.append((name, value.permute(0, 2, 3, 1).flatten(1, 2).clone()))

    Recorder(traced, seen).run(inputs)
    return iter(kept)


def attribute(traced: nn.Module, path: str) -> Any:
    """A parameter, buffer or constant of the network by its dotted name."""
    value: Any = traced
    for part in path.split("."):
        value = getattr(value, part)
    return value


def last_uses(nodes: list[fx.Node]) -> list[list[str]]:
    """For each operation, the activations that nothing after it reads."""
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for read in node.all_input_nodes:
            last[read.name] = index
    return [[name for name, at in last.items() if at == index] for index in range(len(nodes))]
