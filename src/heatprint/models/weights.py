"""Weights from files, also from strangers: safetensors, or pickles of which nothing but tensors is ever made."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from heatprint.core.errors import UnreadableData
from heatprint.core.reading import require_regular

SLACK = 1_000_000  # bytes by which the entries of a zip archive may exceed the file: torch packs nothing
BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, MemoryError, EOFError,
          ArithmeticError, AssertionError, ImportError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
          SafetensorError)  # fmt: skip
"""What torch raises on damaged checkpoints, by format and place of the damage."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Names to tensors, on the CPU.

    Args:
        path: A ``.safetensors`` file, or one of `torch.save`, which is unpickled with ``weights_only=True``: whatever
            is no tensor in it is refused before it is made.

    Raises:
        UnreadableData: It is missing, no file, damaged, holds anything but weights, or claims more than it has.
    """
    try:
        require_regular(path)
        state = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FileNotFoundError as error:
        raise UnreadableData(f"load: there is no file {path}.") from error
    except BROKEN as error:
        raise UnreadableData(
            f"load: {path} cannot be read as weights ({type(error).__name__}: {str(error)[:200]}). "
            "Give a .safetensors file or a state_dict saved by torch.save; whole pickled models are refused."
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and _plain(v) for k, v in state.items()):
        raise UnreadableData(f"load: {path} holds no state_dict (names to plain tensors of real numbers).")
    return dict(state)


def _unpickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
        if claimed > path.stat().st_size + SLACK:
            raise ValueError(f"it would unpack to {claimed:,} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of pickle protocols that it then reads or refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain(value: object) -> bool:
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        and not value.is_quantized and not value.is_complex() and not value.is_nested
    )  # fmt: skip
