"""The classifier as code of other libraries may see it: a network of images in [0, 1], every question counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.errors import BrokenContract
from heatprint.core.goals import Goal
from heatprint.core.protocols import Access

PATIENCE = 10_000  # calls in a row that a spent budget answers, before an attack is taken to loop for ever
NEAR = 0.5


class Spent(Exception):
    """Nothing more can be learned: the attack is stopped, and the best image it asked about stands."""


class View(nn.Module):
    """A network of images [M, 3, H, W] in [0, 1] to logits [M, K], over an `Access`.

    White box: logits that can be differentiated, as often as wanted. Score: logits alone. Label: 1 for a class that
    reaches the goal or for one that does not, 0 for the others; which of several such classes is not told.

    A library does not say about which attacked image it asks. It is taken to be the nearest in L2, but the one in
    the same place where as many are asked about as are attacked and none is less than half as far away. Noise far
    from every attacked image may therefore be booked on the wrong one; with a single attacked image nothing can.

    Attributes:
        classes: Number of classes K.
        first: int64 [N], the call of the network, from 0, in which each attacked image first reached the goal; -1.
        best: float32 [N, 3, H, W], of the images asked about the one with the largest margin (label: that reached).
    """

    def __init__(self, access: Access, images: Tensor, rows: Tensor, goal: Goal, knowledge: str) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(0, device=access.device), requires_grad=False)  # tells the device
        self._access, self._rows, self._goal, self._knowledge = access, rows, goal.to(access.device), knowledge
        self._clean = images.to(access.device, copy=True)
        self.best, self._margin = self._clean.clone(), torch.full((len(rows),), -torch.inf, device=access.device)
        self.first = torch.full((len(rows),), -1)
        self.classes = access.classes
        self._calls = self._refused = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits [M, K]."""
        images = images.to(self._access.device, torch.float32)
        if images.shape[1:] != self._clean.shape[1:]:
            raise BrokenContract(
                f"foreign attack: it asked about images of shape {list(images.shape)}; {list(self._clean.shape[1:])} "
                "was expected. Attacks that need more than the network's input and output cannot be run here."
            )
        owner = self._owners(images.detach())
        self._give_up(owner)
        parts = torch.split(torch.arange(len(images)), self._access.batch) if len(images) else ()
        answers = [self._answer(images[part.to(images.device)], owner[part]) for part in parts]
        self._calls += 1
        return torch.cat(answers) if answers else images.new_zeros((0, self.classes))

    def _answer(self, images: Tensor, owner: Tensor) -> Tensor:
        rows, aim = self._rows[owner], self._goal.take(owner)
        if self._knowledge == "white box":
            logits = self._access.differentiable(images, rows)
        elif self._knowledge == "score":
            logits = self._access.logits(images.detach(), rows)
        else:
            reached = self._access.reached(images.detach(), rows)
            named = torch.where(reached == aim.targeted, aim.labels, (aim.labels + 1) % self.classes)
            logits = F.one_hot(named, self.classes).float()
        self._note(images.detach(), owner, aim, logits.detach())
        if self._knowledge != "white box" and images.requires_grad and torch.is_grad_enabled():
            logits = _barred(images, logits, self._knowledge)
        return logits

    def _note(self, images: Tensor, owner: Tensor, aim: Goal, logits: Tensor) -> None:
        """Keep the best image and the first success of each attacked one."""
        margin = aim.margin(logits)
        for place in aim.reached(logits).nonzero().squeeze(1).tolist():
            if self.first[owner[place]] < 0:
                self.first[owner[place]] = self._calls
        order = torch.argsort(margin, stable=True)  # so that of several questions about one image the best is last
        at = owner.to(margin.device)[order]
        top = torch.full_like(self._margin, -torch.inf).scatter_reduce(0, at, margin[order], "amax")
        kept = order[(margin[order] == top[at]) & (top[at] > self._margin[at])]
        self.best[owner.to(margin.device)[kept]] = images[kept].clamp(0, 1)
        self._margin = torch.maximum(self._margin, top)

    def _owners(self, images: Tensor) -> Tensor:
        """Which attacked image each of images [M, 3, H, W] belongs to, int64 [M] on the CPU."""
        if len(self._clean) == 1 or not len(images):
            return torch.zeros(len(images), dtype=torch.long)
        apart = torch.cdist(images.flatten(1), self._clean.flatten(1))
        nearest, place = apart.min(1)
        if len(images) == len(self._clean):
            same = torch.arange(len(images), device=place.device)
            place = torch.where(nearest < NEAR * apart.diagonal(), place, same)
        return place.cpu()

    def _give_up(self, owner: Tensor) -> None:
        refused = len(owner) > 0 and bool(self._access.spent(self._rows[owner]).all())
        self._refused = self._refused + 1 if refused else 0
        if self._refused > PATIENCE or (refused and bool(self._access.spent(self._rows).all())):
            raise Spent


class _Barred(torch.autograd.Function):
    """The identity on logits, through which no gradient may come back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, logits: Tensor, knowledge: str) -> Tensor:
        """The logits themselves."""
        ctx.knowledge = knowledge
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        """Refused."""
        raise BrokenContract(
            f"foreign attack: an attack of knowledge {ctx.knowledge!r} asked for a gradient. "
            "Declare knowledge='white box'."
        )


def _barred(images: Tensor, logits: Tensor, knowledge: str) -> Tensor:
    out: Tensor = _Barred.apply(images, logits, knowledge)
    return out


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The global generators of torch, numpy and Python seeded from `rng`, and put back afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(int(rng.integers(2**63)))
            np.random.seed(int(rng.integers(2**32)))
            random.seed(int(rng.integers(2**63)))
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
