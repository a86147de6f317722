"""What the adapters of torchattacks, Foolbox and ART share."""

from __future__ import annotations

import inspect
import re
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from heatprint.attacks.foreign.view import Spent, View, seeded
from heatprint.attacks.parts.rounding import fit
from heatprint.core.errors import BrokenContract, InvalidInput, MissingExtra, UnknownName
from heatprint.core.goals import Goal
from heatprint.core.lattice import parse_level, to_images, to_pixels
from heatprint.core.norms import Norm, length
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy

Knowledge = Literal["white box", "score", "label"]


@dataclass(frozen=True, eq=False)
class Given:
    """Holds an attack object that is there already; it is copied, never changed. Made by `foreign.adapt`."""

    held: ClassVar[Any] = None


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What the adapters of all libraries share.

    Images go to the library in batches, as clones; its randomness is seeded by the first image of each. Since many
    attacks draw one stream of numbers for a whole batch, an image's result may depend on the batch it is in: the
    scope is declared as "batch", unless ``batch=1``. That is slow for attacks that work on whole batches, costs
    nothing for those that loop over the images themselves (one-pixel, JSMA, Boundary, ...), and makes the
    counts exact (see `heatprint.attacks.foreign.view.View`).

    Pixels are clamped to [0, 1]; an image with a pixel that is no number is replaced by the clean one. Where
    rounding to 8 bits would carry an image out of the library's own radius `eps` in `norm`, it is rounded so that it
    stays inside. Once every image of a batch has spent its budget the attack is stopped and the best image it asked
    about is returned. Of a goal the libraries know labels and targets, not the criterion: the door applies it.

    Attributes:
        attack: The library's class name.
        settings: Its arguments, in its own units for pixels in [0, 1]; text such as ``"8/255"`` is read as a number.
        knowledge: What it may see: ``"white box"``, ``"score"`` or ``"label"``. An attack that asks for a
            gradient it has not declared is stopped with an error.
        norm: The norm its budget is counted in; the library is not asked.
        batch: Images per call; None for as many as suit the device.
        version: Of the library, found, not set: another version may give other results.
        given: Set by `heatprint.attacks.adapt`; not for recipes.

    The step of the result is the call of the network, from 0, in which an image first reached the goal.
    """

    attack: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    knowledge: Knowledge = "white box"
    norm: Norm = "linf"
    batch: int | None = None
    version: str = field(init=False, default="")
    given: Given | None = None

    package: ClassVar[str]
    distribution: ClassVar[str]
    extra: ClassVar[str] = "bench"
    module: ClassVar[str]
    paper: ClassVar[str]
    one_step: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        who = type(self).__name__
        if self.batch is not None and self.batch < 1:
            raise InvalidInput(f"{who}: batch = {self.batch} must be 1 or more images, or left out.")
        if self.knowledge not in get_args(Knowledge):
            raise InvalidInput(
                f"{who}: knowledge = {self.knowledge!r} must be one of {', '.join(get_args(Knowledge))}."
            )
        object.__setattr__(self, "settings", {name: _read(value) for name, value in self.settings.items()})
        self._library()
        object.__setattr__(self, "version", version(self.distribution))
        if self.given is None:
            parameters = inspect.signature(self._kind()).parameters.values()
            known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD][self._first() :]
            for name in self.settings:
                if name not in known:
                    raise UnknownName(f"{who}: the setting of {self.attack}", name, known)

    @property
    def taxonomy(self) -> Taxonomy:
        """As declared; whether it can aim is asked of the library."""
        return Taxonomy(
            knowledge=self.knowledge,
            specificity="targeted or untargeted" if self._aims() else "untargeted",
            frequency="one-time" if self.attack in self.one_step else "iterative",
            norm=self.norm,
            paper=f"{self.distribution} {self.version}, {self.attack} ({self.paper})",
            scope="image" if self.batch == 1 else "batch",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        out, step = images.clone(), torch.full((len(images),), -1)
        for rows in torch.split(torch.arange(len(images)), min(self.batch or access.batch, access.batch)):
            clean, aim = images[rows], goal.take(rows)
            view = View(access, clean, rows, aim, self.knowledge).eval()
            radius: object = None
            try:
                with seeded(streams.of(int(rows[0]))), torch.enable_grad():
                    made, radius = self._run(view, clean.to(access.device, copy=True), aim.to(access.device))
            except Spent:
                made = view.best
            out[rows], step[rows] = self._landed(clean, made, radius), view.first
            progress(int(rows[-1]) + 1, len(images))
        return Perturbed(images=out, step=step)

    def _landed(self, clean: Tensor, made: Tensor, radius: object) -> Tensor:
        """Results [N, 3, H, W] as the door takes them; inside the radius, if the library knows one."""
        made = made.detach().to("cpu", torch.float32, copy=True)
        if made.shape != clean.shape:
            raise BrokenContract(
                f"{type(self).__name__}: {self.attack} returned {list(made.shape)} for images {list(clean.shape)}."
            )
        broken = ~made.isfinite().flatten(1).all(1)
        made[broken] = clean[broken]
        made.clamp_(0, 1)
        if self.norm == "l0" or not isinstance(radius, int | float):
            return made
        rounded = length(to_images(to_pixels(made)) - clean, self.norm)
        out = (rounded > radius * (1 + 1e-5) + 1e-6) & (length(made - clean, self.norm) <= radius * (1 + 1e-4) + 1e-6)
        if bool(out.any()):
            made[out] = fit(clean[out], made[out], self.norm, float(radius))
        return made

    def _library(self) -> ModuleType:
        """The module that holds the attacks; its own warnings while it is imported are no business of the caller."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return import_module(self.module)
        except ImportError as error:
            name = (error.name or self.package).partition(".")[0]
            missing = self.distribution if name == self.package else name
            raise MissingExtra(missing, self.extra, f"{type(self).__name__}: {self.attack}") from error

    def _kind(self) -> type[Any]:
        known = {name: kind for name, kind in vars(self._library()).items() if self._is_attack(kind)}
        if self.attack not in known:
            raise UnknownName(f"{type(self).__name__}: the attack", self.attack, known)
        kind: type[Any] = known[self.attack]
        return kind

    @staticmethod
    def _first() -> int:
        """How many leading arguments of the constructors are ours to fill."""
        return 1

    @abstractmethod
    def _is_attack(self, kind: Any) -> bool:
        """Whether an entry of the module is an attack on one image classifier."""

    @abstractmethod
    def _aims(self) -> bool:
        """Whether a target class can be asked for."""

    @abstractmethod
    def _run(self, view: View, images: Tensor, goal: Goal) -> tuple[Tensor, object]:
        """The library's result for images on the device, and the radius it kept, if it knows one."""


def _read(value: Any) -> Any:
    fraction = isinstance(value, str) and re.fullmatch(r"[\d.]+\s*/\s*[\d.]+", value)
    return parse_level(value) if fraction else value
