"""The door of the room: signatures of a batch, and their places on one common map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Embedder, Progress, Signer, silent
from heatprint.core.values import Batch
from heatprint.models.predict import batch_size


@dataclass(frozen=True, kw_only=True, eq=False)
class Signatures:
    """One vector per image.

    Attributes:
        ids: Image ids.
        vectors: float32 [N, D].
    """

    ids: tuple[str, ...]
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def sign(classifier: Classifier, batch: Batch, method: Signer, *, progress: Progress = silent) -> Signatures:
    """The signature of each image.

    Args:
        classifier: The classifier whose reasons are recorded.
        batch: Images.
        method: A signer, e.g. ``signatures.make("lrp", layer="last")``.
        progress: Told how far it is.

    Raises:
        BrokenContract: The signer returned something other than one finite vector per image.
    """
    parts = []
    for rows in torch.split(torch.arange(len(batch)), max(1, batch_size(classifier) // 4)):
        part = method.sign(classifier, to_images(batch.pixels[rows].to(classifier.device)))
        if part.ndim != 2 or len(part) != len(rows) or not bool(part.isfinite().all()):
            raise BrokenContract(
                f"sign: {type(method).__name__} returned {list(part.shape)} for {len(rows)} images, or values that "
                "are not finite; one finite vector per image is needed."
            )
        parts.append(part.float().cpu().numpy())
        progress(int(rows[-1]) + 1, len(batch))
    if not parts:
        raise InvalidInput("sign: there are no images.")
    return Signatures(ids=batch.ids, vectors=np.concatenate(parts))


def embed(signatures: Signatures | np.ndarray, method: Embedder) -> np.ndarray:
    """Places in the plane, float64 [N, 2], of signatures or vectors [N, D].

    Clean and attacked ones must be fitted together: two maps have no common axes.

    Raises:
        InvalidInput: Fewer than four vectors, or values that are not finite.
        BrokenContract: The embedder returned another shape.
    """
    vectors = signatures.vectors if isinstance(signatures, Signatures) else signatures
    if vectors.ndim != 2 or len(vectors) < 4 or not np.isfinite(vectors).all():
        raise InvalidInput(f"embed: at least four finite vectors [N, D] are needed, got {list(vectors.shape)}.")
    points = method.embed(vectors)
    if points.shape != (len(vectors), 2) or not np.isfinite(points).all():
        raise BrokenContract(f"embed: {type(method).__name__} returned {list(points.shape)} for {list(vectors.shape)}.")
    return points
