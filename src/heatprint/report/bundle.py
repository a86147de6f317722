"""Our scripts as one: a page that is opened from a file may not fetch the modules that a server sends one by one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from importlib.resources import files

STATIC = files("heatprint.report") / "static"
IMPORT = re.compile(r'^import \{([^}]*)\} from "([a-z0-9_./]+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function |const |let |class )", re.MULTILINE)
NAMED = re.compile(r"^export (?:async )?(?:function\*?|const|let|class) ([A-Za-z0-9_$]+)", re.MULTILINE)


def bundled(entry: str) -> str:
    """A module and all it imports, each in a scope of its own, in the order they need one another.

    Knows the forms our modules keep to: ``import { a, b } from "./x.js";`` and ``export function``, ``const``,
    ``class``.

    Args:
        entry: Path of the module in the folder of scripts, without ``.js``.

    Raises:
        ValueError: A module keeps to other forms, or they import one another in a circle.
    """
    done: dict[str, str] = {}
    _add(entry, done, ())
    return '"use strict";\n' + "\n".join(done.values())


def styles(names: Sequence[str]) -> str:
    """Style sheets, one after the other."""
    return "\n".join((STATIC / f"{name}.css").read_text(encoding="utf-8") for name in names)


def _add(name: str, done: dict[str, str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"scripts import one another in a circle: {' '.join((*above, name))}")
    if name in done:
        return
    text = (STATIC / f"{name}.js").read_text(encoding="utf-8")

    def found(path: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))

    def taken(match: re.Match[str]) -> str:
        return f"const {{{re.sub(r' as ', ': ', match.group(1))}}} = {_scope(found(match.group(2)))};\n"

    for _, path in IMPORT.findall(text):
        _add(found(path), done, (*above, name))
    names = ", ".join(NAMED.findall(text))
    body = EXPORT.sub("", IMPORT.sub(taken, text))
    if re.search(r"^\s*(import|export)\b", body, re.MULTILINE):
        raise ValueError(f"{name}.js imports or exports in a form that is not known here")
    done[name] = f"const {_scope(name)} = (() => {{\n{body}\nreturn {{ {names} }};\n}})();"


def _scope(name: str) -> str:
    return "module_" + name.replace("/", "_")
