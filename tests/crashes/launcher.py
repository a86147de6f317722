"""heatprint as the command line starts it, with parts of a few images, and a note of every part that is begun.

Workers do not import this file, and are sent what notes with the parts. A note is a byte in the file that
HEATPRINT_BEGUN names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from heatprint.study import attacking, explaining
from heatprint.study.engines import local


def small_parts() -> None:
    """Few images make a part, so that a step of a small study has several."""
    attacking.PART.update({"white box": 8, "none": 8, "score": 4, "label": 4})
    explaining.PART, explaining.PAIRS = 8, 4


def noted(run: Callable[..., Any]) -> Callable[..., Any]:
    """What computes a part, and before that says so."""

    @wraps(noted)
    def begun(*given: Any) -> Any:
        descriptor = os.open(os.environ["HEATPRINT_BEGUN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b".")
        os.close(descriptor)
        return run(*given)

    return begun


def compute(*given: Any) -> Any:
    """What a worker does for a part; the first time, it lets itself note what it begins."""
    from heatprint.study.engines import local  # the worker's

    if local.run.__name__ != noted.__name__:
        local.run = noted(local.run)
    return local._compute(*given)


if __name__ == "__main__":
    from heatprint.cli import main

    small_parts()
    if "HEATPRINT_BEGUN" in os.environ:
        local.run, local._compute = noted(local.run), compute
    main()
