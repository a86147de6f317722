"""A classifier: a network with everything it needs to be fed 8-bit images."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from heatprint.core.digest import digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """Images in [0, 1] to logits; made by `models.load`, `models.train` or `models.wrap`.

    Attributes:
        network: Normalised images to logits [N, K]; evaluation mode, frozen, batch norm folded where the
            network can be traced. Attacks and explanations read it; nobody writes to it.
        trainable: The same function before folding, from which defences go on training a copy.
        classes: Class names in logit order.
        size: Side of the square input images in pixels.
        mean: Subtracted per channel, images in [0, 1].
        std: Divided by, per channel.
        name: How tables call it.
        architecture: Name in the zoo, by which saved weights are rebuilt; empty for a wrapped network.
        memory_format: How its inputs lie in memory: channels-last, unless the network cannot take that.
    """

    network: nn.Module
    trainable: nn.Module
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    name: str
    architecture: str = ""
    memory_format: torch.memory_format = torch.channels_last

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, H, W] in [0, 1]; differentiable in the images."""
        logits: Tensor = self.network(self.normalise(images))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network's own input, where explanations are taken."""
        if images.dtype != self.dtype:
            images = images.to(self.dtype)
        if any(self.mean) or any(s != 1 for s in self.std):
            mean, std = self._statistics
            images = (images - mean) / std
        return images.contiguous(memory_format=self.memory_format)

    @cached_property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @cached_property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type."""
        return next((p.dtype for p in self.network.parameters()), torch.float32)

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        shape = (1, 3, 1, 1)
        return (
            torch.tensor(self.mean, device=self.device, dtype=self.dtype).view(shape),
            torch.tensor(self.std, device=self.device, dtype=self.dtype).view(shape),
        )

    @cached_property
    def digest(self) -> str:
        """Identity of the function: weights, buffers, normalisation, classes, size. Not the name."""
        state = self.trainable.state_dict()
        return digest(
            self.architecture, self.classes, self.size, self.mean, self.std, {k: state[k] for k in sorted(state)}
        )

    def fingerprint(self) -> tuple[object, ...]:
        """What must not change while others work with the network: values, flags and hooks."""
        return (
            digest(dict(self.network.state_dict())),
            tuple((m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in self.network.modules()),
            tuple((p.requires_grad, p.grad is None) for p in self.network.parameters()),
        )

    def to(self, device: torch.device | str) -> Classifier:
        """A copy on another device; itself when it is there already."""
        if torch.device(device).type == self.device.type:
            return self
        return replace(
            self,
            network=copy.deepcopy(self.network).to(device),
            trainable=copy.deepcopy(self.trainable).to(device),
        )

    def named(self, name: str) -> Classifier:
        """The same classifier under another name."""
        return replace(self, name=name)
