"""What a check says when a promise is not kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from heatprint.core.errors import BrokenContract, InvalidInput

T = TypeVar("T")


def answer(question: Callable[[], T], method: object, promise: str) -> T | None:
    """What the method answers, None where it raises `InvalidInput`; any other error breaks the promise."""
    try:
        return question()
    except InvalidInput:
        return None
    except Exception as error:
        raise BrokenContract(said(method, promise)) from error


def require(kept: bool | Tensor, method: object, promise: str) -> None:
    """Raise `BrokenContract` where a promise is not kept."""
    if not kept:
        raise BrokenContract(said(method, promise))


def said(method: object, promise: str) -> str:
    """The message of a broken promise, which reads as what a method does."""
    return f"{type(method).__name__} must be a method that {promise}; this one is not."
