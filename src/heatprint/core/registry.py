"""Registries: from a name to a method, without importing what is not asked for.

A room keeps one table, ``{"fgsm": "heatprint.attacks.fgsm:FGSM", ...}``. Another package adds a line of the
same grammar as an entry point in the group ``heatprint.<room>``; its methods then appear everywhere ours do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast, get_type_hints

from heatprint.core.errors import InvalidInput, UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """The methods of one room.

    Args:
        room: The room's name, e.g. ``"attacks"``; also names the entry point group.
        table: ``{name: "module:Class"}``; each class is a frozen dataclass whose fields are its settings.
    """

    def __init__(self, room: str, table: Mapping[str, str]) -> None:
        self.room = room
        self._table = dict(table)

    @cached_property
    def _targets(self) -> dict[str, str]:
        found = {point.name: point.value for point in entry_points(group=f"heatprint.{self.room}")}
        for name in found.keys() & self._table.keys():
            raise InvalidInput(
                f"{self.room}: an installed package registers {name!r} ({found[name]}), "
                f"which heatprint has already. Rename its entry point."
            )
        return self._table | found

    def names(self) -> list[str]:
        """Every known name, sorted; plug-ins included."""
        return sorted(self._targets)

    def load(self, name: str) -> type[T]:
        """The class behind a name.

        Raises:
            UnknownName: With the nearest known name.
        """
        if name not in self._targets:
            raise UnknownName(f"{self.room}: the name", name, self._targets)
        module, _, attribute = self._targets[name].partition(":")
        return cast("type[T]", getattr(import_module(module), attribute))

    def make(self, name: str, **settings: Any) -> T:
        """A method by name, with settings checked against its fields.

        Text such as ``"8/255"`` is accepted where the field is a pixel level.

        Raises:
            UnknownName: No such method, or no such setting; the nearest one is named.
            InvalidInput: A setting has the wrong type or is out of range.
        """
        return validated(f"{self.room}: {name!r}", self.load(name), settings)


def validated(who: str, kind: type[T], settings: Mapping[str, Any]) -> T:
    """A dataclass from settings that may come from a file: names, types and ranges are checked, also nested ones.

    Args:
        who: Begins the message of an error.
        kind: A dataclass.
        settings: Field names to values; a nested dataclass is given as a mapping.

    Raises:
        UnknownName: A field that does not exist; the nearest one is named.
        InvalidInput: A value of the wrong type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError  # a third of a second that listing names can do without

    _check_names(who, kind, settings)
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'settings'} = {e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise InvalidInput(f"{who}: {wrong}") from error


def _check_names(who: str, kind: type[Any], settings: Mapping[str, Any]) -> None:
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    types = get_type_hints(kind)
    for name, value in settings.items():
        if name not in known:
            raise UnknownName(f"{who}: the setting", name, known)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(types[name]):
            _check_names(f"{who}.{name}", cast("type[Any]", types[name]), value)
