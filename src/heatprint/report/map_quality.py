"""How far Figures 4 to 6 can be trusted: noise floor, kept neighbours, and what each attack moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.read import Run
from heatprint.report.tables import Share, ordered_attacks


@dataclass(frozen=True, kw_only=True)
class Moved:
    """One attack: pairs, how far they moved among the signatures and in the plane, and the share beyond the floor."""

    title: str
    images: int
    signature: str
    plane: str
    beyond: Share | None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was measured of the map, each part empty where it was not."""

    sentences: tuple[str, ...]
    moved: tuple[Moved, ...]


def quality(run: Run) -> Quality | None:
    """The quality of the map, or None where the run did not measure it."""
    found = run.metrics.get("map") or {}
    sentences = tuple(filter(None, [_neighbours(found), _floor(found.get("floor"))]))
    displacement = found.get("displacement") or {}
    moved = tuple(
        Moved(
            title=run.attack_title(name),
            images=one["images"],
            signature=_spread(one["signature"]),
            plane=_spread(one["plane"]),
            beyond=one["beyond_floor"],
        )
        for name in ordered_attacks(run)
        if (one := displacement.get(name))
    )
    return Quality(sentences=sentences, moved=moved) if sentences or moved else None


def _neighbours(found: Mapping[str, Any]) -> str:
    said = []
    if found.get("trust") is not None:
        said.append(f"trustworthiness {found['trust']:.3f} (1 is perfect)")
    if found.get("preserved") is not None:
        said.append(f"{100 * found['preserved']:.1f}\u00a0% of an image’s nearest neighbours kept on average")
    if not said:
        return ""
    among = f", among {found['neighbours']} neighbours" if found.get("neighbours") else ""
    return f"UMAP: {' and '.join(said)}{among}."


def _floor(floor: Mapping[str, Any] | None) -> str:
    if not floor or floor.get("median") is None:
        return ""
    return (
        f"The noise floor: {floor['images']:,} images got a twin on the map, the same but for rounding. Twins lie "
        f"{floor['median']:.3g} apart at the median, {floor['high']:.3g} at the 95th percentile and "
        f"{floor['most']:.3g} at most, in units of the plane; an arrow no longer than that says nothing."
    )


def _spread(spread: Mapping[str, Any] | None) -> str:
    if not spread or spread["median"] is None:
        return "–"
    return f"{_short(spread['median'])} [{_short(spread['low'])}, {_short(spread['high'])}]"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
