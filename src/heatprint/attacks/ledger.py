"""Who asked how much: exact counts per image, hard budgets, and the query at which each image first fell."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most an attack may ask about one image; None is without limit.

    Attributes:
        forwards: Images sent through the network. A gradient costs one of these too.
        backwards: Gradients.
    """

    forwards: int | None = None
    backwards: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("forwards", self.forwards), ("backwards", self.backwards)):
            if value is not None and value < 0:
                raise InvalidInput(f"Budget: {name} must be 0 or more, or None for no limit; got {value}.")


UNLIMITED = Budget()


class Ledger:
    """Counts per attacked image.

    Attributes:
        forwards: int64 [N], images sent through the network.
        backwards: int64 [N], gradients.
        first_hit: int64 [N], which forward query first reached the goal, counted from 1; -1 for none.
    """

    def __init__(self, count: int, budget: Budget = UNLIMITED) -> None:
        self._budget = budget
        self.forwards = torch.zeros(count, dtype=torch.long)
        self.backwards = torch.zeros(count, dtype=torch.long)
        self.first_hit = torch.full((count,), -1)

    def admit(self, rows: Tensor, *, forwards: int = 1, backwards: int = 0) -> Tensor | None:
        """Count one forward pass (or none) and some backward passes for each of rows [M].

        Returns:
            Which questions the budget still allows, bool [M]; None, the usual case, for all of them.
        """
        rows = rows.cpu()
        allowed = self._allowed(rows, forwards, backwards)
        counted = rows if allowed is None else rows[allowed]
        self.forwards.index_add_(0, counted, torch.full_like(counted, forwards))
        if backwards:
            self.backwards.index_add_(0, counted, torch.full_like(counted, backwards))
        return allowed

    def spent(self, rows: Tensor) -> Tensor:
        """Which of rows [M] may not be asked about any more, bool [M]."""
        limit = self._budget.forwards
        return torch.zeros(len(rows), dtype=torch.bool) if limit is None else self.forwards[rows.cpu()] >= limit

    def _allowed(self, rows: Tensor, forwards: int, backwards: int) -> Tensor | None:
        limit = self._budget
        allowed = torch.ones(len(rows), dtype=torch.bool)
        if forwards and limit.forwards is not None:
            allowed &= self.forwards[rows] + _rank(rows) < limit.forwards
        if backwards and limit.backwards is not None:
            allowed &= self.backwards[rows] + backwards * (_rank(rows) + 1) <= limit.backwards
        return None if bool(allowed.all()) else allowed

    def hits(self, rows: Tensor, reached: Tensor) -> None:
        """Note which of the questions just admitted reached the goal; rows [M], bool [M]."""
        reached = reached.cpu()
        if not bool(reached.any()):
            return
        rows = rows.cpu()
        asked = torch.zeros_like(self.forwards).index_add_(0, rows, torch.ones_like(rows))
        number = (self.forwards - asked)[rows] + _rank(rows) + 1
        never = torch.iinfo(torch.long).max
        first = torch.full_like(self.forwards, never)
        first.scatter_reduce_(0, rows[reached], number[reached], "amin")
        new = (self.first_hit < 0) & (first < never)
        self.first_hit[new] = first[new]


def _rank(rows: Tensor) -> Tensor:
    """For each entry of rows [M], how many equal ones stand before it, int64 [M]."""
    order = torch.argsort(rows, stable=True)
    ordered = rows[order]
    place = torch.arange(len(rows))
    starts = torch.ones(len(rows), dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(starts, place, 0).cummax(0).values if len(rows) else place
    rank = torch.empty_like(place)
    rank[order] = place - first
    return rank


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What finished images came to.

    Attributes:
        attempted: Images that were attacked.
        succeeded: Those that reached the goal in some query, before rounding to 8 bits.
        forwards: Forward passes.
        backwards: Gradients.
    """

    attempted: int = 0
    succeeded: int = 0
    forwards: int = 0
    backwards: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            attempted=self.attempted + other.attempted,
            succeeded=self.succeeded + other.succeeded,
            forwards=self.forwards + other.forwards,
            backwards=self.backwards + other.backwards,
        )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How an attack stands, for people (`str`) and machines (its fields).

    Attributes:
        attempted: Images it works on in all.
        active: Those still worked on or waiting.
        succeeded: Those that have reached the goal in some query, before rounding to 8 bits.
        given_up: Those it has finished without reaching it.
        forwards: Forward passes so far.
        backwards: Gradients so far.
        per_second: Forward passes per second.
        seconds_left: At the pace so far; None while nothing is finished.
    """

    attempted: int
    active: int
    succeeded: int
    given_up: int
    forwards: int
    backwards: int
    per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        return f"{self.succeeded} fell, {self.given_up} stood, {self.active} open, {self.per_second:,.0f} queries/s"

    def after(self, finished: Spent, *, waiting: int) -> Tally:
        """The tally of a longer run, of which this is the part now worked on.

        Args:
            finished: What the parts before it came to.
            waiting: Images of the parts after it.
        """
        return replace(
            self,
            attempted=self.attempted + finished.attempted + waiting,
            active=self.active + waiting,
            succeeded=self.succeeded + finished.succeeded,
            given_up=self.given_up + finished.attempted - finished.succeeded,
            forwards=self.forwards + finished.forwards,
            backwards=self.backwards + finished.backwards,
            seconds_left=None,
        )


class Clock:
    """Turns the ledgers of a running attack into tallies."""

    def __init__(self, attempted: int) -> None:
        self._attempted = attempted
        self._start = time.monotonic()
        self._told = -float("inf")
        self._closed = torch.zeros(3, dtype=torch.long)  # hits, forwards, backwards of the streams finished
        self.done = 0

    def due(self, every: float = 0.5) -> bool:
        """Whether it is time to tell again; at most once in `every` seconds."""
        now = time.monotonic()
        if now - self._told < every:
            return False
        self._told = now
        return True

    def close(self, ledger: Ledger) -> None:
        """Keep the sums of a ledger that is finished."""
        self._closed += _sums(ledger)

    def tally(self, ledger: Ledger | None = None) -> Tally:
        """The state, with the ledger now in use."""
        succeeded, forwards, backwards = (self._closed + (0 if ledger is None else _sums(ledger))).tolist()
        seconds = max(time.monotonic() - self._start, 1e-9)
        finished = max(self.done, succeeded)
        return Tally(
            attempted=self._attempted,
            active=self._attempted - finished,
            succeeded=succeeded,
            given_up=finished - succeeded,
            forwards=forwards,
            backwards=backwards,
            per_second=forwards / seconds,
            seconds_left=seconds / finished * (self._attempted - finished) if finished else None,
        )


def _sums(ledger: Ledger) -> Tensor:
    return torch.stack([(ledger.first_hit >= 0).sum(), ledger.forwards.sum(), ledger.backwards.sum()])
