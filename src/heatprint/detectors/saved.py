"""What was learned, on disk: safetensors and JSON, written atomically, the card last. Nothing in them can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from heatprint.core.errors import StoreError
from heatprint.core.store import write_atomic, write_json

SCHEMA = 1


def write(folder: Path, name: str, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """``FOLDER/NAME.json`` and ``FOLDER/NAME.safetensors``."""
    write_atomic(folder / f"{name}.safetensors", save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    write_json(folder / f"{name}.json", {"schema": SCHEMA, **card})


def read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The card and the arrays.

    Raises:
        StoreError: They are missing, damaged or of a newer version.
    """
    try:
        card = json.loads((folder / f"{name}.json").read_bytes())
        arrays = load((folder / f"{name}.safetensors").read_bytes())
        schema = int(card["schema"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"{name}: {folder} holds none that can be read ({error}). Fit it again.") from error
    if schema > SCHEMA:
        raise StoreError(f"{name}: {folder} was written by a newer version. Update heatprint.")
    return card, arrays
