"""The section on a planted artefact: what two models answer, and where their heat maps look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from heatprint.core.store import Part
from heatprint.report.figures import Panel, Strip
from heatprint.report.pictures import heat_uri, image_uri, shared_scale
from heatprint.report.read import Run

PLACES = ("artefact", "animal", "elsewhere")
WORDS = {"dogs": "on every dog, on no cat", "half": "on half of either"}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of the table; shares as the run wrote them.

    Attributes:
        title: The model.
        planted: Which of its training images carried the artefact.
        without: Its accuracy on images without the artefact.
        carrying: Its accuracy on the same images with it.
        relevance: Where its relevance lies: mean and interval per place.
        more: Images with more relevance on the artefact than on the animal.
        images: Images with relevance of the sign of the explained logit.
    """

    title: str
    planted: str
    without: Mapping[str, Any] | None
    carrying: Mapping[str, Any] | None
    relevance: tuple[Mapping[str, Any], ...]
    more: Mapping[str, Any] | None
    images: int


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything the section shows."""

    kind: str
    margin: int
    area: Mapping[str, float]
    models: tuple[Model, ...]
    strips: tuple[Strip, ...]


def section(run: Run) -> Section | None:
    """The section, or None where the run planted nothing."""
    found = run.metrics.get("artefact")
    if not found or run.artefact is None:
        return None
    models = tuple(
        Model(
            title=model["name"],
            planted=WORDS.get(model["carriers"], model["carriers"]),
            without=model["without"],
            carrying=model["with"],
            relevance=tuple(model["relevance"][place] for place in PLACES),
            more=model["more_on_artefact"],
            images=model["images"],
        )
        for model in found["models"]
    )
    return Section(
        kind=found["kind"],
        margin=found["margin"],
        area=found["area"],
        models=models,
        strips=_strips(run.artefact, found["kind"]),
    )


def _strips(part: Part, kind: str) -> tuple[Strip, ...]:
    """One strip per image kept: the same picture with the map of each model, on one scale."""
    pixels, heat = part.arrays["pixels"], np.nan_to_num(part.arrays["heat"].astype(np.float64), posinf=0.0, neginf=0.0)
    rows = part.rows
    count = len(rows["id"]) // len(heat)  # rows per model
    strips = []
    for n in range(len(pixels)):
        scale = shared_scale([one[n] for one in heat])
        image = image_uri(np.ascontiguousarray(pixels[n].transpose(1, 2, 0)))
        panels = []
        for k, one in enumerate(heat):
            row = k * count + n
            name, answer = rows["model"][row], rows["predicted"][row]
            panels.append(
                Panel(
                    title=f"{name} model",
                    image=image,
                    heat=heat_uri(one[n], scale),
                    alt=f"{rows['id'][row]} with a planted {kind}; the {name} model says {answer}",
                    answer=answer,
                    probability=rows["probability"][row],
                    right=answer == rows["label"][row],
                    note=_where(rows["on_artefact"][row], rows["on_animal"][row], kind),
                )
            )
        title = f"{rows['id'][n].rpartition('/')[2]}, truly {rows['label'][n]}"
        strips.append(Strip(title=title, panels=tuple(panels), scale=scale))
    return tuple(strips)


def _where(on_artefact: float, on_animal: float, kind: str) -> str:
    if isnan(on_artefact):
        return "no relevance of the answer’s sign"
    return f"{100 * on_artefact:.0f} % of relevance on the {kind}, {100 * on_animal:.0f} % on the animal"
