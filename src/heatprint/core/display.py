"""How values show themselves in a notebook: a floor above draws them, and is fetched when it is asked to.

The rooms that make values do not know the report; a notebook does. So a value names what draws it, as a registry
names a method, and nothing of the report is imported until a notebook shows one.
"""

from __future__ import annotations

from importlib import import_module

ROOM = "heatprint.report.notebook"


class Displayed:
    """A value that notebooks show as more than text: `_repr_html_` is IPython's name for it."""

    def _repr_html_(self) -> str:
        drawn: str = import_module(ROOM).drawn(self)
        return drawn
