"""What a check says, and how shares become verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from heatprint.core.errors import BrokenContract
from heatprint.evaluation.card.runs import Runs

Verdict = Literal["not applicable", "PASS", "WARN", "FAIL"]
ORDER: tuple[Verdict, ...] = ("not applicable", "PASS", "WARN", "FAIL")
LEAST = 3  # images below which a count is no reason to fail


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check.

    Attributes:
        check: Its name.
        verdict: ``"PASS"``, ``"WARN"``, ``"FAIL"`` or ``"not applicable"``.
        why: One paragraph with the numbers.
        do: What to do about it; empty where nothing is to be done.
        numbers: What was measured, for machines.
    """

    check: str
    verdict: Verdict
    why: str
    do: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in ORDER or not self.why or (self.verdict in ("WARN", "FAIL") and not self.do):
            raise BrokenContract(
                f"card: the finding of {self.check!r} ({self.verdict!r}) must be one of {', '.join(ORDER)}, say why, "
                "and, for WARN and FAIL, what to do."
            )


@runtime_checkable
class Check(Protocol):
    """One rule of rigorous evaluation, with its thresholds as settings."""

    @property
    def name(self) -> str:
        """How the card calls it."""
        ...

    def judge(self, runs: Runs) -> Finding:
        """The finding; attacks come from `runs` alone, so that nothing is attacked twice."""
        ...


def graded(count: int, total: int, *, warn: float, fail: float) -> Verdict:
    """FAIL above the share `fail` and from 3 images on, WARN above the share `warn`, else PASS."""
    if count > fail * total and count >= LEAST:
        return "FAIL"
    return "WARN" if count > warn * total else "PASS"


def worst(*verdicts: Verdict) -> Verdict:
    """The gravest of some verdicts; "not applicable" of none."""
    return max(verdicts, key=ORDER.index, default="not applicable")


def told(count: int | Tensor, total: int) -> str:
    """A share for people: "3 of 64 (4.7 %)"."""
    return f"{int(count)} of {total} ({100 * int(count) / max(total, 1):.1f} %)"
