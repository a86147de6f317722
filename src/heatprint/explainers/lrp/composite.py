"""Composites: which kernel gets which rule, as data."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from heatprint.explainers.lrp.rules import Rule

Kind = Literal["conv", "dense"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a composite: a rule and the kernels it is for. What is left out matches every kernel.

    Attributes:
        rule: The rule.
        kind: Convolutions (transposed ones too) or dense layers.
        first: True for kernels that read the network's input itself.
        names: Layer names, with ``*`` and ``?``, e.g. ``"features.*"``.
        depth: From and to this number of kernel, counted from 0 at the input, the end not included.
    """

    rule: Rule
    kind: Kind | None = None
    first: bool | None = None
    names: str = "*"
    depth: tuple[int, int] = (0, 1_000_000)

    def matches(self, kind: str, first: bool, name: str, number: int) -> bool:
        """Whether this line is for a kernel."""
        return (
            self.kind in (None, kind)
            and self.first in (None, first)
            and fnmatchcase(name, self.names)
            and self.depth[0] <= number < self.depth[1]
        )


@dataclass(frozen=True)
class Composite:
    """Lines, of which the first that matches a kernel gives its rule; the last must match everything.

    Attributes:
        lines: In order of precedence.
    """

    lines: tuple[Line, ...]

    def rule(self, kind: str, first: bool, name: str, number: int) -> Rule | None:
        """The rule of one kernel, or None where no line matches."""
        return next((line.rule for line in self.lines if line.matches(kind, first, name, number)), None)
