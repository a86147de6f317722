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
from heatprint.signatures.copies import distinct_images
from heatprint.signatures.embeddings.pca import PCA
from heatprint.signatures.neighbours import check_finite, distinct
from heatprint.signatures.strategies import Clusterer, Strategies


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

    Equal images are signed once, and what they are signed beside does not depend on the order of the batch: a failed
    attack has bit for bit the signature of its original, where both are in the same call.

    Args:
        classifier: The classifier whose reasons are recorded.
        batch: Images.
        method: A signer, e.g. ``signatures.make("lrp", layer="last")``.
        progress: Told how many different images are signed.

    Raises:
        InvalidInput: There are no images.
        BrokenContract: The signer returned something other than one finite vector per image.
    """
    if not len(batch):
        raise InvalidInput("sign: there are no images.")
    different, place = distinct_images(batch.pixels)
    parts = []
    for rows in torch.split(different, max(1, batch_size(classifier) // 4)):
        part = method.sign(classifier, to_images(batch.pixels[rows].to(classifier.device)))
        if part.ndim != 2 or len(part) != len(rows) or not bool(part.isfinite().all()):
            raise BrokenContract(
                f"sign: {type(method).__name__} returned {list(part.shape)} for {len(rows)} images, or values that "
                "are not finite; one finite vector per image is needed."
            )
        parts.append(part.float().cpu().numpy())
        progress(sum(map(len, parts)), len(different))
    return Signatures(ids=batch.ids, vectors=np.concatenate(parts)[place.numpy()])


def embed(signatures: Signatures | np.ndarray, method: Embedder) -> np.ndarray:
    """Places in the plane, float64 [N, 2], of signatures or vectors [N, D].

    Clean and attacked ones must be fitted together: two maps have no common axes. The method sees each different
    vector once, as float32 and in an order that depends on the values alone: the order of the rows changes no place,
    and equal vectors have the same place bit for bit. Where fewer than four are different, or they have one column,
    there is nothing to choose from, and PCA places them whatever the method is.

    Args:
        signatures: At least four.
        method: An embedder, e.g. ``signatures.make("umap", seed=0)``.

    Raises:
        InvalidInput: Fewer than four vectors, or values that are not finite in float32.
        BrokenContract: The embedder returned another shape, or places that are not finite.
    """
    vectors = signatures.vectors if isinstance(signatures, Signatures) else signatures
    if vectors.ndim != 2 or len(vectors) < 4 or not vectors.shape[1]:
        raise InvalidInput(f"embed: at least four finite vectors [N, D] are needed, got {list(vectors.shape)}.")
    check_finite("embed", "vectors", vectors)
    different = distinct(vectors)
    count, columns = different.vectors.shape
    chosen = method if count >= 4 and columns >= 2 else PCA()
    points: np.ndarray = np.asarray(chosen.embed(different.vectors), dtype=np.float64)
    if points.shape != (count, 2) or not np.isfinite(points).all():
        raise BrokenContract(
            f"embed: {type(method).__name__} returned {list(points.shape)} for {[count, columns]}, or places that are "
            "not finite; one place in the plane per vector is needed."
        )
    return np.take(points, different.place, axis=0)


def cluster(
    maps: np.ndarray, method: Clusterer, *, images: np.ndarray | None = None, count: int | None = None
) -> Strategies:
    """The strategies in the heat maps of one class.

    Args:
        maps: [N, h, w], sum-pooled (`signatures.maps.heat_maps`), or signatures [N, D].
        method: E.g. ``signatures.make("spray")``.
        images: What the maps explain, [N, 3, H, W], for methods that look at both.
        count: How many strategies to tell apart; None for as many as the maps propose.

    Raises:
        InvalidInput: No maps, values that are not finite, other numbers of maps and images, a count that is no whole
            number.
        BrokenContract: The method returned something other than one label from 0 to count - 1 per map.
    """
    if maps.ndim < 2 or not len(maps) or not np.isfinite(maps).all():
        raise InvalidInput(f"cluster: finite maps [N, ...] are needed, N 1 or more; got {list(maps.shape)}.")
    if images is not None and len(images) != len(maps):
        raise InvalidInput(f"cluster: {len(maps)} maps of {len(images)} images; give one map for each image.")
    if count is not None and not isinstance(count, int | np.integer):
        raise InvalidInput(f"cluster: count = {count!r}; write a whole number of strategies, or None.")
    found = method.strategies(maps, images, count=count)
    if found.labels.shape != (len(maps),) or set(found.labels.tolist()) != set(range(found.count)):
        raise BrokenContract(
            f"cluster: {type(method).__name__} gave {len(maps)} maps labels {list(found.labels.shape)} for "
            f"{found.count} strategies; one label for each map is needed, and every one of 0 to count - 1."
        )
    return found
