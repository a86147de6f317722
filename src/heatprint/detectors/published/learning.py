"""What the detectors that train something share: the clean part, seeded small networks, and weights kept as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.detectors.door import FEWEST
from heatprint.detectors.examples import CLEAN, Examples

M = TypeVar("M", bound=nn.Module)


def clean_rows(who: str, examples: Examples) -> np.ndarray:
    """Rows of the images nothing was done to: neither attacked nor changed benignly.

    Raises:
        InvalidInput: Too few of them.
    """
    rows = np.flatnonzero(np.asarray(examples.names) == CLEAN)
    if len(rows) < FEWEST:
        raise InvalidInput(
            f"{who}: {len(rows)} of {len(examples)} images are clean; {FEWEST} or more are needed. Add the images that "
            f"were attacked, as they were before, with the name {CLEAN!r}."
        )
    return rows


def check_training(who: str, *, steps: int, batch: int, rate: float) -> None:
    """Refuse settings no training can run with.

    Raises:
        InvalidInput: With what to write instead.
    """
    if steps < 1 or batch < 2 or not 0 < rate < math.inf:
        raise InvalidInput(
            f"{who}: steps = {steps} must be 1 or more, batch = {batch} 2 or more and rate = {rate} a positive number; "
            "leave them out for the defaults."
        )


def seeded(build: Callable[[], M], seed: int) -> M:
    """A network whose fresh weights depend on the seed alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().to(memory_format=torch.channels_last)  # twice as fast on a CPU


def descend(network: nn.Module, loss: Callable[[int], Tensor], *, steps: int, rate: float, progress: Progress) -> None:
    """Adam with a learning rate that falls to zero along half a cosine; afterwards the network is frozen.

    Args:
        network: Changed in place.
        loss: From the step, 0 to steps - 1, to the loss of that step's batch.
        steps: How many.
        rate: Largest learning rate.
        progress: Told of every step.

    Raises:
        InvalidInput: The training diverged.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    with torch.enable_grad():
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.zero_grad(set_to_none=True)
            loss(step).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            progress(step + 1, steps)
    network.eval().requires_grad_(False)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise InvalidInput(f"{type(network).__name__}: training diverged at rate = {rate}. Write a smaller rate.")


def shuffled(rows: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """So many rows at a time, without end; no row comes again before all others have come."""
    held = np.empty(0, dtype=np.int64)
    while True:
        while len(held) < count:
            held = np.concatenate([held, rng.permutation(rows)])
        yield held[:count]
        held = held[count:]


def as_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Weights and buffers by name, e.g. ``"net.conv1.weight"``."""
    state = network.state_dict()
    return {f"net.{name}": value.detach().cpu().contiguous().numpy().copy() for name, value in state.items()}


def from_arrays(build: Callable[[], M], learned: Mapping[str, np.ndarray], device: torch.device) -> M:
    """The network with the weights that `as_arrays` made of it, frozen and in evaluation mode."""
    with torch.device("meta"):  # without fresh weights, which would cost random numbers of torch's own generator
        network = build()
    state = {name.removeprefix("net."): torch.tensor(value) for name, value in learned.items() if name[:4] == "net."}
    network.load_state_dict(state, assign=True)
    network.to(device)
    network.to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)
