"""The boundary attack: a random walk along the boundary that only ever asks for the label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks.parts.decision import CHANNEL, bisect, find_start
from heatprint.attacks.parts.rounding import settle
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.norms import length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

PACE = 0.2  # how fast the logarithm of a step follows its rate of success
LEAST, MOST = 1e-5, 0.9  # bounds of both steps, as shares of the distance


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Starts far away and walks along the boundary towards the image (Brendel, Rauber, Bethge 2018, algorithm 1).

    Every proposal is a random move on the sphere around the image (their section 2.2, the orthogonal step), and then
    a small move towards the image. Both lengths are shares of the distance and are adapted image by image: the first
    so that half of the moves on the sphere stay adversarial, the second so that a quarter of the moves inwards do.

    Deviations from the paper: the steps follow every answer instead of statistics of many (a stochastic
    approximation of the same rates); the move on the sphere is asked about by itself each time, kept where only it
    succeeds, and the move inwards costs a second query; and a bisection leads from the start to the boundary, which
    saves the many steps of the way there. The start is drawn blindly, from noise, flat colours and the image's negative
    (the paper's targeted attack starts from an image of the target class, which this attack does not have). Where no
    drawn picture reaches the goal the attack fails with step -1, which says nothing about the classifier: expect that
    for most targets among several classes of a network, and not without a target or with two classes.

    The step of the result is the number of the drawn picture that reached the goal.

    Attributes:
        queries: Label queries an image, the start included, >= 1. Rounding to 8 bits costs about eight more.
        orthogonal: First length of the move on the sphere, as a share of the distance, in (0, 1).
        towards: First length of the move inwards, likewise.
        tries: The most pictures drawn to find a start, >= 1.
    """

    queries: int = 5000
    orthogonal: float = 0.1
    towards: float = 0.05
    tries: int = 100

    def __post_init__(self) -> None:
        if self.queries < 1 or self.tries < 1:
            raise InvalidInput(f"Boundary: queries = {self.queries} and tries = {self.tries} must be 1 or more.")
        if not (0 < self.orthogonal < 1 and 0 < self.towards < 1):
            raise InvalidInput(
                f"Boundary: orthogonal = {self.orthogonal} and towards = {self.towards} are shares of the distance, "
                "between 0 and 1. Write e.g. 0.05."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """Label only, iterative, minimal L2."""
        return Taxonomy(
            knowledge="label",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l2",
            paper="Brendel, Rauber, Bethge 2018, arXiv:1712.04248",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del goal  # known to the access; a label is all that comes back
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), access.batch):
            start, step[rows] = find_start(access, images[rows], rows, streams, min(self.tries, self.queries))
            out[rows] = start
            started = rows[step[rows] >= 0]
            if len(started):
                walked = self._walk(access, images[started], out[started], started, step[started] + 1, streams)
                out[started] = settle(access, images[started], walked, started)
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _walk(
        self, access: Access, images: Tensor, start: Tensor, rows: Tensor, asked: Tensor, streams: Streams
    ) -> Tensor:
        """From a start that reaches the goal to the nearest image met, on the CPU."""
        clean, gap = images.to(access.device), CHANNEL * images[0].numel() ** 0.5
        current = bisect(access, clean, start.to(clean), rows, "l2", torch.full((len(rows),), gap).to(clean))
        asked = asked + _halvings(start - images, gap)
        rngs = [streams.of(int(row), 1) for row in rows]
        sideways = torch.full((len(rows),), self.orthogonal, device=clean.device)
        inwards = torch.full_like(sideways, self.towards)
        while True:
            open_ = ((asked < self.queries) & ~access.spent(rows)).nonzero().squeeze(1)
            if not len(open_):
                return current.cpu()
            here, own = open_.to(clean.device), rows[open_]
            moved = _on_sphere(clean[here], current[here], sideways[here], [rngs[i] for i in open_.tolist()])
            kept = access.reached(moved, own)
            current[here[kept]] = moved[kept]
            sideways[here] = _adapted(sideways[here], kept, 0.5)
            asked[open_] += 1
            on = (kept.cpu() & (asked[open_] < self.queries)).nonzero().squeeze(1).to(clean.device)
            if len(on):
                nearer = clean[here[on]] + (1 - inwards[here[on]]).view(-1, 1, 1, 1) * (moved - clean[here])[on]
                fell = access.reached(nearer, own[on.cpu()])
                current[here[on][fell]] = nearer[fell]
                inwards[here[on]] = _adapted(inwards[here[on]], fell, 0.25)
                asked[open_[on.cpu()]] += 1


def _halvings(change: Tensor, gap: float) -> Tensor:
    """How many queries the bisection of these changes takes, int64 [M]."""
    return (length(change, "l2") / gap).log2().ceil().clamp_min(0).long()


def _on_sphere(clean: Tensor, current: Tensor, share: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """A random move orthogonal to the way inwards, back onto the sphere around the clean image, in [0, 1]."""
    way = current - clean
    size = length(way, "l2").clamp_min(1e-12).view(-1, 1, 1, 1)
    drawn = np.stack([rng.standard_normal(tuple(clean.shape[1:]), dtype=np.float32) for rng in rngs])
    noise = torch.from_numpy(drawn).to(clean)
    ahead = way / size
    noise = noise - (noise * ahead).flatten(1).sum(1).view(-1, 1, 1, 1) * ahead
    noise = noise * (share.view(-1, 1, 1, 1) * size / length(noise, "l2").clamp_min(1e-12).view(-1, 1, 1, 1))
    moved = way + noise
    moved = moved * (size / length(moved, "l2").clamp_min(1e-12).view(-1, 1, 1, 1))
    return (clean + moved).clamp(0, 1)


def _adapted(share: Tensor, hit: Tensor, rate: float) -> Tensor:
    """Longer after a success, shorter after a failure; at rest where successes come at `rate`."""
    return (share * torch.exp(PACE * (hit.to(share) - rate))).clamp(LEAST, MOST)
