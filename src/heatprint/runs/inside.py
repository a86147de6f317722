"""A run folder is shown to others: what lies elsewhere must not be shown with it."""

from __future__ import annotations

import os
from pathlib import Path

from heatprint.core.errors import StoreError


def inside(run: Path) -> None:
    """Refuse a run folder with links that lead out of it.

    Raises:
        StoreError: There is one; its name is said.
    """
    root = run.resolve()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise StoreError(
                    f"serve: {path.relative_to(root)} is a link that leads out of {run}, and what it leads to would be "
                    "shown. Put a copy in its place, or delete it."
                )
