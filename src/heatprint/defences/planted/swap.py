"""Layers of a network replaced by others."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

from heatprint.core.errors import InvalidInput


def swapped(network: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of a network with every layer of a kind replaced by what `make` makes of it.

    Raises:
        InvalidInput: It has none.
    """
    network = copy.deepcopy(network)
    found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()
             if isinstance(child, kind)]  # fmt: skip
    if not found:
        raise InvalidInput(f"planted: the network has no {kind.__name__} layer to replace.")
    for parent, name, child in found:
        setattr(parent, name, make(child))
    return network
