"""Digests: what a value is, as a short string that is the same in every process.

Used as memo keys (same inputs, same key) and to recognise damaged files. Everything that enters a digest is
spelled out by type; what has no stable spelling (a function, an open file) is refused, because two
different lambdas would otherwise share a key and a stale result would be returned silently.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heatprint.core.errors import InvalidInput

SIZE = 20  # bytes: 160 bits


def digest(*values: Any) -> str:
    """The digest of some values: dataclasses, mappings, sequences, numbers, text, paths, arrays.

    Returns:
        40 hexadecimal digits.

    Raises:
        InvalidInput: A value has no stable spelling.
    """
    h = hashlib.blake2b(digest_size=SIZE)
    for value in values:
        _feed(h.update, value)
    return h.hexdigest()


def content_digest(content: bytes) -> str:
    """The digest of bytes, as `file_digest` has it of a file that holds them."""
    return hashlib.blake2b(content, digest_size=SIZE).hexdigest()


def file_digest(path: Path) -> str:
    """The digest of a file's bytes, 40 hexadecimal digits."""
    h = hashlib.blake2b(digest_size=SIZE)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


def _feed(update: Callable[[bytes | memoryview], None], value: Any) -> None:
    """Spell one value, its type first so that 1, True and "1" differ."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        body = value if isinstance(value, bytes) else repr(value).encode()
        update(f"{type(value).__name__}:{len(body)}:".encode() + body)
    elif isinstance(value, Path):
        _feed(update, str(value))
    elif isinstance(value, np.generic | np.ndarray) or _is_tensor(value):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if _is_tensor(value) else value)
        update(f"array:{array.dtype.str}:{array.shape}:".encode())
        if array.size:
            update(array.reshape(-1).view(np.uint8).data)  # without a copy: it may be larger than the memory
    elif isinstance(value, Mapping):
        update(f"map:{len(value)}:".encode())
        for key in sorted(value, key=repr):
            _feed(update, key)
            _feed(update, value[key])
    elif isinstance(value, tuple | list):
        update(f"list:{len(value)}:".encode())
        for item in value:
            _feed(update, item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        _feed(update, f"{kind.__module__}.{kind.__qualname__}")
        _feed(update, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    else:
        raise InvalidInput(
            f"digest: {type(value).__name__} {value!r} has no stable spelling. "
            "Describe it by a dataclass, a mapping, a sequence, a number, a text or an array."
        )


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.startswith("torch") and hasattr(value, "detach")
