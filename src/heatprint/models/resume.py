"""The state of an unfinished training, kept after every epoch in one atomic safetensors file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from heatprint.core.store import write_atomic


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Loss and accuracy of one epoch on the augmented training images."""

    epoch: int
    size: int
    loss: float
    accuracy: float


def save_state(
    path: Path, key: str, network: nn.Module, optimiser: torch.optim.Optimizer, history: Sequence[Epoch]
) -> None:
    """Replace the file by the state after the last epoch of `history`."""
    tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for field, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{field}"] = value.detach().cpu().contiguous()
    notes = {"key": key, "history": json.dumps([dataclasses.asdict(e) for e in history])}
    write_atomic(path, save(tensors, metadata=notes))


def load_state(path: Path, key: str, network: nn.Module, optimiser: torch.optim.Optimizer) -> list[Epoch]:
    """Put a kept state back and return the finished epochs; nothing when it is missing, torn or of another key."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            if notes.get("key") != key:
                return []
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (OSError, SafetensorError):
        return []
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return [Epoch(**row) for row in json.loads(notes["history"])]
