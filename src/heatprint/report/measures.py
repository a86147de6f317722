"""How the measures of a before-and-after comparison are called and printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TITLES = {
    "rank_correlation": "rank correlation",
    "cosine": "cosine",
    "moved": "relevance moved",
    "moved_unsigned": "|relevance| moved, whatever its sign",
    "on_changed": "|relevance| on changed pixels, attacked",
    "clean_on_changed": "|relevance| on the same pixels, clean",
    "chance": "the same by chance: changed / all pixels",
    "peak_distance": "peak to nearest changed pixel",
}
YES_OR_NO = ("exact", "guaranteed")  # facts that are 1 or 0
SHARES = ("moved", "moved_unsigned", "on_changed", "clean_on_changed", "chance")


def number(value: float | None, digits: int = 2) -> str:
    """A plain number; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def told(name: str, value: float | None, *, unit: bool = True) -> str:
    """A value of a measure, with its unit if wanted; a dash where it has no meaning."""
    if value is None or math.isnan(value):
        return "–"
    if name in SHARES:
        return f"{100 * value:.3g}" + "\u00a0%" * unit
    if name == "peak_distance":
        return f"{value:.1f}" + "\u00a0px" * unit
    return f"{value:.2f}".replace("-", "−")


def told_quartiles(name: str, spread: Mapping[str, Any]) -> str:
    """The quartiles in the unit of the median, ``"[43.5, 71.9]"``."""
    return f"[{told(name, spread['low'], unit=False)}, {told(name, spread['high'], unit=False)}]"


def told_spread(name: str, spread: Mapping[str, Any]) -> str:
    """Median and quartiles, ``"0.91 [0.80, 0.97]"``; a dash where nothing was defined."""
    if not spread["count"]:
        return "–"
    return f"{told(name, spread['median'])} {told_quartiles(name, spread)}"


def told_facts(facts: Mapping[str, float]) -> str:
    """What a method says of one map of its own, ``"precision 0.97, guaranteed yes"``; nothing where it says nothing."""

    def word(name: str, value: float) -> str:
        if name in YES_OR_NO:
            return "yes" if value else "no"
        return f"{value:.2g}".replace("-", "−")

    return ", ".join(f"{name.replace('_', ' ')} {word(name, value)}" for name, value in facts.items())
