"""Differential evolution over pixels, for many images at once.

A population is [A, P, d, 5]: A images, P candidates, d pixels, and the genes (row, column, red, green, blue) with
positions in [0, side) and colours in [0, 255]. Candidates are always read on the integer lattice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

GENES = 5


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A published way to run differential evolution (Storn and Price 1997).

    Attributes:
        mutation: ``"rand1"``: r1 + F (r2 - r3); ``"best1"``: best + F (r1 - r2). No crossover in either.
        weight: F is drawn uniformly between these, once per generation (dither).
        start: Positions uniform; colours ``"normal"`` N(128, 127), or everything a Latin hypercube.
        repair: Genes out of range are clipped to the range, or drawn again uniformly.
        population: Candidates per image.
        generations: After the first population.
    """

    mutation: Literal["rand1", "best1"]
    weight: tuple[float, float]
    start: Literal["normal", "latin"]
    repair: Literal["clip", "redraw"]
    population: int
    generations: int


PRESETS = {
    # Su, Vargas, Sakurai 2019, section III.D
    "paper": Strategy(
        mutation="rand1", weight=(0.5, 0.5), start="normal", repair="clip", population=400, generations=100
    ),
    # scipy.optimize.differential_evolution as called by one-pixel-attack-keras
    "scipy": Strategy(
        mutation="best1", weight=(0.5, 1.0), start="latin", repair="redraw", population=400, generations=75
    ),
}


def upper(side: int) -> np.ndarray:
    """Largest value of each gene, float32 [5]; positions are floored, so `side` itself is just out of reach."""
    edge = np.nextafter(np.float32(side), np.float32(0))
    return np.array([edge, edge, 255, 255, 255], dtype=np.float32)


def first_population(rng: np.random.Generator, how: Strategy, pixels: int, side: int) -> np.ndarray:
    """One image's first candidates, float32 [P, d, 5]."""
    shape = (how.population, pixels, GENES)
    if how.start == "latin":
        strata = rng.permuted(np.broadcast_to(np.arange(how.population)[:, None, None], shape), axis=0)
        genes = (strata + rng.random(shape)) / how.population * upper(side)
    else:
        genes = rng.random(shape) * upper(side)
        genes[..., 2:] = rng.normal(128, 127, (*shape[:2], 3))
    return np.asarray(np.clip(genes, 0, upper(side)), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What one image draws for one generation: partners [P, 3], F, and replacements in [0, 1) [P, d, 5]."""

    partners: np.ndarray
    weight: float
    fresh: np.ndarray | None


def draw(rng: np.random.Generator, how: Strategy, pixels: int) -> Draws:
    """The random numbers of a generation."""
    return Draws(
        partners=distinct(rng, how.population, 3),
        weight=float(rng.uniform(*how.weight)),
        fresh=rng.random((how.population, pixels, GENES), dtype=np.float32) if how.repair == "redraw" else None,
    )


def distinct(rng: np.random.Generator, count: int, picks: int) -> np.ndarray:
    """For every i < count, `picks` different numbers below count, none of them i: int64 [count, picks]."""
    taken = np.arange(count)[:, None]
    out = np.empty((count, picks), dtype=np.int64)
    for pick in range(picks):
        value = rng.integers(0, count - 1 - pick, count)
        for column in np.sort(taken, axis=1).T:  # step over each taken number, smallest first
            value = value + (value >= column)
        out[:, pick] = value
        taken = np.concatenate([taken, value[:, None]], axis=1)
    return out


def children(population: Tensor, fitness: Tensor, draws: Sequence[Draws], how: Strategy, side: int) -> Tensor:
    """One child per candidate: float32 [A, P, d, 5], genes in range.

    Args:
        population: float32 [A, P, d, 5].
        fitness: float32 [A, P], larger is better.
        draws: One per image.
        how: The strategy.
        side: Side of the images in pixels.
    """
    device, across = population.device, torch.arange(len(population), device=population.device)[:, None]
    partners = torch.from_numpy(np.stack([d.partners for d in draws])).to(device)
    weight = torch.tensor([d.weight for d in draws], device=device).view(-1, 1, 1, 1)
    first, second, third = (population[across, partners[..., i]] for i in range(3))
    if how.mutation == "best1":
        best = population[across[:, 0], fitness.argmax(1)][:, None]
        born = best + weight * (first - second)
    else:
        born = first + weight * (second - third)
    top = torch.from_numpy(upper(side)).to(device)
    if how.repair == "redraw":
        fresh = torch.from_numpy(np.stack([d.fresh for d in draws if d.fresh is not None])).to(device) * top
        return torch.where((born < 0) | (born > top), fresh, born)
    return torch.minimum(born.clamp_min(0), top)


def read(genes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates on the lattice: rows and columns int64 [..., d], colours uint8-valued float32 [..., d, 3]."""
    place = genes[..., :2].long()
    return place[..., 0], place[..., 1], genes[..., 2:].round()
