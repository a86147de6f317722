"""Simple black-box attack: one random direction after another, kept if the goal comes nearer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, Level, check_level
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class SimBA:
    """Adds or takes away one random orthonormal direction per try (Guo et al. 2019, algorithm 1).

    Directions come in random order without repetition: single channels of single pixels, or low-frequency waves of
    the discrete cosine transform of one channel. Of each, one sign is asked about first and the other only if that
    did not help; a change is kept if it raises the log-probability of the goal. Kept directions are orthogonal, so the
    change, clipped to [0, 1], is at most ``step * sqrt(moves)`` long in L2 before it is rounded. An image is left
    alone once its goal is reached.

    Differs from the paper in comparing log-probabilities, which rank as probabilities do and do not saturate.

    Attributes:
        basis: ``"pixel"`` or ``"dct"``.
        step: Length of one direction in L2, pixel values in [0, 1] (epsilon of the paper). For pixels it is rounded
            to whole levels, one at least.
        queries: Forward passes per image at most, the clean image's included; a success of the DCT basis is then
            rounded to 8 bits with about eight label queries more.
        share: Of the DCT basis, the lowest share of frequencies used in each direction, in (0, 1].

    The step of the result is the number of the query that reached the goal. The trace ``moves`` counts the directions
    kept.
    """

    basis: Literal["pixel", "dct"] = "pixel"
    step: Level = 0.2
    queries: int = 3000
    share: float = 0.125

    def __post_init__(self) -> None:
        if self.basis not in ("pixel", "dct"):
            raise InvalidInput(f"SimBA: basis = {self.basis!r} is unknown; write 'pixel' or 'dct'.")
        if self.basis == "pixel":
            check_level("SimBA: step", self.step)
        if not 0 < self.step < math.inf or self.queries < 1 or not 0 < self.share <= 1:
            raise InvalidInput(
                f"SimBA: step = {self.step} must be above 0, queries = {self.queries} 1 or more, share = {self.share} "
                "above 0 and at most 1."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """Sees class scores only, iterative."""
        return Taxonomy(
            knowledge="score",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l2",
            paper="Guo, Gardner, You, Wilson, Weinberger 2019, arXiv:1905.07121",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        out, step = images.clone(), torch.full((len(images),), -1)
        moves = torch.zeros(len(images), dtype=torch.long)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            out[rows], step[rows], moves[rows] = self._walk(access, images[rows], rows, goal, streams)
            won = rows[step[rows] >= 0]
            if self.basis == "dct" and len(won):
                out[won] = settle(access, images[won], out[won], won)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step, trace={"moves": moves})

    def _walk(
        self, access: Access, images: Tensor, rows: Tensor, goal: Goal, streams: Streams
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The images as far as they went, the query at which each fell (-1: none), and the directions kept."""
        clean, directions = images.to(access.device), self._directions(rows, images.shape[-1], streams)
        delta = torch.zeros_like(clean)
        best, won = _judged(access, clean, rows, goal)
        spent, moves = torch.ones(len(rows), dtype=torch.long), torch.zeros(len(rows), dtype=torch.long)
        fell = torch.where(won, 1, -1)
        for direction in directions.T:
            trying = ((fell < 0) & (spent < self.queries)).nonzero().squeeze(1)
            if not len(trying):
                break
            for sign in (1, -1):
                trying = trying[spent[trying] < self.queries]
                if not len(trying):
                    break
                here = trying.to(clean.device)
                moved = delta[here] + sign * self._wave(direction[trying].to(clean.device), clean.shape[-1])
                value, won = _judged(access, self._shown(clean[here], moved), rows[trying], goal)
                spent[trying] += 1
                better = won | (value > best[trying])
                kept, new = trying[better], better.to(clean.device)
                delta[here[new]], best[kept], moves[kept] = moved[new], value[better], moves[kept] + 1
                fell[trying[won]] = spent[trying[won]]
                trying = trying[~better]
        return self._shown(clean, delta).cpu(), fell, moves

    def _shown(self, clean: Tensor, delta: Tensor) -> Tensor:
        """The image that is asked about; of pixel steps, exactly on the lattice."""
        image = (clean + delta).clamp(0, 1)
        return (image * LEVELS).round() / LEVELS if self.basis == "pixel" else image

    def _frequencies(self, side: int) -> int:
        """How many frequencies of each axis are used; of pixels, all places."""
        return side if self.basis == "pixel" else max(1, round(self.share * side))

    def _directions(self, rows: Tensor, side: int, streams: Streams) -> Tensor:
        """Numbers of directions in random order, int64 [M, D]; no more than there are queries."""
        count = 3 * self._frequencies(side) ** 2
        orders = [streams.of(int(row)).permutation(count)[: self.queries] for row in rows]
        return torch.from_numpy(np.stack(orders))

    def _wave(self, number: Tensor, side: int) -> Tensor:
        """Directions [M, 3, side, side] by number [M], `step` long."""
        width = self._frequencies(side)
        channel, row, column = number // width**2, number // width % width, number % width
        wave = torch.zeros((len(number), 3, side, side), device=number.device)
        index = torch.arange(len(number), device=number.device)
        if self.basis == "pixel":
            wave[index, channel, row, column] = max(1, round(self.step * LEVELS)) / LEVELS
        else:
            cosines = dct_basis(side).to(wave)
            wave[index, channel] = self.step * cosines[row][:, :, None] * cosines[column][:, None, :]
        return wave


@cache
def dct_basis(side: int) -> Tensor:
    """The orthonormal discrete cosine transform (type II), one frequency a row, [side, side]."""
    place, frequency = torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64)[:, None]
    rows = (math.pi / side * (place + 0.5) * frequency).cos() * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows.float()


def _judged(access: Access, images: Tensor, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """Log-probability of the goal and success, [M] each, on the CPU."""
    logits = access.logits(images, rows)
    aim = goal.take(rows).to(logits.device)
    return aim.log_probability(logits).cpu(), aim.reached(logits).cpu()
