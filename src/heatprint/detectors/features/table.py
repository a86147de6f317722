"""Features of many images as one table, streamed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.detectors.features import FEATURES
from heatprint.detectors.look import Look

CHUNK = 8  # images whose planes fit into a CPU's cache; larger is slower there


def columns(families: Sequence[str]) -> tuple[str, ...]:
    """Names of all columns, ``"family: column"``."""
    return tuple(f"{family}: {name}" for family in families for name in FEATURES.make(family).names)


def measure(
    classifier: Classifier, pixels: Tensor, families: Sequence[str], *, rivals: int = 1, progress: Progress = silent
) -> np.ndarray:
    """What the families measure of each image, float32 [N, columns].

    Args:
        classifier: Who looks at them.
        pixels: uint8 [N, 3, H, W].
        families: Names in `FEATURES`, at least one.
        rivals: Classes behind the predicted one whose margin is looked at; the true one of an attacked image may be
            any of them where there are many classes.
        progress: Told how far it is.

    Raises:
        InvalidInput: No family, or one twice.
        BrokenContract: A family returned values that are not finite, or too many or few columns.
    """
    if not families or len(set(families)) != len(families):
        raise InvalidInput(f"features: families = {tuple(families)} must name at least one, each once.")
    made = {name: FEATURES.make(name) for name in families}
    chunk = CHUNK if classifier.device.type == "cpu" else 16 * CHUNK
    parts, done = [], 0
    for some in torch.split(pixels, chunk) if len(pixels) else ():
        look = Look(classifier, some, rivals=rivals)
        values = {name: family.measure(look).float() for name, family in made.items()}
        for name, found in values.items():
            if found.shape != (len(some), len(made[name].names)) or not bool(found.isfinite().all()):
                raise BrokenContract(
                    f"features: {name!r} returned {list(found.shape)} for {len(some)} images and "
                    f"{len(made[name].names)} columns, {int((~found.isfinite()).sum())} values not finite."
                )
        parts.append(torch.cat(list(values.values()), 1).cpu().numpy())
        done += len(some)
        progress(done, len(pixels))
    return np.concatenate(parts) if parts else np.empty((0, len(columns(families))), np.float32)
