"""What the inspector shows of a run: columns of all images, clean and attacked, and where each picture is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from heatprint.runs.heat import Maps
from heatprint.runs.parts import NOWHERE, Stored
from heatprint.runs.pictures import Pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A run as columns, one row for each point of its map: clean images first, then attacked copies.

    Attributes:
        name: Of the run, for titles.
        facts: Name to value, what stands beside the title.
        classes: Names, in the order of the logits.
        kinds: ``"clean"`` and the attacks, by the names of the run.
        titles: Kind to its name in print.
        strategies: Names of the strategies of the atlas.
        digest: Of all that is shown: what a browser keeps of one run must not be shown for another.
        ids: Source image of each row, an array of text.
        columns: Name to an array with one entry per row: all that a map needs to be drawn.
        more: Further columns, read when they are first asked for.
        broken: What of the run could not be read for them, in words.
        images: PNG of each row, where column ``"pictured"`` is 1.
        signatures: [rows, D], what neighbours are told by; None where the run has none.
        maps: Pooled heat maps.
    """

    name: str
    facts: Mapping[str, str]
    classes: Sequence[str]
    kinds: Sequence[str]
    titles: Mapping[str, str]
    strategies: Sequence[str]
    digest: str
    ids: pa.Array
    columns: Mapping[str, np.ndarray]
    more: Callable[[], Mapping[str, np.ndarray]] = field(default=dict, repr=False)
    broken: Callable[[], Sequence[str]] = field(default=tuple, repr=False)
    images: Pictures = field(repr=False)
    signatures: Stored | None = field(repr=False)
    maps: Maps = field(repr=False)

    def take(self, rows: Sequence[int]) -> Shown:
        """These rows, in this order, with all columns and without signatures; partners not among them are forgotten."""
        index = np.asarray(rows, dtype=np.int64)
        where = np.full(len(self), NOWHERE, dtype="<i4")
        where[index] = np.arange(len(index))
        columns = {name: values[index] for name, values in {**self.columns, **self.more()}.items()}
        pair = columns["pair"]
        columns["pair"] = np.where(pair >= 0, where[pair], NOWHERE).astype("<i4")
        return replace(
            self, ids=self.ids.take(pa.array(index)), columns=columns, more=dict, images=self.images.take(index),
            signatures=None, maps=self.maps.take(index),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    def neighbours(self, row: int, count: int) -> list[tuple[int, float]]:
        """The rows nearest in signature space, other than itself, and their distances.

        Raises:
            StoreError: The signatures cannot be read.
        """
        if self.signatures is None:
            return []
        own = self.signatures.rows(row, row + 1)
        rows, far = np.empty(0, np.int64), np.empty(0, np.float32)
        for start, block in self.signatures.blocks():
            away = np.linalg.norm(block - own, axis=1)
            if start <= row < start + len(block):
                away[row - start] = np.inf
            rows, far = np.append(rows, np.arange(start, start + len(block))), np.append(far, away)
            near = np.argpartition(far, count - 1)[:count] if len(far) > count else np.arange(len(far))
            rows, far = rows[near], far[near]
        order = [place for place in np.lexsort((rows, far)) if np.isfinite(far[place])]
        return [(int(rows[place]), float(far[place])) for place in order]
