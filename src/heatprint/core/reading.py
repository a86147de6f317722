"""Files that others wrote: opened without waiting, read up to a limit, and made into plain values; nothing runs.

A path may name a pipe, on which opening waits for ever, a device without an end, or a file that grows. Text may be
nested until the parser's stack ends, or hold numbers that no number is. Everything here ends with an `OSError` or a
`ValueError`, which every reader of a file expects anyway.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heatprint.core.errors import HeatprintError

MOST_TEXT = 64_000_000  # bytes of a JSON file: a run that names a million skipped images is below
MOST_RECIPE = 200_000  # bytes of a TOML file: somebody wrote it by hand
MOST_DOTS = 1000  # in a line of TOML: keys within keys take time by their square
NOT_REGULAR, TOO_LARGE = errno.EINVAL, errno.EFBIG
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, invisible marks, lone surrogates, separators of lines


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file; links are followed.

    Args:
        path: The file.
        most: Bytes it may have.

    Raises:
        OSError: There is none, or it cannot be opened; `NOT_REGULAR` for a folder, pipe, socket or device;
            `TOO_LARGE` for one of more bytes.
    """
    require_regular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # nor wait, should it be another file by now
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        _require_regular(facts, path)
        content = stream.read(most + 1) if facts.st_size <= most else b""
    if max(facts.st_size, len(content)) > most:
        raise OSError(TOO_LARGE, f"more than {most:,} bytes", os.fspath(path))
    return content


def require_regular(path: Path) -> None:
    """Refuse what is no regular file before it is opened: opening a pipe waits, opening a device may do something.

    Raises:
        OSError: `NOT_REGULAR`, or there is nothing.
    """
    _require_regular(path.stat(), path)


def read_json(path: Path) -> Any:
    """A JSON file as plain values.

    Raises:
        OSError: As `read_regular`.
        ValueError: As `parse_json`.
    """
    return parse_json(read_regular(path, MOST_TEXT))


def parse_json(content: bytes | str) -> Any:
    """JSON as plain values.

    Raises:
        ValueError: It is not JSON, nested too deeply, or has NaN or Infinity, which JSON does not know.
    """
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values.

    Raises:
        OSError: As `read_regular`.
        ValueError: As `parse_toml`, or it is not UTF-8.
    """
    return parse_toml(read_regular(path, MOST_RECIPE).decode())


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain values.

    Raises:
        ValueError: It is not TOML, has a number of thousands of digits, or is nested too deeply.
    """
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@contextmanager
def fitting_together(told: Callable[[str], HeatprintError], *others: type[Exception]) -> Iterator[None]:
    """What is raised, inside, where something a file should hold is missing or of another kind, as what it means.

    Args:
        told: The error to raise, from what did not fit.
        others: More exceptions that mean it.

    Raises:
        HeatprintError: As told; those that are raised inside go on.
    """
    unfit: tuple[type[Exception], ...] = (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        *others,
    )
    try:
        yield
    except HeatprintError:
        raise
    except unfit as error:
        raise told(f"{type(error).__name__}: {spelled(str(error))[:200]}") from error


def spelled(text: str) -> str:
    r"""A name or message from outside as one line that shows what is in it; different texts stay different.

    Bytes that are not UTF-8, control characters and invisible marks are spelled out, and a backslash is doubled:
    what is printed can neither move the cursor nor pass for another name.
    """
    return "".join(map(_spelled, text))


def _spelled(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in HIDDEN:
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character


def _require_regular(facts: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(NOT_REGULAR, "not a regular file", os.fspath(path))


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
