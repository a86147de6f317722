"""What the inspector asks of the live laboratory, in plain arrays: the one that has the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Progress = Callable[[int, int, str], None]


class Look(Protocol):
    """What the network says of an image, and what it relied on."""

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [K]."""
        ...

    @property
    def predicted(self) -> int:
        """The likeliest class."""
        ...

    @property
    def target(self) -> int:
        """The class explained."""
        ...

    @property
    def heat(self) -> np.ndarray:
        """Signed relevance, float32 [H, W]."""
        ...

    @property
    def note(self) -> str:
        """What must be known to read the map; mostly empty."""
        ...


class Judged(Protocol):
    """What detector, identifier and locator say; None where the run has none."""

    @property
    def score(self) -> float | None:
        """How attacked it looks, 0 to 1."""
        ...

    @property
    def threshold(self) -> float | None:
        """Above which it is flagged."""
        ...

    @property
    def flagged(self) -> bool | None:
        """Whether it looks attacked."""
        ...

    @property
    def family(self) -> str | None:
        """The likeliest family of attacks."""
        ...

    @property
    def algorithm(self) -> str | None:
        """The likeliest attack."""
        ...

    @property
    def probability(self) -> float | None:
        """Of the family, 0 to 1."""
        ...

    @property
    def credibility(self) -> float | None:
        """Share of known attacked images that are at least as strange."""
        ...

    @property
    def unknown(self) -> bool | None:
        """Whether it is like no known attack."""
        ...

    @property
    def restored_label(self) -> int | None:
        """The class after its most suspicious pixel was repaired."""
        ...

    @property
    def restored_place(self) -> tuple[int, int] | None:
        """Row and column of that pixel."""
        ...


class Place(Protocol):
    """Where an image lies on the map, about."""

    @property
    def x(self) -> float:
        """First coordinate in the UMAP plane."""
        ...

    @property
    def y(self) -> float:
        """Second."""
        ...

    @property
    def px(self) -> float:
        """First coordinate in the PCA plane."""
        ...

    @property
    def py(self) -> float:
        """Second."""
        ...

    @property
    def neighbours(self) -> Sequence[tuple[int, float]]:
        """Rows of the map and their distances, nearest first."""
        ...


class Search(Protocol):
    """A search that is offered."""

    @property
    def name(self) -> str:
        """By which it is asked for."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...


class Bench(Protocol):
    """One image at a time, uint8 [3, H, W]; safe to be asked from several threads."""

    @property
    def size(self) -> int:
        """Side of an image."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the logits."""
        ...

    def explainers(self) -> Sequence[tuple[str, str]]:
        """Name and title of those that answer at once."""
        ...

    def searches(self) -> Sequence[Search]:
        """Attacks that take seconds."""
        ...

    def look(self, pixels: np.ndarray, *, method: str, target: int | None = None) -> Look:
        """Prediction and heat map."""
        ...

    def gain(self, pixels: np.ndarray, label: int, gain: int) -> np.ndarray:
        """The image after FGSM of so many levels."""
        ...

    def curve(self, pixels: np.ndarray, label: int, gains: Sequence[int]) -> np.ndarray:
        """Probabilities along the gains of FGSM, float32 [G, K]."""
        ...

    def reach(self, pixels: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Share of the margin each pixel could take, float32 [H, W], and its colour for it, uint8 [3, H, W]."""
        ...

    def search(self, pixels: np.ndarray, label: int, name: str, progress: Progress) -> tuple[np.ndarray, bool, int]:
        """The image as a search leaves it, whether it succeeded, and forward passes spent."""
        ...

    def judge(self, pixels: np.ndarray) -> Judged:
        """Attacked, and by what?"""
        ...

    def place(self, pixels: np.ndarray) -> Place | None:
        """Where on the map; None without one."""
        ...
