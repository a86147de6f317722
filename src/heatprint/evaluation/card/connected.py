"""A network that can be attacked by its gradients even where it has none."""

from __future__ import annotations

from torch import Tensor, nn


class Connected(nn.Module):
    """A network whose input always has a gradient: zeros where the network gives none, or none that is finite.

    Attacks on a network that cuts its graph would end in an error of autograd; so they run, and fail for all to see.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K]."""
        if images.requires_grad:
            images = images.view_as(images)
            images.register_hook(_finite)  # type: ignore[no-untyped-call]
        logits: Tensor = self.network(images)
        return logits if logits.requires_grad else logits + 0 * images.flatten(1).sum(1, keepdim=True)


def _finite(gradient: Tensor) -> Tensor:
    return gradient.nan_to_num(0, 0, 0)
