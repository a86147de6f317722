"""Random draws that belong to an image; an explainer sees tensors and no ids, so the image's values are its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from heatprint.core.digest import digest
from heatprint.core.streams import stream


def generators(seed: int, purpose: str, inputs: Tensor) -> list[np.random.Generator]:
    """One generator per image, the same alone, in a batch, in another order.

    Args:
        seed: The method's setting.
        purpose: What the numbers are for, normally the method's name.
        inputs: Images [N, ...]; equal images share their draws.

    Returns:
        N numpy generators; each depends on the seed, the purpose and the values of its image alone.
    """
    # float64 holds every narrower type exactly, and numpy knows no bfloat16
    return [stream(seed, purpose, digest(image)) for image in inputs.detach().double().cpu()]


@contextmanager
def seeded(draws: np.random.Generator) -> Iterator[None]:
    """The global generators of torch and numpy seeded from `draws` and put back afterwards, for others' libraries."""
    before = np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(int(draws.integers(2**63)))
            np.random.seed(int(draws.integers(2**32)))
            yield
        finally:
            np.random.set_state(before)
