"""How much of the machine one computation may take: threads, and images at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from heatprint.core.errors import InvalidInput

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
FULL = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")
"""What PyTorch says where it has no error of its own for a memory that is used up."""
LOST = ("unspecified launch failure", "unknown error", "uncorrectable ECC error", "hardware stack error",
        "no CUDA-capable device", "device(s) is/are busy", "an illegal memory access")  # fmt: skip
"""And for a GPU that does not answer any more; a mistake of the program is none of these."""
_AT_MOST: ContextVar[int | None] = ContextVar("images at a time", default=None)


def images_at_a_time(usual: int) -> int:
    """How many images go through the network at once: what is usual for the device, or fewer where that is too much."""
    limit = _AT_MOST.get()
    return usual if limit is None else max(1, min(usual, limit))


@contextmanager
def at_most(images: int | None) -> Iterator[None]:
    """Let no more than so many images through a network at once, inside."""
    token = _AT_MOST.set(images)
    try:
        yield
    finally:
        _AT_MOST.reset(token)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads, inside: the order of a sum, and so its last bit, depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_threads() -> None:
    """Give Numba as many threads as torch has. Both drive one OpenMP runtime, and Numba's start resets its number.

    What reads parts from a run folder and computes others does this first: else the number, and with it the last bits,
    would change where UMAP is computed, and not where it is read.
    """
    import numba

    count = torch.get_num_threads()
    numba.set_num_threads(max(1, min(count, numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]
    torch.set_num_threads(count)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of the GPU is used up."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


def is_lost_gpu(error: BaseException) -> bool:
    """Whether an error says that the GPU is gone, or broken until the process ends."""
    return isinstance(error, RuntimeError) and any(f"CUDA error: {words}" in str(error) for words in LOST)


def in_bytes(size: str) -> int:
    """A size such as ``"2 GiB"`` or ``"500 MB"``.

    Raises:
        InvalidInput: It is no number with a unit.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", size)
    if not found or float(found[1]) <= 0:
        raise InvalidInput(f"memory = {size!r} is no size. Write a number and a unit: '2 GiB', '500 MB'.")
    return int(float(found[1]) * UNITS[found[2] or ""])
