"""The one-pixel attack, and its three- and five-pixel kin, for all images of a batch together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from heatprint.attacks.parts.evolution import GENES, PRESETS, Strategy, children, draw, first_population, read
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS, to_images
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class OnePixel:
    """Recolours a few pixels found by differential evolution (Su, Vargas, Sakurai 2019).

    Every candidate is tested for success, those of the first population included, on the 8-bit image it stands
    for; the search of an image ends with the generation that succeeds. A candidate that changes nothing is never
    kept, so with ``pixels=1`` exactly one pixel of the result differs, successful or not. The fitness is the
    log-probability of the goal, which ranks as the probability does and does not saturate.

    Attributes:
        pixels: How many pixels may change.
        preset: ``"paper"``: rand/1, F = 0.5, 400 candidates, 100 generations, colours from N(128, 127);
            ``"scipy"``: best/1, F dithered in 0.5 to 1, 400 candidates, 75 generations, Latin hypercube, as the
            Keras code the paper cites.
        population: Candidates per image instead of the preset's; 4 or more.
        generations: Generations after the first population instead of the preset's.
        cap: By how many of 255 levels a channel may move at most, 1 to 255. A pixel that stays near its old colour is
            harder to find.

    At most population * (1 + generations) forward passes per image. The step of the result is the generation of
    the success, 0 for the first population.
    """

    pixels: int = 1
    preset: Literal["paper", "scipy"] = "paper"
    population: int | None = None
    generations: int | None = None
    cap: int = LEVELS

    def __post_init__(self) -> None:
        how = self.strategy
        if self.pixels < 1 or how.population < 4 or how.generations < 0:
            raise InvalidInput(
                f"OnePixel: pixels = {self.pixels} must be 1 or more, population = {how.population} 4 or more "
                f"(a child has three other parents), generations = {how.generations} 0 or more."
            )
        if not 1 <= self.cap <= LEVELS:
            raise InvalidInput(f"OnePixel: cap = {self.cap} must be 1 to {LEVELS} levels; {LEVELS} is no cap.")

    @property
    def strategy(self) -> Strategy:
        """The preset with this attack's own population and generations."""
        preset = PRESETS[self.preset]
        return replace(
            preset,
            population=preset.population if self.population is None else self.population,
            generations=preset.generations if self.generations is None else self.generations,
        )

    @property
    def taxonomy(self) -> Taxonomy:
        """Sees class scores only."""
        return Taxonomy(
            knowledge="score",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l0",
            paper="Su, Vargas, Sakurai 2019, arXiv:1710.08864",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        how, side, count = self.strategy, images.shape[-1], len(images)
        out, step = images.clone(), torch.full((count,), -1)
        waiting = deque(range(count))
        # enough images at a time that the last, partly filled forward pass of a generation hardly matters
        slots = min(count, max(4, 4 * access.batch // how.population))
        pool = _Pool(images, [waiting.popleft() for _ in range(slots)], how, self.pixels, self.cap)
        while pool.rows:
            rngs = [streams.of(row, age) for row, age in zip(pool.rows, pool.ages, strict=True)]
            fresh = [
                first_population(rng, how, self.pixels, side) if age == 0 else None
                for rng, age in zip(rngs, pool.ages, strict=True)
            ]
            born = children(pool.genes, pool.fitness, [draw(rng, how, self.pixels) for rng in rngs], how, side)
            for slot, population in enumerate(fresh):
                if population is not None:
                    born[slot] = torch.from_numpy(population)
            hits = pool.select(born, *self._score(access, pool, born, goal))
            for slot in reversed(range(len(pool.rows))):
                row, age = pool.rows[slot], pool.ages[slot] - 1
                if hits[slot] < 0 and age < how.generations and not bool(access.spent(torch.tensor([row]))):
                    continue
                out[row] = pool.candidate(slot, hits[slot])
                step[row] = age if hits[slot] >= 0 else -1
                pool.refill(slot, waiting.popleft() if waiting else None)
            done = count - len(waiting) - len(pool.rows)
            progress(done, count)
        return Perturbed(images=out, step=step)

    def _score(self, access: Access, pool: _Pool, genes: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """Fitness float32 [A, P] and success bool [A, P] of candidates."""
        slots, size = genes.shape[:2]
        row = torch.tensor(pool.rows).repeat_interleave(size)
        places, colours, changed = pool.edits(row, genes.flatten(0, 1))
        logits = access.recoloured(row, places, colours / LEVELS).cpu()
        own = goal.take(row)
        fitness = own.log_probability(logits).masked_fill(~changed, -torch.inf)
        return fitness.view(slots, size), (own.reached(logits) & changed).view(slots, size)


class _Pool:
    """The images under attack at one moment, each with its population; a finished one makes room for the next."""

    def __init__(self, images: Tensor, rows: list[int], how: Strategy, pixels: int, cap: int) -> None:
        self._levels = (images * LEVELS).round().to(torch.uint8)
        self.cap = cap
        self.rows = rows
        self.ages = [0] * len(rows)
        self.genes = torch.zeros((len(rows), how.population, pixels, GENES))
        self.fitness = torch.full((len(rows), how.population), -torch.inf)

    def edits(self, row: Tensor, genes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates [M, d, 5] as places [M, d, 2] and colours 0..255 [M, d, 3], and whether they change anything."""
        rows, columns, colours = read(genes)
        places = torch.stack([rows, columns], -1)
        old = self._levels[row[:, None], :, rows, columns]
        colours = self._capped(colours, old)
        differs = (colours != old).any(-1)
        # of two edits of one pixel the last one counts
        same = (places[:, :, None] == places[:, None]).all(-1).triu(1).any(2)
        return places, colours, (differs & ~same).any(1)

    def select(self, born: Tensor, fitness: Tensor, reached: Tensor) -> list[int]:
        """One-to-one survival; the index of each image's best successful candidate, -1 for none."""
        self.ages = [age + 1 for age in self.ages]
        first = torch.tensor([age == 1 for age in self.ages], device=born.device)[:, None]
        wins = (fitness > self.fitness) | first
        self.genes = torch.where(wins[..., None, None], born, self.genes)
        self.fitness = torch.where(wins, fitness, self.fitness)
        # a successful child that its parent outscores must not be lost: put it in the parent's place
        best = torch.where(reached, fitness, -torch.inf).argmax(1)
        found = reached.any(1)
        slots = found.nonzero().squeeze(1)
        self.genes[slots, best[slots]] = born[slots, best[slots]]
        return torch.where(found, best, -1).tolist()

    def candidate(self, slot: int, index: int) -> Tensor:
        """The image of a candidate (the fittest for index -1), float32 [3, H, W] on the lattice."""
        index = index if index >= 0 else int(self.fitness[slot].argmax())
        pixels = self._levels[self.rows[slot]].clone()
        for row, column, colour in zip(*(part.unbind(0) for part in read(self.genes[slot, index])), strict=True):
            pixels[:, row, column] = self._capped(colour, self._levels[self.rows[slot], :, row, column]).to(torch.uint8)
        return to_images(pixels)

    def _capped(self, colours: Tensor, old: Tensor) -> Tensor:
        """Colours 0..255 no further from the old ones than the cap."""
        return torch.minimum(torch.maximum(colours, old.to(colours) - self.cap), old.to(colours) + self.cap)

    def refill(self, slot: int, row: int | None) -> None:
        """Give a slot to the next image, or close it."""
        if row is not None:
            self.rows[slot], self.ages[slot] = row, 0
            self.fitness[slot] = -torch.inf
            return
        keep = [i for i in range(len(self.rows)) if i != slot]
        self.rows, self.ages = [self.rows[i] for i in keep], [self.ages[i] for i in keep]
        self.genes, self.fitness = self.genes[keep], self.fitness[keep]
