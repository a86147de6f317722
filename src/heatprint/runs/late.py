"""What is read after the map is on the screen, or when somebody asks for it, whoever is first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Late(Generic[T]):
    """A value that is made when it is first asked for, once, and then kept.

    Args:
        make: Makes it; what it raises is raised again, and it is asked again the next time.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._made = make, list[T]()
        self._making = threading.Lock()

    def __call__(self) -> T:
        """The value; who asks while it is made waits."""
        with self._making:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]
