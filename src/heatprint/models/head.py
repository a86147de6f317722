"""The head of a network run many times, what lies before it once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported

Mask = Callable[[int, int], Tensor]
"""Number of a layer in the head, from 0, and width D of its input to what that is multiplied with, [passes, D]."""


@torch.no_grad()
def through_head(classifier: Classifier, images: Tensor, passes: int, mask: Mask) -> Tensor:
    """Logits of passes in which the inputs of the head's linear layers are multiplied with masks, [passes, N, K].

    The head is what follows the last operation whose weights are not a linear map of one vector per image. The vectors
    it reads are repeated once per pass, so that all passes run side by side; nothing is left on the network.

    Args:
        classifier: Left as it is.
        images: float [N, 3, H, W] in [0, 1], N 1 or more.
        passes: How many.
        mask: Of each layer of the head.

    Raises:
        InvalidInput: The network has no linear layer of vectors behind its convolutions.
        Unsupported: Its head mixes images, or returns something else than logits.
    """
    inputs = classifier.normalise(images)
    first = begin(classifier.network, inputs[:1])
    logits = masked(classifier.network, inputs, first, passes, mask)
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


@torch.no_grad()
def begin(network: nn.Module, inputs: Tensor) -> int:
    """The linear layer with which the head begins, numbered from 0 as they run.

    Args:
        network: In evaluation mode; left as it is.
        inputs: One image as the network takes it, [1, 3, H, W].

    Raises:
        InvalidInput: There is none.
    """
    with _Finding(network) as finding:
        network(inputs)
    first: int | None = finding.first
    if first is None:
        raise InvalidInput(
            f"Dropout: the {type(network).__name__} has no linear layer of vectors behind its last convolution, so "
            "there is no head to leave neurons out of; leave 'dropout' out."
        )
    return first


def masked(network: nn.Module, inputs: Tensor, first: int, passes: int, mask: Mask) -> Tensor:
    """See `through_head`; differentiable in inputs and weights.

    Args:
        network: Left as it is.
        inputs: As the network takes them, [N, 3, H, W].
        first: From `begin`.
        passes: How many.
        mask: Of each layer of the head.

    Raises:
        Unsupported: See `through_head`.
    """
    mixed = Unsupported(
        f"Dropout: the head of the {type(network).__name__} mixes the vectors of several images or returns no logits, "
        "so that its passes cannot go side by side; leave 'dropout' out."
    )
    try:
        with _Masking(network, first, passes, mask):
            out: Tensor = network(inputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # shapes that do not fit together
        raise mixed from error
    if out.ndim != 2 or len(out) != passes * len(inputs):
        raise mixed
    return out.view(passes, len(inputs), -1)


class _Weighted(TorchFunctionMode, ABC):
    """Numbers the linear layers of a network as they run, from 0; biases, scales and batch norm are no weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._weights = {id(p) for p in network.parameters() if p.ndim > 1}
        self._number = -1

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        own = any(id(value) in self._weights for value in (*args, *kwargs.values()))
        if own and func is F.linear:
            self._number += 1
            rest = {name: value for name, value in kwargs.items() if name != "input"}
            return self.linear(args[0] if args else kwargs["input"], lambda vectors: func(vectors, *args[1:], **rest))
        out = func(*args, **kwargs)
        if own and isinstance(out, Tensor):  # not a question such as weight.dtype
            self.other()
        return out

    @abstractmethod
    def linear(self, vectors: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """A linear layer of these vectors."""

    def other(self) -> None:
        """Something else with weights."""


class _Finding(_Weighted):
    """Finds the first linear layer of the head of a network that is shown a single image; None where there is none."""

    first: int | None = None

    def linear(self, vectors: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Part of the head as long as nothing else follows; of several places, as of tokens, it is something else."""
        if vectors.ndim != 2 or len(vectors) != 1:
            self.first = None
        elif self.first is None:
            self.first = self._number
        return run(vectors)

    def other(self) -> None:
        """What follows a convolution is looked for anew."""
        self.first = None


class _Masking(_Weighted):
    """Runs the head once for every mask, pass after pass below each other."""

    def __init__(self, network: nn.Module, first: int, passes: int, mask: Mask) -> None:
        super().__init__(network)
        self._first, self._passes, self._mask = first, passes, mask

    def linear(self, vectors: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Of masked vectors."""
        layer = self._number - self._first
        if layer < 0:
            return run(vectors)
        mask = self._mask(layer, vectors.shape[1]).to(vectors)[:, None]
        rows = vectors if layer == 0 else vectors.view(self._passes, -1, vectors.shape[1])
        return run((mask * rows).flatten(0, 1))
