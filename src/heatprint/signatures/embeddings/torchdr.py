"""UMAP on a graphics card."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heatprint.core.errors import InvalidInput, MissingExtra


@dataclass(frozen=True, kw_only=True)
class TorchDR:
    """UMAP (McInnes et al. 2018, arXiv:1802.03426) by TorchDR, in PyTorch: for a graphics card, without compilation.

    The same idea as ``"umap"``, but another optimiser: the maps of the two look alike and are not equal. It holds
    the distances of all pairs, so it is for as many vectors as the card has room for. TorchDR seeds the generators
    of the whole process; they are put back. `heatprint.signatures.embed` takes duplicates together, and places fewer
    than four different vectors by PCA.

    Attributes:
        neighbours: Size of a neighbourhood, the vector itself included, >= 2; at most two fewer than there are
            vectors are used.
        min_dist: How close points may lie, 0 to 1.
        iterations: Steps of the optimiser, >= 1.
        seed: Of the layout, 0 to 2**32 - 1; equal seeds give equal maps on the CPU.
        device: Where it runs, e.g. ``"cuda"``; ``"auto"`` is a graphics card where there is one.
    """

    neighbours: int = 15
    min_dist: float = 0.1
    iterations: int = 1000
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        valid = self.neighbours >= 2 and 0 <= self.min_dist <= 1 and self.iterations >= 1 and 0 <= self.seed < 2**32
        if not valid:
            raise InvalidInput(
                f"TorchDR: neighbours = {self.neighbours} must be 2 or more, min_dist = {self.min_dist} from 0 to 1, "
                f"iterations = {self.iterations} 1 or more, seed = {self.seed} from 0 to 2**32 - 1."
            )

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Points [N, 2] of different vectors [N, D], N at least 4 and D at least 2.

        Raises:
            MissingExtra: TorchDR is not installed.
        """
        library = _library()
        card = "cuda" if torch.cuda.is_available() else "cpu"
        with _generators_kept():
            fit = library.UMAP(
                n_neighbors=min(self.neighbours, len(vectors) - 2),
                min_dist=self.min_dist,
                max_iter=self.iterations,
                random_state=self.seed,
                device=card if self.device == "auto" else self.device,
                backend=None,
                process_duplicates=False,
            )
            points = fit.fit_transform(torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)))
        return np.asarray(points.detach().cpu(), dtype=np.float64)


def _library() -> Any:
    try:
        import torchdr
    except ImportError as error:
        raise MissingExtra("torchdr", "gpu", "the embedding 'torchdr'") from error
    return torchdr


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Leaves the process's random generators and cuDNN's settings as they were."""
    own, legacy, backend = random.getstate(), np.random.get_state(), torch.backends.cudnn
    deterministic, benchmark = backend.deterministic, backend.benchmark
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(own)
        np.random.set_state(legacy)
        backend.deterministic, backend.benchmark = deterministic, benchmark
