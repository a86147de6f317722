"""How many images fit through a network at once, within a bound on memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.limits import in_bytes
from heatprint.models.predict import batch_size

SHARES = 3  # of the activations: kept for the backward pass, their gradients, and what operations need meanwhile
AUTOMATIC = {"cpu": 4 << 30}  # bytes a process may use for activations where the recipe does not say; of a GPU, half


def fitting(classifier: Classifier, memory: str) -> int:
    """Images at a time whose forward and backward pass stay within a bound, at least one.

    It depends on the network and the bound alone, not on what is free at the moment: a batch of another size may round
    another way.

    Args:
        classifier: The classifier.
        memory: ``"auto"`` or a size such as ``"2 GiB"``, of one process; weights come on top.

    Raises:
        InvalidInput: The bound is no size.
    """
    bound = _automatic(classifier.device) if memory == "auto" else in_bytes(memory)
    return max(1, min(batch_size(classifier), bound // max(1, SHARES * footprint(classifier))))


@torch.no_grad()
def footprint(classifier: Classifier) -> int:
    """Bytes of all that the layers of a network return for one image."""
    seen: list[int] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        del module, inputs
        if isinstance(output, Tensor):
            seen.append(output.nbytes)

    leaves = [part for part in classifier.network.modules() if not list(part.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        classifier(torch.zeros(1, 3, classifier.size, classifier.size, device=classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(seen)


def _automatic(device: torch.device) -> int:
    if device.type != "cuda":
        return AUTOMATIC["cpu"]
    return torch.cuda.get_device_properties(device).total_memory // 2
