"""Where in a TOML text a field stands, for messages; tomllib does not say."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+)\s*=")


def line_of(text: str, loc: Sequence[str | int]) -> int | None:
    """The line, counted from 1, of a field such as ``("attacks", 1, "test")``, or of the table it is in."""
    places: dict[tuple[str | int, ...], int] = {}
    counts: dict[str, int] = {}
    table: tuple[str | int, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := HEADER.match(line):
            names = _split(header[2])
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                table = (*names, counts[header[2]])
            else:
                head = names[0]
                table = (head, counts[head], *names[1:]) if head in counts else names
            places.setdefault(table, number)
        elif key := KEY.match(line):
            places.setdefault((*table, *_split(key[1])), number)
    wanted = tuple(loc)
    while wanted and wanted not in places:
        wanted = wanted[:-1]
    return places.get(wanted)


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
