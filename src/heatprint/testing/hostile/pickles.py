"""Checkpoints that would run something: every file, unpickled without care, makes the file `trace`.

Under the names of weights, of learners and of arrays, since a file is what is in it and not what it is called.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatprint.testing.hostile.images import Case


class Runs:
    """Unpickled, it makes a file.

    Args:
        trace: The file.
    """

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (str(self.trace), "w"))


def checkpoints(trace: Path) -> Iterator[Case]:
    """Files for the door that takes weights; none may be loaded, and the trace must not be there afterwards."""
    bad = Runs(trace)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield _case(f"protocol {protocol}.pt", pickle.dumps(bad, protocol))
    for name, value in {
        "object": bad,
        "state": {"state_dict": bad},
        "tensor beside": {"weight": torch.zeros(2), "bias": bad},
        "ordered": OrderedDict(weight=bad),
        "deep": [[[[bad]]]],
        "key": {(bad,): torch.zeros(1)},
        "module": torch.nn.Linear(2, 2),
    }.items():
        for packed in (True, False):
            sink = io.BytesIO()
            torch.save(value, sink, _use_new_zipfile_serialization=packed)
            yield _case(f"{name}, {'packed' if packed else 'legacy'}.pth", sink.getvalue())
    for name, program in _programs(str(trace)).items():
        yield _case(f"{name}.bin", program)
        yield _case(f"{name}, packed.pt", _packed(program))
    yield _case("called.safetensors", pickle.dumps(bad))
    yield _case("numpy.pt", _numpy(bad))
    for name, content in _claims().items():
        yield _case(f"{name}.pt", content)


def _case(name: str, content: bytes) -> Case:
    return Case(name=name, content=content, refused=True)


def _programs(trace: str) -> dict[str, bytes]:
    """Pickles written by hand: other ways to name what is called, and to call it."""
    touch = f"touch '{trace}'"
    made = f"open({trace!r}, 'w')"
    calls = {
        "system": ("os", "system", touch), "posix": ("posix", "system", touch), "exec": ("builtins", "exec", made),
        "eval": ("builtins", "eval", made), "old eval": ("__builtin__", "eval", made), "code": ("code", "interact", ""),
        "runpy": ("runpy", "run_path", trace), "popen": ("subprocess", "getoutput", touch),
        "torch": ("torch", "load", trace), "numpy": ("numpy", "load", trace), "timeit": ("timeit", "timeit", made),
        "jit": ("torch.jit", "load", trace), "hub": ("torch.hub", "load", trace),
        "distutils": ("distutils.file_util", "write_file", trace), "pydoc": ("pydoc", "pipepager", touch),
    }  # fmt: skip
    programs = {}
    for name, (module, function, argument) in calls.items():
        said = argument.encode()
        programs[name] = b"c%s\n%s\n(S%s\ntR." % (module.encode(), function.encode(), repr(argument).encode())
        stacked = b"".join(b"\x8c" + bytes([len(one)]) + one.encode() for one in (module, function))
        programs[f"{name}, stacked"] = (
            b"\x80\x04" + stacked + b"\x93X" + struct.pack("<I", len(said)) + said + b"\x85R."
        )
        programs[f"{name}, instance"] = b"(S%s\ni%s\n%s\n." % (
            repr(argument).encode(),
            module.encode(),
            function.encode(),
        )
    return programs


def _packed(program: bytes) -> bytes:
    """A pickle in the archive that `torch.save` makes."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)
    return sink.getvalue()


def _numpy(value: object) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([value], dtype=object), allow_pickle=True)
    return sink.getvalue()


def _claims() -> dict[str, bytes]:
    """Checkpoints that run nothing, but claim more than there is, or unpack to much more than they are."""
    whole = io.BytesIO()
    torch.save({"weight": torch.zeros(8)}, whole)
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, bytes(200_000_000) if "/data/" in name else content)
    nested = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    long = b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x."
    number = b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01."
    return {
        "bomb": bomb.getvalue(), "nested": nested, "nested, packed": _packed(nested), "long": long,
        "long, packed": _packed(long), "number": number, "number, packed": _packed(number),
        "empty": b"", "half": whole.getvalue()[: len(whole.getvalue()) // 2], "list": pickle.dumps([1, 2, 3]),
    }  # fmt: skip
