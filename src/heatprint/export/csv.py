"""Tables for a spreadsheet.

    points.csv           the map: one row per clean or attacked image
    strategies.csv       one row per clean image: its strategy
    cards.csv            one row per strategy
    flows-<attack>.csv   one row per strategy of the clean maps, one column "to ..." per strategy of the attacked maps

Files are UTF-8 with a byte-order mark, without which Excel takes them for another encoding. What is not known (NaN,
none) is empty. A text that begins like a formula (``= + - @``, also in full width, tab or line break) gets an
apostrophe in front, which spreadsheets show as text: an id such as ``=cmd()`` must not be carried out by whoever opens
the file. Numbers never get one. Every cell is quoted, so that no id falls apart where cells are separated otherwise.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from heatprint.runs.finished import Finished

FORMULA = tuple("=+-@＝＋－＠\t\r\n")  # the second four are in full width
IN_STRATEGIES = ("id", "label", "predicted", "strategy")
FIRST = ("name", "class", "strategy", "images", "clean", "attacked", "difference")  # columns of a card or a flow


def write_csv(run: Finished, out: Path) -> None:
    """Write the tables into a folder; a table without rows is left out."""
    _table(out / "points.csv", _rows(run.points))
    _table(out / "strategies.csv", _rows({name: run.images[name] for name in IN_STRATEGIES}))
    _table(out / "cards.csv", [_named_first(dict(_flat(card))) for card in run.atlas.get("cards") or []])
    for attack, flow in (run.atlas.get("flows") or {}).items():
        _table(out / f"flows-{attack}.csv", _flow(flow))


def _flow(flow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per strategy: its counts, its classes, and where its images went."""
    names = [strategy["name"] for strategy in flow["strategies"]]
    return [
        _named_first(dict(_flat(strategy))) | {f"to {name}": count for name, count in zip(names, counts, strict=True)}
        for strategy, counts in zip(flow["strategies"], flow["matrix"], strict=True)
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as ``outer.inner`` columns."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _named_first(row: dict[str, Any]) -> dict[str, Any]:
    """The same with the columns that say what it is in front: ``metrics.json`` is sorted by name."""
    return {name: row[name] for name in FIRST if name in row} | row


def _rows(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))  # a card may lack what another one has
    with path.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as stream:
        table = csv.writer(stream, quoting=csv.QUOTE_ALL)
        table.writerow([_cell(name) for name in columns])
        table.writerows([_cell(row.get(name)) for name in columns] for row in rows)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text
