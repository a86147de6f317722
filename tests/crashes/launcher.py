"""heatprint as the command line starts it, with parts of a few images, and a note of every part that is begun.

Workers import this file too, as they do every program that begins them, and note their parts as well: one byte each, in
the file that HEATPRINT_BEGUN names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from heatprint.study import attacking, explaining
from heatprint.study.engines import local


def small_parts() -> None:
    """Few images make a part, so that a step of a small study has several."""
    attacking.PART.update({"white box": 8, "none": 8, "score": 4, "label": 4})
    explaining.PART, explaining.PAIRS = 8, 4


def noted(run: Callable[..., Any]) -> Callable[..., Any]:
    """What computes a part, and before that says so."""

    def begun(*given: Any) -> Any:
        descriptor = os.open(os.environ["HEATPRINT_BEGUN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b".")
        os.close(descriptor)
        return run(*given)

    return begun


if __name__ in ("__main__", "__mp_main__"):  # the command, or one of its workers
    small_parts()
    if "HEATPRINT_BEGUN" in os.environ:
        local.run = noted(local.run)

if __name__ == "__main__":
    from heatprint.cli import main

    main()
