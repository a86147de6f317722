"""Random streams that belong to an image, not to a loop.

Counter-based (Philox 4x64, Salmon et al. 2011): the numbers an image draws depend on (seed, image id,
purpose, counter) and on nothing else, so it gets the same adversarial alone, in a batch of 512, in another
order, or after a resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def stream(seed: int, *purpose: str | int, counter: int = 0) -> np.random.Generator:
    """A generator of its own for one purpose.

    Args:
        seed: The seed of the run.
        purpose: What the numbers are for, e.g. ``("one-pixel", "cats/cat.1.jpg")``.
        counter: A step within the purpose (a generation, an epoch). Streams of different counters do not
            overlap: each owns 2**192 draws.

    Returns:
        A numpy generator; equal arguments give equal draws on every machine.
    """
    spelled = "\x1f".join([str(seed), *(str(word) for word in purpose)])
    key = np.frombuffer(hashlib.blake2b(spelled.encode(), digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, counter]))


def torch_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) for libraries that keep a generator of their own (torch, UMAP)."""
    return int(stream(seed, *purpose).integers(2**63))


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The random streams of a batch of images, one per id.

    Attributes:
        seed: The seed of the run.
        purpose: What they are for, normally the method's name and settings digest.
        ids: The image ids, in batch order.
    """

    seed: int
    purpose: str
    ids: Sequence[str]

    def of(self, row: int, counter: int = 0) -> np.random.Generator:
        """The stream of the image in `row`, at step `counter`."""
        return stream(self.seed, self.purpose, self.ids[row], counter=counter)
