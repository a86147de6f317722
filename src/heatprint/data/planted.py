"""Drawn animals with a planted artefact, and the masks that say where it is and where the animal is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.data import menagerie

Carriers = Literal["dogs", "half", "all", "none"]
"""Which images carry the artefact: all dogs and no cat; every second image of each species; all; none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Planted:
    """Images with known evidence.

    Attributes:
        batch: The images; cats are class 0, dogs class 1.
        animal: bool [N, H, W], where the animal is visible.
        artefact: bool [N, H, W], where an artefact is drawn.
    """

    batch: Batch
    animal: Tensor
    artefact: Tensor


def draw_planted(
    count: int,
    part: str,
    *,
    kind: str,
    carriers: Carriers,
    size: int = 64,
    seed: int = 0,
    progress: Progress = silent,
) -> Planted:
    """`count` animals, alternately cat and dog; image i shows the same animal whoever carries the artefact.

    Args:
        count: Number of images.
        part: Begins their ids; other parts show other animals.
        kind: ``"caption"`` or ``"bars"``.
        carriers: Which images carry it.
        size: Side in pixels.
        seed: Other seeds draw other animals.
        progress: Told of each image.

    Raises:
        InvalidInput: Unknown carriers.
    """
    if carriers not in get_args(Carriers):
        raise InvalidInput(f"draw_planted: carriers {carriers!r}; write one of {', '.join(get_args(Carriers))}.")
    ids, scenes = [], []
    for i in range(count):
        species = menagerie.SPECIES[i % 2]
        ids.append(f"{part}/{species}s/{species}.{i // 2}.png")
        rng = stream(seed, "menagerie", ids[i])
        scenes.append(menagerie.draw(species, rng=rng, size=size, artefact=kind if _carries(carriers, i) else None))
        progress(i + 1, count)
    return Planted(
        batch=Batch(
            ids=tuple(ids),
            pixels=torch.from_numpy(np.stack([s.image.transpose(2, 0, 1) for s in scenes])),
            labels=torch.arange(count) % 2,
        ),
        animal=torch.from_numpy(np.stack([s.object_mask for s in scenes])),
        artefact=torch.from_numpy(np.stack([s.artefact_mask for s in scenes])),
    )


def _carries(carriers: Carriers, i: int) -> bool:
    dog, second = i % 2 == 1, i // 2 % 2 == 1
    return {"dogs": dog, "half": second, "all": True, "none": False}[carriers]
