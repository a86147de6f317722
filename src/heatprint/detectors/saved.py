"""What was learned, on disk: safetensors and JSON, written atomically, the card last. Nothing in them can run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from heatprint.core.digest import digest
from heatprint.core.errors import StoreError
from heatprint.core.reading import read_json, read_regular
from heatprint.core.store import write_atomic, write_json

SCHEMA = 1
MOST = 4_000_000_000  # bytes of arrays: a hundred times what any detector keeps


class Card(BaseModel):
    """What stands beside the arrays, in every kind of fitted thing.

    Attributes:
        version: Of the form it is written in.
        arrays: Digest of the arrays; empty where an older version wrote them.
    """

    model_config = ConfigDict(frozen=True)

    version: int = Field(alias="schema")
    arrays: str = ""


C = TypeVar("C", bound=Card)


def write(folder: Path, name: str, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """``FOLDER/NAME.json`` and ``FOLDER/NAME.safetensors``."""
    content = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    write_atomic(folder / f"{name}.safetensors", content)
    write_json(folder / f"{name}.json", {"schema": SCHEMA, "arrays": digest(content), **card})


def read(folder: Path, name: str, kind: type[C]) -> tuple[C, dict[str, np.ndarray]]:
    """The card and the arrays.

    Args:
        folder: Where they are.
        name: Of the two files.
        kind: What the card must hold.

    Raises:
        StoreError: They are missing, damaged or of a newer version.
    """
    try:
        table = read_json(folder / f"{name}.json")
        if isinstance(table, dict) and isinstance(table.get("schema"), int) and table["schema"] > SCHEMA:
            raise StoreError(f"{name}: {folder} was written by a newer version. Update heatprint.")
        card = kind.model_validate(table)
        content = read_regular(folder / f"{name}.safetensors", MOST)
        if card.arrays and card.arrays != digest(content):
            raise ValueError("the arrays are not those that were written")
        return card, load(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        wrong = error.errors() if isinstance(error, ValidationError) else ()
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong) or str(error)
        raise StoreError(f"{name}: {folder} holds none that can be read ({told}). Fit it again.") from error
