"""One tree of errors, so that a caller can catch what it can mend.

    HeatprintError
    ├── InvalidInput        a value the caller gave is not usable (also a ValueError)
    │   └── UnknownName     no method, recipe or class of that name
    ├── MissingExtra        an optional package is needed (also an ImportError)
    ├── UnreadableData      a file or folder cannot be used as data
    ├── ModelMismatch       weights, classes or sizes do not fit together
    ├── Unsupported         a network operation that a method has no rule for
    ├── BrokenContract      a method returned what its door does not let through
    ├── StoreError          a run folder is in use, damaged or from another version
    └── EngineError         workers cannot be reached, or die again and again

Every message says who complains, what was expected, what came, and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class HeatprintError(Exception):
    """Root of every error heatprint raises on purpose."""


class InvalidInput(HeatprintError, ValueError):
    """A value given by the caller cannot be used."""


class UnknownName(InvalidInput):
    """A name that is not in the table it was looked up in."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        super().__init__(f"{kind} {name!r} is not known. {hint}Known: {', '.join(known) or 'none'}.")
        self._made_of = kind, name, known

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of  # an error of a worker travels to who asked


class MissingExtra(HeatprintError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Write: python -m pip install 'heatprint[{extra}]'"
        )
        self._made_of = package, extra, purpose

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of


class UnreadableData(HeatprintError):
    """A file or folder cannot be used as images."""


class ModelMismatch(HeatprintError):
    """Weights, classes, logits or image sizes do not fit together."""


class Unsupported(HeatprintError):
    """A network operation for which the method has no rule."""


class BrokenContract(HeatprintError):
    """A method returned something that its door does not let through."""


class StoreError(HeatprintError):
    """A run folder is in use by another process, damaged, or of another version."""


class EngineError(HeatprintError):
    """The workers of an engine cannot be reached, or die again and again."""
