"""What is wrong with one file of a run folder, and what helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from heatprint.core.inventory import LABORATORY, LOOP, STUDY


class Remedy(StrEnum):
    """What helps."""

    STUDY = STUDY
    LABORATORY = LABORATORY
    LOOP = LOOP
    REMOVED = "removed"  # nobody needs it
    REWRITTEN = "rewritten"  # what must stand there is known
    NONE = "left alone"  # not ours, and not in the way


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it was left.

    Attributes:
        file: Its path inside the run.
        what: What is wrong with it.
        remedy: What helps.
        remove: Files that must go before it does, in this order.
    """

    file: str
    what: str
    remedy: Remedy
    remove: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A run folder after every byte was read.

    Attributes:
        findings: What is wrong, in the order of the paths.
        finished: Whether the study has ended.
        files: That were read.
        size: Their bytes.
    """

    findings: Sequence[Finding]
    finished: bool
    files: int
    size: int

    @property
    def sick(self) -> list[Finding]:
        """The findings that are not about somebody else's files."""
        return [one for one in self.findings if one.remedy is not Remedy.NONE]

    def of(self, *remedies: Remedy) -> list[Finding]:
        """The findings that these help against."""
        return [one for one in self.findings if one.remedy in remedies]
