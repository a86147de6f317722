"""Several processes that train one network, as torchrun starts them: each on its share of every batch."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from heatprint.core.errors import EngineError, InvalidInput, Unsupported
from heatprint.models.wrap import BATCH_NORMS

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, e.g. while one reads its images from a slower disk. A process that dies is
noticed at once, by torchrun."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of one training, seen from one of them.

    Attributes:
        rank: Which of them this is, in [0, size). Rank 0 writes files and shows progress.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The images of a batch of `count` that are this process's; shares differ by one image at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def check(self, network: nn.Module) -> None:
        """Refuse a network that these processes cannot train as one would.

        Raises:
            Unsupported: Batch norm on the CPU, where PyTorch cannot measure a batch across processes.
        """
        normed = [name for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)]
        if normed and self.size > 1 and self.device.type == "cpu":
            raise Unsupported(
                f"train: the network has batch norm ({normed[0]}), which {self.size} processes can compute together "
                "on GPUs only. Train it in one process (without torchrun), on GPUs, or take a network without it."
            )

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network with the same weights, whose gradients are averaged over the processes.

        Batch norm becomes `SyncBatchNorm`, which measures the whole batch; the network given keeps its own modules
        and follows, for its weights and buffers are shared. Alone, it is returned as it is.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(synchronised(network))

    def weighed(self, loss: Tensor, logits: Tensor, count: int) -> Tensor:
        """The mean loss of this share as its part in the mean of all `count` images of the batch.

        The processes' gradients are averaged with equal weights, whatever their shares are. Without any image the loss
        is 0, and still takes part in the averaging.
        """
        if self.size == 1:
            return loss
        return loss * (self.size * len(logits) / count) if len(logits) else logits.sum()

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agrees(self, text: str) -> bool:
        """Whether all processes came here with the same text."""
        if self.size == 1:
            return True
        code = torch.tensor(list(hashlib.blake2b(text.encode(), digest_size=16).digest()), device=self.device)
        low, high = code.clone(), code.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        return torch.equal(low, high)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def synchronised(network: nn.Module) -> nn.Module:
    """The network with `SyncBatchNorm` for batch norm, over the very weights and buffers of the one given."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network, shared))  # type: ignore[no-untyped-call]
    return twin


ALONE = World(device=torch.device("cpu"))


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started this one among, until the end of the block; without torchrun, this one alone.

    They speak NCCL on GPUs, one GPU each, and gloo on the CPU.

    Args:
        device: The kind of device to compute on; of GPUs each process takes the one of its local rank.

    Raises:
        InvalidInput: More processes on this machine than it has GPUs, or they were not started by torchrun.
        EngineError: Another of them died.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=device)
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InvalidInput(
            f"train: WORLD_SIZE = {size} asks for so many processes, but {', '.join(missing)} are not set. Start them "
            "with torchrun, or unset WORLD_SIZE for one."
        )
    if device.type == "cuda":
        device = _own_gpu()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE,
                            device_id=device if device.type == "cuda" else None)  # fmt: skip
    try:
        yield World(rank=dist.get_rank(), size=size, device=device)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise EngineError(
            f"train: another of the {size} processes has ended, so this one ends, too. The same command goes on after "
            "the last finished epoch."
        ) from error
    finally:
        dist.destroy_process_group()


def _own_gpu() -> torch.device:
    """The GPU of this process, which ``"cuda"`` means from now on."""
    here, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if here >= gpus:
        raise InvalidInput(
            f"train: process {here + 1} on this machine has no GPU of its own, for torch sees {gpus}. "
            f"Start at most so many: torchrun --nproc-per-node {gpus}."
        )
    torch.cuda.set_device(here)
    return torch.device("cuda", here)
