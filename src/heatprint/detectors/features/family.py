"""What a family of features can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from heatprint.detectors.look import Look


@runtime_checkable
class Family(Protocol):
    """Measures images: finite numbers, the image's own, whatever else is in the batch."""

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, unique within the family."""
        ...

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns], finite."""
        ...
