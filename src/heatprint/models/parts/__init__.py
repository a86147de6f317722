"""What networks are made of besides layers: fronts that change images, wrappers that ask many times.

Each is spelled ``NAME:NUMBER`` before the architecture it stands before, or ``NAME:NUMBER:NUMBER`` where it takes
several (`models.compose`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from heatprint.core.errors import InvalidInput
from heatprint.core.registry import Registry
from heatprint.models.compose import Fronted, Together

PARTS: Registry[nn.Module] = Registry(
    "parts",
    {
        "autoencoder": "heatprint.models.parts.autoencoder:Autoencoder",
        "bits": "heatprint.models.parts.bits:Bits",
        "dropout": "heatprint.models.parts.dropout:DropoutHead",
        "jpeg": "heatprint.models.parts.jpeg:Jpeg",
        "median": "heatprint.models.parts.median:Median",
        "smoothed": "heatprint.models.parts.smoothed:Smoothed",
    },
)
"""Modules that change images [N, 3, H, W] in [0, 1], made from numbers; one with `around` is made from the network that
stands behind it and numbers, and returns logits."""


def assembled(spelled: str, behind: Callable[[], nn.Module]) -> nn.Module:
    """A part and what stands behind it, with fresh weights.

    Args:
        spelled: ``"NAME:NUMBER"``, with as many numbers as the part takes.
        behind: Makes what stands behind, taking images in [0, 1].

    Raises:
        UnknownName: No such part.
        InvalidInput: An argument is no number, out of range or one too many.
    """
    name, _, argument = spelled.partition(":")
    try:
        if name == "ensemble" and argument.isascii() and argument.isdigit():  # not all that Python takes for a number
            return Together([behind() for _ in range(int(argument))])
        made, numbers = PARTS.load(name), [float(number) for number in argument.split(":") if number]
        return made(behind(), *numbers) if getattr(made, "around", False) else Fronted(made(*numbers), behind())
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"models: {spelled!r} is no part of a network; write NAME:NUMBER, e.g. median:3.") from error
