"""What is explained: one logit per image, or a weighting of them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput

Which = Literal["predicted", "true", "runner-up", "contrast"]
"""The predicted class; the true one; the most likely class but the predicted one; or the true class minus the most
likely other one, which is the adversarial class of an image that fools the network."""


def score(logits: Tensor, target: Tensor) -> Tensor:
    """The number that is explained, float [N].

    Args:
        logits: [N, K].
        target: Classes, int64 [N], or weights of the logits, float [N, K].
    """
    if target.is_floating_point():
        return (logits * target.to(logits)).sum(1)
    return logits.gather(1, target[:, None]).squeeze(1)


def weights(target: Tensor, like: Tensor) -> Tensor:
    """The weighting of the logits `like` [N, K] that `target` stands for."""
    if target.is_floating_point():
        return target.to(like)
    return torch.zeros_like(like).scatter(1, target[:, None], 1.0)


def choose(which: Which, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """The class to explain and, for a contrast, the class against it.

    Args:
        which: See `Which`.
        logits: [N, K].
        labels: True classes, int64 [N].

    Returns:
        Classes, int64 [N], twice; the second is None unless a contrast is asked for.

    Raises:
        InvalidInput: An unknown word.
    """
    if which not in get_args(Which):
        raise InvalidInput(f"explain: target {which!r}; write one of {', '.join(get_args(Which))}, or classes [N].")
    predicted = logits.argmax(1)
    if which == "predicted":
        return predicted, None
    if which == "true":
        return labels, None
    out = predicted if which == "runner-up" else labels
    other = logits.scatter(1, out[:, None], -torch.inf).argmax(1)
    return (other, None) if which == "runner-up" else (labels, other)


def contrast(target: Tensor, against: Tensor | None, like: Tensor) -> Tensor:
    """`target` itself, or the weighting +1 at `target` and -1 at `against`, in the shape of the logits `like`."""
    if against is None:
        return target
    return weights(target, like) - weights(against, like)


def refuse_layers(who: str, layers: tuple[str, ...]) -> None:
    """For methods that attribute to the input only."""
    if layers:
        raise InvalidInput(f"{who}: attributes to the input only, not to {', '.join(layers)}; use an 'lrp.' method.")
