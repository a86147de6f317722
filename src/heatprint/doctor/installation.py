"""What `heatprint doctor` finds: the installation, the device, room to work in, and what the extras lack."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("explain", "hub", "web", "ray", "remote", "export", "test", "bench", "torchattacks")


def findings() -> list[tuple[str, str]]:
    """Pairs of a topic and what was found."""
    return [
        ("heatprint", version("heatprint")),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_package(r) for r in _requirements(None)),
        *_devices(),
        ("memory free", _memory()),
        ("disk free", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB here"),
        *((f"extra [{extra}]", _extra(extra)) for extra in EXTRAS),
    ]


def _requirements(extra: str | None) -> list[Requirement]:
    wanted = [Requirement(text) for text in requires("heatprint") or []]
    if extra is None:
        return [r for r in wanted if r.marker is None]
    return [r for r in wanted if r.marker and not r.marker.evaluate() and r.marker.evaluate({"extra": extra})]


def _package(requirement: Requirement) -> tuple[str, str]:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return requirement.name, f"MISSING: python -m pip install '{requirement.name}{requirement.specifier}'"
    if found not in requirement.specifier:
        return requirement.name, f"{found}, but {requirement.specifier} is needed"
    return requirement.name, found


def _extra(extra: str) -> str:
    missing = [r.name for r in _requirements(extra) if "MISSING" in _package(r)[1]]
    if not missing:
        return "complete"
    return f"lacks {', '.join(missing)}: python -m pip install 'heatprint[{extra}]'"


def _devices() -> list[tuple[str, str]]:
    import torch

    found = [("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads")]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append((f"cuda:{index}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    return found if torch.cuda.is_available() else [*found, ("cuda", "none: studies run on the CPU")]


def _memory() -> str:
    try:
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return "unknown on this system"
    return f"{pages * size / 2**30:.1f} GiB"
