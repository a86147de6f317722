"""Cluster cards of the atlas: numbers of every strategy, and pictures of the most suspicious ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatprint.core.store import Part
from heatprint.report.figures import Panel
from heatprint.report.measures import number
from heatprint.report.pictures import Scale, heat_uri, image_uri, outline, shared_scale
from heatprint.report.tables import Share


@dataclass(frozen=True, kw_only=True)
class Fall:
    """What one attack did to a strategy: share that held, the median gain and the commonest wrong answer in words."""

    attack: str
    held: Share | None
    unit: str
    gain: str
    confusion: str


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a strategy looks like.

    Attributes:
        image: Mean image, data URI.
        heat: Mean map, data URI.
        width: Of the images.
        height: Of the images.
        outline: SVG path around the suspected region in image coordinates; empty without a counterfactual.
        medoids: The images whose maps are nearest to the mean map, each above its heat map.
        scale: Of the medoids' heat maps.
    """

    image: str
    heat: str
    width: int
    height: int
    outline: str
    medoids: tuple[Panel, ...]
    scale: Scale


@dataclass(frozen=True, kw_only=True)
class Card:
    """One strategy.

    Attributes:
        name: Class and number, ``"dogs 2"``.
        explained: The class that its maps explain.
        images: How many.
        labels: True classes with counts, in words; of the images whose class is known.
        purity: Share of the commonest true class.
        accuracy: Share of right predictions.
        suspicion, separability, edge, agreement: See `heatprint.atlas.cards`, in words.
        falls: One for each attack of the section, None where it was not tried.
        test: The counterfactual, as the run wrote it.
        pictures: Only for those shown large.
    """

    name: str
    explained: str
    images: int
    labels: str
    purity: Share | None
    accuracy: Share | None
    suspicion: str
    separability: str
    edge: str
    agreement: str
    falls: tuple[Fall | None, ...]
    test: Mapping[str, Any] | None
    pictures: Pictures | None


def read_cards(
    cards: Sequence[Mapping[str, Any]], drawn: Part, titles: Mapping[str, str], *, pictures: int
) -> tuple[tuple[Card, ...], float]:
    """Every card in its order, and the end of the colour scale that their mean maps share.

    Args:
        cards: As ``metrics.json`` has them.
        drawn: What they show.
        titles: Name of each attack to its title, in the order of each card's `falls`.
        pictures: How many cards are drawn large, from the first.
    """
    shown = [row for row, card in enumerate(cards) if row < pictures]
    means = [_finite(drawn.arrays["mean_map"][row]) for row in shown]
    scale = shared_scale(means) if means else Scale(limit=1.0, peak=0.0, beyond=0.0)
    found = []
    for row, card in enumerate(cards):
        found.append(
            Card(
                name=card["name"],
                explained=card["class"],
                images=card["images"],
                labels=", ".join(f"{name} {count:,}" for name, count in card["labels"].items()) or "not known",
                purity=card["purity"],
                accuracy=card["accuracy"],
                suspicion=number(card["suspicion"]),
                separability=number(card["separability"]),
                edge=number(card["edge"]),
                agreement=number(card["agreement"]),
                falls=tuple(_fall(title, card["attacks"].get(name)) for name, title in titles.items()),
                test=card["counterfactual"],
                pictures=_pictures(card["name"], drawn, row, scale) if row < pictures else None,
            )
        )
    return tuple(found), scale.limit


def unit_words(unit: str | None) -> str:
    """What gains are counted in, to stand behind a title."""
    return f" ({unit})" if unit else ""


def gain_words(gain: Mapping[str, Any] | None) -> str:
    """A median gain with its interval; a value that is missing above a known one lies beyond every gain tried."""
    if gain is None:
        return "–"
    middle = "beyond every gain tried" if gain["median"] is None else f"{gain['median']:.3g}"
    if gain["low"] is None:
        return middle
    high = "beyond" if gain["high"] is None else f"{gain['high']:.3g}"
    return f"{middle} [{gain['low']:.3g}, {high}]"


def _fall(title: str, found: Mapping[str, Any] | None) -> Fall | None:
    if found is None:
        return None
    wrong = found["confusion"]
    return Fall(
        attack=title,
        held=found["held"],
        unit=unit_words(found["unit"]),
        gain=gain_words(found["gain"]),
        confusion=f"{wrong['class']} ({wrong['count']:,})" if wrong else "–",
    )


def _pictures(name: str, drawn: Part, row: int, scale: Scale) -> Pictures:
    arrays, ids = drawn.arrays, drawn.rows["medoid_ids"][row]
    distinct = [n for n, one in enumerate(ids) if one not in ids[:n]]  # a small strategy repeats its last one
    heats = [_finite(arrays["medoid_heat"][row, n]) for n in distinct]
    own = shared_scale(heats)
    medoids = tuple(
        Panel(
            title=ids[n],
            image=_image(arrays["medoid_pixels"][row, n]),
            heat=heat_uri(heat, own),
            alt=f"{ids[n]}, one of the images nearest to the mean map of {name}",
        )
        for n, heat in zip(distinct, heats, strict=True)
    )
    height, width = arrays["region"].shape[1:]
    return Pictures(
        image=_image(arrays["mean_image"][row]),
        heat=heat_uri(_finite(arrays["mean_map"][row]), scale),
        width=width,
        height=height,
        outline=outline(arrays["region"][row]),
        medoids=medoids,
        scale=own,
    )


def _image(pixels: np.ndarray) -> str:
    return image_uri(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _finite(heat: np.ndarray) -> np.ndarray:
    return np.nan_to_num(heat.astype(np.float64), posinf=0.0, neginf=0.0)
