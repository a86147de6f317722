"""Splits by hash of the id: an image keeps its part for ever, whatever is added, removed or reordered.

Attacked copies carry the id of their source (`Batch.with_pixels`), so they follow it by construction: no
detector can ever be fitted on a copy of an image it is tested on.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.values import Batch

ROLES = ("train", "fit", "calibrate", "test")


def split(ids: Sequence[str], shares: Mapping[str, float], *, salt: str = "") -> dict[str, Tensor]:
    """Rows of each part.

    Args:
        ids: Image ids.
        shares: Part name to share, e.g. ``{"train": 0.7, "fit": 0.1, "calibrate": 0.1, "test": 0.1}``;
            they must add up to 1.
        salt: Another salt gives an independent split.

    Returns:
        Part name to int64 row indices, in the order of `ids`. Each row is in exactly one part.
    """
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or abs(total - 1) > 1e-9:
        raise InvalidInput(f"split: shares must be non-negative and add up to 1, got {dict(shares)} = {total:g}.")
    parts, edges = list(shares), list(accumulate(shares.values()))
    rows: dict[str, list[int]] = {name: [] for name in shares}
    for row, name in enumerate(ids):
        inside = bisect_right(edges, _unit(salt, name))
        rows[parts[min(inside, len(parts) - 1)]].append(row)  # the last part takes what rounding leaves
    return {part: torch.tensor(found, dtype=torch.long) for part, found in rows.items()}


def sample(batch: Batch, count: int | None) -> Tensor:
    """At most `count` rows, in equal shares of the classes, chosen by hash of id: no seed, no order matters."""
    if count is None or count >= len(batch):
        return torch.arange(len(batch))
    rank = sorted(range(len(batch)), key=lambda row: hashlib.blake2b(batch.ids[row].encode()).digest())
    labels = batch.labels.tolist()
    kinds = sorted(set(labels))
    shares = {kind: count // len(kinds) + (place < count % len(kinds)) for place, kind in enumerate(kinds)}
    kept = [row for kind in kinds for row in [r for r in rank if labels[r] == kind][: shares[kind]]]
    return torch.tensor(sorted(kept), dtype=torch.long)


def _unit(salt: str, name: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    h = hashlib.blake2b(f"{salt}\x1f{name}".encode(), digest_size=8).digest()
    return int.from_bytes(h, "big") / 2**64
