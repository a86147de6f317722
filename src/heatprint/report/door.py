"""The door of the room: a run folder in, one HTML file out."""

from __future__ import annotations

from pathlib import Path

from heatprint.core.inventory import STUDY, amend
from heatprint.core.store import write_atomic
from heatprint.report.html import render
from heatprint.report.pages import as_bytes
from heatprint.report.read import read_run, whole


def report(run: Path) -> Path:
    """Write ``report.html`` into a finished run folder; the same run gives the same bytes.

    Args:
        run: The folder that `heatprint study --out` wrote.

    Returns:
        Path of the report: one file with every image and script inside, which asks for nothing from outside.

    Raises:
        StoreError: The folder is not a finished run; the message says what is missing.
    """
    with whole(run):
        page = render(read_run(run), run)
    path = run / "report.html"
    write_atomic(path, as_bytes(page))
    amend(run, STUDY, path.name)
    return path
