"""Files of a run folder, of a model and of a recipe as somebody else may write them: JSON, TOML, arrays, rows."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

DEEP = 100_000
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1e308, "", "x", "../..", "\ud800", "nan", [], {}, [[]], [None], {"": None}, ["x"] * 3,
)  # fmt: skip
"""What may stand in JSON where something else should."""


def texts() -> Mapping[str, bytes]:
    """What is no JSON, or JSON that nobody means."""
    return {
        "empty": b"", "open": b"{", "null": b"null", "list": b"[]", "number": b"5", "text": b'"x"', "object": b"{}",
        "nested list": b"[" * DEEP + b"]" * DEEP, "nested object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "not a number": b'{"schema": NaN}', "infinite": b'{"schema": Infinity}', "overflowing": b'{"schema": 1e999}',
        "long number": b'{"schema": ' + b"9" * 10_000 + b"}", "large number": b'{"schema": ' + b"9" * 400 + b"}",
        "no text": b"\xff\xfe\x00\xd8", "zeros": bytes(100), "wide": '{"schema": 1}'.encode("utf-16"),
        "marked": b"\xef\xbb\xbf{}", "surrogate": b'{"schema": "\\ud800"}', "twice": b'{"schema": 1, "schema": []}',
        "markup": b"<html>", "pickle": b"\x80\x04\x95", "pairs": b'[["key", 1], ["files", 2]]',
    }  # fmt: skip


def retyped(document: Any, most: int = 400) -> Iterator[tuple[str, bytes]]:
    """A JSON document with one value in turn replaced by another kind, left out, or repeated under another name."""
    places = list(_places(document))
    step = max(1, len(places) * len(ODD) // most)
    odd = [(place, value) for place in places for value in ODD][::step]
    for place, value in odd:
        yield f"{'.'.join(map(str, place))} = {str(value)[:10]!r}", json.dumps(_with(document, place, value)).encode()
    for place in places[:: max(1, len(places) // 50)]:
        if place:
            yield f"{'.'.join(map(str, place))} left out", json.dumps(_without(document, place)).encode()


def recipes(text: str) -> Iterator[tuple[str, bytes]]:
    """A recipe with one value in turn replaced, and what is no recipe at all.

    Args:
        text: A valid one.
    """
    for name, content in texts().items():
        yield name, content
    deep = "[" * 5000 + "]" * 5000
    odd = ("true", "-1", "0", "1e999", "nan", "-inf", "9" * 5000, "99999999999999999999", '""', '"x"', '"../.."', "[]",
           "{}", "[[]]", "[0, 0, 0]", deep, "1979-05-27", '"""' + "x" * 10_000 + '"""', "{ a = 1 }", '"1/0"',
           '"\\u0000"')  # fmt: skip
    lines = text.splitlines()
    for number, line in enumerate(lines):
        name, equals, _ = line.partition(" = ")
        for value in odd if equals else ():
            yield (
                f"{name} = {value[:20]}",
                "\n".join([*lines[:number], f"{name} = {value}", *lines[number + 1 :]]).encode(),
            )
        yield f"{name} twice", "\n".join([*lines[:number], line, *lines[number:]]).encode()
        yield f"{name} left out", "\n".join([*lines[:number], *lines[number + 1 :]]).encode()
    yield "a field too many", f"surprise = 1\n{text}".encode()
    yield "long", b"#" * 2_000_000
    yield "dotted", ("a" + ".a" * 5000 + " = 1\n" + text).encode()
    yield "tables", "".join(f"[t{n}]\n" for n in range(20_000)).encode()


def arrays() -> Mapping[str, bytes]:
    """Safetensors that are none: lengths, offsets, shapes and types that do not belong together."""
    whole = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})

    def file(header: object, body: bytes = bytes(24), length: int | None = None) -> bytes:
        told = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(told) if length is None else length) + told + body

    def one(**other: Any) -> dict[str, Any]:
        return {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **other}}

    return {
        "empty": b"", "short": b"\0" * 7, "half": whole[: len(whole) // 2], "tail": whole + b"\0",
        "zip": b"PK\3\4" + whole, "long header": file(one(), length=2**63), "longer header": file(one(), length=2**40),
        "header beyond": file(one(), length=500), "no header": file(b"", b""), "no json": file(b"{" * 40),
        "nested": file(b'{"a":' * 20_000), "list": file([]), "names": file({"a": []}), "number": file({"a": 1}),
        "dtype": file(one(dtype="F31")), "no dtype": file(one(dtype=None)), "object": file(one(dtype="object")),
        "bfloat": file(one(dtype="BF16", shape=[12])), "float 8": file(one(dtype="F8_E4M3", shape=[24])),
        "beyond": file(one(data_offsets=[0, 2**40])), "backwards": file(one(data_offsets=[24, 0])),
        "negative": file(one(data_offsets=[-24, 0])), "shape": file(one(shape=[2**31, 2**31])),
        "negative shape": file(one(shape=[-2, -3])), "many": file(one(shape=[1] * 10_000)),
        "overflow": file(one(shape=[2**62, 4])), "gap": file(one(data_offsets=[1, 25]), bytes(25)),
        "overlapping": file({**one(), "b": one()["a"]}), "not all": file(one(), bytes(48)),
        "surrogate": file({"\ud800": one()["a"]}), "metadata": file({**one(), "__metadata__": {"key": [1]}}),
        "others": save({"b": np.zeros(3)}), "none": save({}),
    }  # fmt: skip


def rows(columns: Sequence[str] = ("id", "image")) -> Mapping[str, bytes]:
    """Parquet files that are none, or have other columns than expected.

    Args:
        columns: That a reader expects; here they hold other types.
    """
    whole = _parquet({name: ["a", "b"] for name in columns})
    huge = pa.table({columns[0]: pa.DictionaryArray.from_arrays(pa.array([0] * 100_000), ["x" * 1000])})
    claims = bytearray(whole)
    at = len(claims) - 8 - struct.unpack("<I", claims[-8:-4])[0]
    for place in range(at, at + 40):  # of the footer, where it says how many rows there are
        claims[place] |= 0x80
    return {
        "empty": b"", "magic": b"PAR1", "magics": b"PAR1" * 3, "half": whole[: len(whole) // 2], "text": b"id\na\n",
        "footer": whole[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1", "claims": bytes(claims),
        "no columns": _parquet({"other": [1]}),
        "no rows": _parquet({name: pa.array([], pa.string()) for name in columns}),
        "numbers": _parquet({name: [1.5, None] for name in columns}),
        "nulls": _parquet({name: pa.nulls(2) for name in columns}),
        "lists": _parquet({name: [["a"], []] for name in columns}),
        "structs": _parquet({name: [{"bytes": b"x"}, None] for name in columns}),
        "bytes": _parquet({name: [b"\xff\xfe", b""] for name in columns}), "large": _parquet(huge),
    }  # fmt: skip


def _parquet(table: pa.Table | Mapping[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(dict(table)), sink, compression="zstd")
    return sink.getvalue()


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, one in inside:
        yield from _places(one, (*above, name))


def _with(value: Any, place: Sequence[Any], other: Any) -> Any:
    if not place:
        return other
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _with(copy[place[0]], place[1:], other)
    return copy


def _without(value: Any, place: Sequence[Any]) -> Any:
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = _without(copy[place[0]], place[1:])
    return copy
