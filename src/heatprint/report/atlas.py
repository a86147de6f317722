"""The atlas: strategies class by class, their cards, where attacks move the maps, and the border as a statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heatprint.core.store import Part
from heatprint.report.atlas_cards import Card, gain_words, read_cards, unit_words
from heatprint.report.charts import Spectrum, spectrum
from heatprint.report.measures import number
from heatprint.report.read import Run
from heatprint.report.tables import Share, ordered_attacks

SHOWN = 3  # cards with pictures, the most suspicious ones
DISTANCES = {
    "plane": "distance to the border in the plane",
    "signature": "the same among the signatures",
    "logit margin": "margin of the logits, the baseline without a heat map",
}


@dataclass(frozen=True, kw_only=True)
class ClassLine:
    """One class and its strategies.

    Attributes:
        name: The class that the maps explain.
        images: How many images the network called so.
        proposed: Strategies that the data propose.
        mark: What a reader must know of the number shown, where it is not the one proposed, or nothing was clustered.
        count: Strategies shown.
        stability: Mean adjusted Rand index of the strategies found again, in words.
        separability: Fisher separability, in words.
        chart: The eigenvalues beside those of shuffled maps.
    """

    name: str
    images: int
    proposed: int
    mark: str
    count: int
    stability: str
    separability: str
    chart: Spectrum | None


@dataclass(frozen=True, kw_only=True)
class FlowRow:
    """A strategy: its clean maps, and where the attack moved them: count, share of the row, whether it is itself."""

    name: str
    classes: str
    clean: int
    attacked: int
    difference: int
    cells: tuple[tuple[int, float, bool], ...]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What one attack did.

    Attributes:
        title: The attack.
        images: Pairs of a clean and an attacked map.
        mark: How many strategies were found in the one graph of all maps, and whether the data propose them.
        rows: The matrix.
        stayed: Share of the images whose map stayed in its strategy.
        unit: What gains are counted in, to stand behind a title.
        falls: Strategies of the clean maps, first to fall first: name, share that held, median gain in words.
    """

    title: str
    images: int
    mark: str
    rows: tuple[FlowRow, ...]
    stayed: Share | None
    unit: str
    falls: tuple[tuple[str, Share | None, str], ...]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A distance to the border against the smallest gain.

    Attributes:
        of: The distance.
        images: How many were compared.
        rho: Rank correlation within predicted classes.
        interval: Its 95 % interval.
        pooled: Rank correlation over all classes.
        p: Permutation p-value of `rho`.
        reading: What the interval says.
    """

    of: str
    images: int
    rho: str
    interval: str
    pooled: str
    p: str
    reading: str


@dataclass(frozen=True, kw_only=True)
class Border:
    """One attack: the relations, and a sentence on them."""

    title: str
    images: int
    censored: int
    relations: tuple[Relation, ...]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Everything the section shows.

    Attributes:
        images: Clean images in the atlas.
        kind: What they are called in the text.
        held: What an image did that an attack did not make fall, in words.
        side: Of the pooled maps, cells.
        method: Name of the clustering.
        explainer: Name of the explainer.
        even_edge: Share of |relevance| that an even map has at the edge.
        classes: The most separable first.
        cards: The most suspicious strategies, with pictures.
        rest: All others, by falling suspicion.
        mean_limit: Where the colours of the mean maps end, share of |relevance|.
        attacks: Titles, in the order of each card's `falls`.
        flows: One for each attack.
        borders: One for each attack.
    """

    images: int
    kind: str
    held: str
    side: int
    method: str
    explainer: str
    even_edge: float
    classes: tuple[ClassLine, ...]
    cards: tuple[Card, ...]
    rest: tuple[Card, ...]
    mean_limit: float
    attacks: tuple[str, ...]
    flows: tuple[Flow, ...]
    borders: tuple[Border, ...]


def atlas(run: Run) -> Atlas | None:
    """The section, or None where the run has no atlas."""
    found = run.metrics.get("atlas")
    if not found or run.atlas is None:
        return None
    titles = {name: run.attack_title(name) for name in ordered_attacks(run)}
    return section(found, run.atlas, titles, kind="clean test images")


def section(
    found: Mapping[str, Any], drawn: Part, titles: Mapping[str, str], *, kind: str, held: str = "still right"
) -> Atlas:
    """The section from the atlas alone.

    Args:
        found: As ``metrics.json`` has it.
        drawn: What the cards show.
        titles: Name of each attack that may occur to its title, in the order of the text.
        kind: What the images are called in the text.
        held: What an image did that an attack did not make fall, in words.
    """
    tried = {name: title for name, title in titles.items() if any(name in card["attacks"] for card in found["cards"])}
    cards, limit = read_cards(found["cards"], drawn, tried, pictures=SHOWN)
    flows, border = found.get("flows") or {}, found.get("border") or {}
    side = found["side"]
    return Atlas(
        images=found["images"],
        kind=kind,
        held=held,
        side=side,
        method=found["method"],
        explainer=found["explainer"],
        even_edge=1 - (1 - 2 * max(1, side // 8) / side) ** 2,
        classes=tuple(_class_line(line) for line in found["classes"]),
        cards=cards[:SHOWN],
        rest=cards[SHOWN:],
        mean_limit=limit,
        attacks=tuple(tried.values()),
        flows=tuple(
            _flow(title, flows[name], _unit(found["cards"], name)) for name, title in titles.items() if name in flows
        ),
        borders=tuple(_border(title, border[name]) for name, title in titles.items() if name in border),
    )


def _class_line(line: Mapping[str, Any]) -> ClassLine:
    return ClassLine(
        name=line["class"],
        images=line["images"],
        proposed=line["proposed"],
        mark=_mark(line),
        count=line["count"],
        stability=number(line["stability"]),
        separability=number(line["separability"]),
        chart=spectrum(line["eigenvalues"], line["null"], line["proposed"], f"Eigenvalues of {line['class']}"),
    )


def _mark(found: Mapping[str, Any]) -> str:
    """A partition that the data do not propose must never look like one they do, nor one strategy like a finding."""
    if found.get("note"):
        return f"not clustered: {found['note']}"
    if not found["forced"]:
        return ""
    return f"the data propose {found['proposed']}; shown: {found['count']}, exploratory"


def _unit(cards: Sequence[Mapping[str, Any]], attack: str) -> str:
    """What an attack counts its gains in."""
    return next((unit_words(card["attacks"][attack]["unit"]) for card in cards if attack in card["attacks"]), "")


def _flow(title: str, found: Mapping[str, Any], unit: str) -> Flow:
    rows = []
    for n, (strategy, counts) in enumerate(zip(found["strategies"], found["matrix"], strict=True)):
        total = sum(counts) or 1
        rows.append(
            FlowRow(
                name=strategy["name"],
                classes=", ".join(f"{name} {count:,}" for name, count in strategy["classes"].items()),
                clean=strategy["clean"],
                attacked=strategy["attacked"],
                difference=strategy["difference"],
                cells=tuple((count, count / total, k == n) for k, count in enumerate(counts)),
            )
        )
    return Flow(
        title=title,
        images=found["images"],
        mark=_mark(found) or f"{found['count']}, as the data propose",
        rows=tuple(rows),
        stayed=found["stayed"],
        unit=unit,
        falls=tuple((fall["name"], fall["held"], gain_words(fall["gain"])) for fall in found["falls"]),
    )


def _border(title: str, found: Mapping[str, Any]) -> Border:
    relations = {one["of"]: one for one in found["relations"]}
    return Border(
        title=title,
        images=found["images"],
        censored=found["censored"],
        relations=tuple(
            Relation(
                of=DISTANCES.get(name, name),
                images=one["images"],
                rho=number(one["rho"]),
                interval=_interval(one),
                pooled=number(one["pooled"]),
                p="–" if one["p"] is None else f"{one['p']:.2g}",
                reading=_reading(one),
            )
            for name, one in relations.items()
        ),
        sentence=_sentence(relations.get("plane"), relations.get("logit margin")),
    )


def _interval(one: Mapping[str, Any]) -> str:
    return "" if one["low"] is None or one["high"] is None else f"[{number(one['low'])}, {number(one['high'])}]"


def _reading(one: Mapping[str, Any]) -> str:
    """What an interval allows to say, and no more."""
    if one["low"] is None or one["high"] is None:
        return "not defined"
    if one["low"] > 0:
        return "the interval excludes 0: images near the border fall to smaller gains"
    if one["high"] < 0:
        return "the interval excludes 0: images near the border need larger gains"
    return "the interval includes 0: no relation shown"


def _sentence(plane: Mapping[str, Any] | None, margin: Mapping[str, Any] | None) -> str:
    """The map beside the baseline, in words."""
    if not plane or plane["low"] is None or plane["high"] is None:
        return "The distance to the border in the plane was not defined here."
    found, _, reading = _reading(plane).partition(": ")
    said = f"In the plane, {found} (ρ = {number(plane['rho'])} {_interval(plane)}): {reading}."
    if not margin or margin["low"] is None or margin["high"] is None:
        return said
    verb = "excludes" if _side(margin) else "includes"
    also = {0: " as well", 2: " on the other side"}.get(abs(_side(margin) - _side(plane)), "")
    beside = "the two intervals overlap"
    if margin["low"] > plane["high"]:
        beside = "it lies wholly above that of the plane"
    if margin["high"] < plane["low"]:
        beside = "it lies wholly below that of the plane"
    return (
        f"{said} The interval of the margin of the logits, which needs no explanation, {verb} 0{also} "
        f"(ρ = {number(margin['rho'])} {_interval(margin)}); {beside}."
    )


def _side(one: Mapping[str, Any]) -> int:
    """On which side of 0 an interval lies, 1 or -1; 0 where it includes 0."""
    return int(one["low"] > 0) - int(one["high"] < 0)
