"""Attacks of torchattacks, Foolbox and ART under our referee.

By name, also from a recipe: ``attacks.make("torchattacks", attack="PGD", settings={"eps": "8/255"})``. From an object
that is there already: ``foreign.adapt(torchattacks.PGD(network))``. Either way the attack works on the classifier
that `attacks.attack` is given, through a handle that counts; what it returns is rounded to 8 bits and judged.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks.foreign.base import Given, Knowledge
from heatprint.core.errors import InvalidInput
from heatprint.core.norms import Norm
from heatprint.core.protocols import Attack

DEPTH = 4  # how deep objects within objects are described


def adapt(
    attack: object,
    *,
    knowledge: Knowledge = "white box",
    norm: Norm = "linf",
    eps: float | None = None,
    batch: int | None = None,
) -> Attack:
    """An attack object of torchattacks, Foolbox or ART as an attack of ours.

    The object is copied for each use and bound to the classifier at hand; it and its own model stay as they are. Its
    normalisation is switched off, because the classifier normalises by itself.

    Args:
        attack: E.g. ``torchattacks.PGD(network)``, ``foolbox.attacks.LinfPGD()``.
        knowledge: What it may see.
        norm: The norm its budget is counted in.
        eps: The radius of a Foolbox attack, which keeps none itself; None for its minimal attacks.
        batch: Images per call, see `Foreign`.

    Raises:
        InvalidInput: The object is not an attack of these libraries, or eps is given for one that keeps its own.
    """
    from heatprint.attacks.foreign.art import ART
    from heatprint.attacks.foreign.foolbox import Foolbox
    from heatprint.attacks.foreign.torchattacks import TorchAttacks

    given = Given()
    object.__setattr__(given, "held", attack)
    roots = [kind.__module__.partition(".")[0] for kind in type(attack).__mro__]
    made: dict[str, Any] = {
        "attack": type(attack).__name__,
        "settings": describe(attack),
        "knowledge": knowledge,
        "norm": norm,
        "batch": batch,
        "given": given,
    }
    if "foolbox" in roots:
        return Foolbox(**made, eps=eps)
    if eps is not None:
        raise InvalidInput(f"adapt: eps = {eps} is for Foolbox; {type(attack).__name__} keeps its radius itself.")
    for kind in (TorchAttacks, ART):
        if kind.package in roots:
            return kind(**made)
    raise InvalidInput(
        f"adapt: {type(attack).__name__} is not an attack object of torchattacks, Foolbox or ART. "
        "Write e.g. adapt(torchattacks.PGD(network))."
    )


def describe(value: object, depth: int = DEPTH) -> Any:
    """An object as a digest can spell it: its class and public attributes; what holds tensors or code, by its kind."""
    if value is None or isinstance(value, bool | int | float | str | np.generic | np.ndarray):
        return value
    if depth and isinstance(value, list | tuple):
        return [describe(item, depth - 1) for item in value]
    if depth and isinstance(value, Mapping):
        return {str(key): describe(item, depth - 1) for key, item in value.items()}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    opaque = isinstance(value, torch.nn.Module | Tensor) or inspect.isroutine(value) or inspect.isclass(value)
    if not depth or opaque or not hasattr(value, "__dict__"):
        return getattr(value, "__qualname__", kind)
    own = {name: describe(item, depth - 1) for name, item in vars(value).items() if not name.startswith("_")}
    return {"kind": kind, **own}
