"""The state of an unfinished training, kept after every epoch in one atomic safetensors file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from heatprint.core.store import write_atomic


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Loss and accuracy of one epoch on the augmented training images, and what was measured after it."""

    epoch: int
    size: int
    loss: float
    accuracy: float
    measured: Mapping[str, float] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """For a card: without what was not measured."""
        return {name: value for name, value in vars(self).items() if name != "measured" or value}


def save_state(
    path: Path,
    key: str,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: Sequence[Epoch],
    best: Mapping[str, Tensor],
) -> None:
    """Replace the file by the state after the last epoch of `history`, and the best weights so far."""
    tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"best.{k}": v.detach().cpu().contiguous() for k, v in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value.detach().cpu().contiguous()
    notes = {"key": key, "history": json.dumps([dataclasses.asdict(e) for e in history])}
    write_atomic(path, save(tensors, metadata=notes))


def load_state(
    path: Path, key: str, network: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Put a kept state back, and return the finished epochs and the best weights.

    There is nothing to return when the file is missing, torn or of another key.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            if notes.get("key") != key:
                return [], {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (OSError, SafetensorError):
        return [], {}
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    return [Epoch(**row) for row in json.loads(notes["history"])], best
