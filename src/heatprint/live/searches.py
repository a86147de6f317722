"""The searches that are offered: registered attacks with settings that end within seconds on two cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from heatprint.attacks import ATTACKS, attack
from heatprint.attacks.ledger import Budget, Tally
from heatprint.core.classifier import Classifier
from heatprint.core.errors import HeatprintError, InvalidInput
from heatprint.live.specimen import batch_of
from heatprint.models.predict import predict

Told = Callable[[int, int, str], None]
"""Told of queries done, of the most there can be, and a few words; whatever it raises ends the search."""


class Cancelled(HeatprintError):
    """Raised by a search's progress when nobody wants the answer any more."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """An attack that is offered.

    Attributes:
        name: Of the search.
        title: For people.
        about: What it may see and do, in a sentence.
        attack: Name of the attack in the registry.
        settings: Of the attack.
        queries: Forward passes it may spend; it ends there whatever it has found.
    """

    name: str
    title: str
    about: str
    attack: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    queries: int


SEARCHES = (
    Search(name="one-pixel", title="One pixel", attack="one-pixel", settings={"population": 200, "generations": 15},
           queries=3200, about="Evolves the place and colour of one pixel from the class scores."),
    Search(name="five-pixels", title="Five pixels", attack="one-pixel",
           settings={"pixels": 5, "population": 100, "generations": 20}, queries=2100,
           about="The same with five pixels at once."),
    Search(name="jsma", title="Few pixels, by saliency (JSMA)", attack="jsma", settings={"gamma": 0.05}, queries=1500,
           about="Moves the most salient pixels to black or white, then undoes those it can do without."),
    Search(name="sigma-zero", title="Fewest pixels, by gradient (sigma-zero)", attack="sigma-zero",
           settings={"steps": 100}, queries=300,
           about="Descends the margin and the count of changed pixels together."),
    Search(name="pgd", title="Within 8 levels (PGD)", attack="pgd", settings={"eps": "8/255", "steps": 20},
           queries=100, about="Follows the gradient; no channel moves by more than 8 levels of 255."),
    Search(name="deepfool", title="Nearest boundary (DeepFool)", attack="deepfool", queries=300,
           about="Walks by gradients to the nearest class boundary, so that the change is small."),
    Search(name="ddn", title="Smallest change (DDN)", attack="ddn", queries=300,
           about="Lets the size of the change shrink or grow along the boundary; a hundred gradients."),
    Search(name="square", title="Random squares, scores only (Square)", attack="square",
           settings={"eps": "8/255", "queries": 1500}, queries=1500,
           about="Recolours random squares by 8 levels and keeps what helps; sees no gradient."),
    Search(name="simba", title="One channel at a time, scores only (SimBA)", attack="simba",
           settings={"queries": 1500}, queries=1500,
           about="Changes one channel of one random pixel after the other and keeps what helps; sees no gradient."),
    Search(name="noise", title="Noise of 8 levels (control)", attack="noise", settings={"eps": "8/255"}, queries=1,
           about="Random noise that aims at nothing: what chance alone does."),
)  # fmt: skip


class Found(NamedTuple):
    """What a search leaves.

    Attributes:
        pixels: uint8 [3, H, W], also where it failed.
        success: Whether the classifier now answers another class.
        queries: Forward passes spent; each gradient is among them.
    """

    pixels: np.ndarray
    success: bool
    queries: int


def run(classifier: Classifier, pixels: np.ndarray, label: int, search: Search, told: Told) -> Found:
    """Search for a copy of an image that the classifier gets wrong; the same question has the same answer.

    Args:
        classifier: The victim.
        pixels: uint8 [3, H, W].
        label: The class it should be taken for, and is.
        search: One of `SEARCHES`.
        told: Told of it about twice a second.

    Raises:
        InvalidInput: The image is wrong already; a class or an image that is none.
        Cancelled: By `told`.
    """
    batch = batch_of(classifier, pixels, label)
    answered = int(predict(classifier, batch.pixels).argmax(1))
    if answered != label:
        raise InvalidInput(
            f"search: the classifier takes this image for {classifier.classes[answered]!r} already, not for "
            f"{classifier.classes[label]!r}. Undo the changes, or search another image."
        )

    def progress(done: int, total: int, note: object = "") -> None:
        spent = note.forwards if isinstance(note, Tally) else search.queries * done // max(total, 1)
        told(min(spent, search.queries), search.queries, f"{spent:,} queries")

    result = attack(
        classifier, batch, ATTACKS.make(search.attack, **search.settings),
        budget=Budget(forwards=search.queries), progress=progress,
    )  # fmt: skip
    return Found(result.adversarial.pixels[0].numpy(), bool(result.success[0]), int(result.forwards[0]))
