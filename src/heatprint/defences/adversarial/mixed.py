"""Adversarial training against several norms at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from heatprint.attacks.parts.balls import check_radius
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.lattice import Level
from heatprint.defences.adversarial.base import AdversarialTraining, cross_entropy
from heatprint.defences.adversarial.inner import InnerAttack, attackable, usual_step
from heatprint.defences.adversarial.watch import Balls
from heatprint.models.lesson import Lesson

Kind = Literal["linf", "l2", "pixels"]


@dataclass(frozen=True, kw_only=True)
class MixedTraining(AdversarialTraining):
    """Cross-entropy on images attacked in a norm drawn at random.

    (After Tramèr and Boneh 2019, who learn all of them, or the worst, at several times the cost.)

    PGD in the maximum norm, PGD in L2, or a few pixels at random places in saturated colours: the worst of some
    draws, a cheap stand-in for the search of the one-pixel attack. The watch counts an image as standing that stands
    PGD in every norm trained in; few pixels are not watched, and must be measured afterwards. Training accuracy is
    that on the attacked images.

    Attributes:
        kinds: What is drawn from, with equal chances.
        draw: One draw per ``"image"`` or per ``"batch"``.
        eps: Radius in the maximum norm; ``"2/255"`` is accepted.
        eps_l2: Radius in L2, pixel values in [0, 1].
        pixels: Most pixels that are recoloured; each image gets 1 to so many.
        tries: Draws of places and colours per image, of which the one with the largest margin is learnt.
        steps: Iterations of PGD, each 2.5 * eps / steps long.
        training: The recipe.
        watch: How it is watched.
    """

    kinds: tuple[Kind, ...] = ("linf", "l2", "pixels")
    draw: Literal["image", "batch"] = "image"
    eps: Level = 2 / 255
    eps_l2: float = 0.5
    pixels: int = 3
    tries: int = 8
    steps: int = 10

    def __post_init__(self) -> None:
        check_radius("MixedTraining: eps", self.eps, "linf")
        check_radius("MixedTraining: eps_l2", self.eps_l2, "l2")
        known = set(get_args(Kind))
        if not self.kinds or len(set(self.kinds)) != len(self.kinds) or not known.issuperset(self.kinds):
            raise InvalidInput(
                f"MixedTraining: kinds = {self.kinds} must be one or more different names of linf, l2 and pixels."
            )
        if self.draw not in ("image", "batch"):
            raise InvalidInput(f"MixedTraining: draw = {self.draw!r} must be 'image' or 'batch'.")
        for name in ("pixels", "tries", "steps"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"MixedTraining: {name} = {getattr(self, name)} must be 1 or more.")

    @property
    def balls(self) -> Balls:
        """The balls that are trained in; the maximum norm's where there is none."""
        both: Balls = (("linf", self.eps), ("l2", self.eps_l2))
        return tuple(ball for ball in both if ball[0] in self.kinds) or both[:1]

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        logits = lesson.logits(self.adversarial(lesson))
        return cross_entropy(lesson, logits), logits

    def adversarial(self, lesson: Lesson) -> Tensor:
        """The attacked images of a lesson, [N, 3, H, W]."""
        count = len(lesson.images)
        drawn = lesson.rng.integers(len(self.kinds), size=count if self.draw == "image" else 1)
        number = torch.from_numpy(np.broadcast_to(drawn, count).copy())
        out = lesson.images.clone()
        for place, kind in enumerate(self.kinds):
            rows = (number == place).nonzero().squeeze(1)
            if len(rows):
                here = rows.to(out.device)
                some = replace(lesson, images=lesson.images[here], labels=lesson.labels[here], rows=lesson.rows[rows])
                out[here] = self._attacked(some, kind)
        return out

    def _attacked(self, lesson: Lesson, kind: Kind) -> Tensor:
        if kind == "pixels":
            return worst_recoloured(lesson, self.pixels, self.tries)
        eps = self.eps if kind == "linf" else self.eps_l2
        return InnerAttack(eps=eps, norm=kind, step=usual_step(eps, self.steps), steps=self.steps).images(lesson)


@torch.no_grad()
def worst_recoloured(lesson: Lesson, pixels: int, tries: int) -> Tensor:
    """Images with 1 to `pixels` random pixels in saturated colours: of `tries` draws the one with the largest margin.

    Returns:
        float32 [N, 3, H, W].
    """
    out, best = lesson.images.clone(), torch.full_like(lesson.images[:, 0, 0, 0], -torch.inf)
    goal = untargeted(lesson.labels)
    with attackable(lesson.network):
        for _ in range(tries):
            changed = recoloured(lesson.images, pixels, lesson.rng)
            margin = goal.margin(lesson.logits(changed))
            better = margin > best
            out[better], best[better] = changed[better], margin[better]
    return out


def recoloured(images: Tensor, pixels: int, rng: np.random.Generator) -> Tensor:
    """Images [N, 3, H, W] with 1 to `pixels` random pixels each whose channels are 0 or 1."""
    count, _, height, width = images.shape
    how_many = rng.integers(1, pixels + 1, size=count)
    rows, columns = rng.integers(height, size=(pixels, count)), rng.integers(width, size=(pixels, count))
    colours = torch.from_numpy(rng.integers(2, size=(pixels, count, 3))).to(images)
    out = images.clone()
    for number in range(pixels):
        meant = np.flatnonzero(how_many > number)
        where = [
            torch.from_numpy(index).to(images.device) for index in (meant, rows[number][meant], columns[number][meant])
        ]
        out[where[0], :, where[1], where[2]] = colours[number][where[0]]
    return out
