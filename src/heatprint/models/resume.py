"""The state of an unfinished training, kept after every epoch in one atomic safetensors file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from heatprint.core.digest import digest
from heatprint.core.reading import parse_json, require_regular
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


def stage_file(checkpoint: Path, name: str) -> Path:
    """Where one of several trainings that share a checkpoint keeps its own state."""
    return checkpoint.with_stem(f"{checkpoint.stem}.stage-{name}")


def discard(checkpoint: Path) -> None:
    """Remove a kept state and those of its stages, when what they led to is safe."""
    for path in checkpoint.parent.glob(stage_file(Path(escape(checkpoint.name)), "*").name):
        path.unlink(missing_ok=True)
    checkpoint.unlink(missing_ok=True)


UNFINISHED = "unfinished.safetensors"  # beside the files of a model that is being made
HISTORY = TypeAdapter(list[Epoch])


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
    notes = json.loads(json.dumps({"key": key, "history": [dataclasses.asdict(e) for e in history]}))
    told = json.dumps(notes | {"print": digest(notes, tensors)}, sort_keys=True)
    write_atomic(path, save(tensors, metadata={"state": told}))  # one entry: of several the order is any


def load_state(
    path: Path, key: str, network: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Put a kept state back, and return the finished epochs and the best weights.

    There is nothing to return, and nothing is put back, when the file is missing, torn, altered, of another key or of
    others.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            notes = parse_json((file.metadata() or {})["state"])
            if notes["key"] != key:
                return [], {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        if notes.pop("print", "") != digest(notes, tensors):
            return [], {}
        history = HISTORY.validate_python(notes["history"])
        weights, best = _parts(tensors, "network."), _parts(tensors, "best.")
        steps = _steps(tensors, optimiser)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return [], {}
    if not _fits(network, weights) or (best and not _fits(network, best)):
        return [], {}
    network.load_state_dict(weights)
    optimiser.load_state_dict(optimiser.state_dict() | {"state": steps})
    return history, best


def _parts(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _fits(network: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == weights.keys() and all(own[name].shape == weights[name].shape for name in own)


def _steps(tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """What an optimiser knows of each of its weights.

    Raises:
        ValueError: It is of others.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    steps: dict[int, dict[str, Tensor]] = {}
    for name, value in _parts(tensors, "optimiser.").items():
        index, _, field = name.partition(".")
        if not 0 <= int(index) < len(weights) or value.shape not in ((), weights[int(index)].shape):
            raise ValueError(f"{name} is of other weights")
        steps.setdefault(int(index), {})[field] = value
    return steps
