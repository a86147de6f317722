"""The counterfactual test of a suspected artefact: take it away, put it elsewhere, and ask the classifier again.

Mikołajczyk et al. 2020 (arXiv:2005.02269) confirm a suspicion by inserting the artefact into other images;
here it is also removed, and either change has a control of the same size. Pasting tells an artefact from honest
evidence better: an animal that is painted over is missed just as a caption is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.atlas.measures import medoids
from heatprint.atlas.region import moved_elsewhere
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.evaluation import share
from heatprint.explainers.trust.road import impute
from heatprint.models.predict import batch_size, predict
from heatprint.signatures.spray.spray import normalised


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactual:
    """What became of the predictions, image by image.

    Attributes:
        label: The class of the suspected strategy.
        area: Mean share of an image of `inside` that the region covers.
        inside: int64 [n], rows of the strategy's images that have a region.
        rest: int64 [r], rows of other images predicted as this class that have a region.
        others: int64 [m], rows of images predicted as other classes.
        removed: bool [n], the image leaves the class when the region is filled from its surroundings.
        removed_control: bool [n], it does when the same shape is filled elsewhere.
        removed_rest: bool [r], an image of the rest of the class does when the region is filled.
        pasted: bool [m], the image turns to this class when the region of the strategy's medoid is pasted on it.
        pasted_control: bool [m], it does when the same region of an image outside the strategy is pasted; [m - 1] where
            that image is one of `others`, which is not pasted on itself.
    """

    label: int
    area: float
    inside: np.ndarray
    rest: np.ndarray
    others: np.ndarray
    removed: np.ndarray
    removed_control: np.ndarray
    removed_rest: np.ndarray
    pasted: np.ndarray
    pasted_control: np.ndarray

    def shares(self) -> dict[str, dict[str, Any] | None]:
        """Each test as a share with its Wilson interval; None where there was no image to try it on."""
        names = ("removed", "removed_control", "removed_rest", "pasted", "pasted_control")
        return {name: share(int(getattr(self, name).sum()), len(getattr(self, name))) for name in names}


def counterfactual(
    classifier: Classifier,
    batch: Batch,
    inside: np.ndarray,
    region: np.ndarray,
    *,
    maps: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    seed: int = 0,
) -> Counterfactual:
    """Remove what a strategy is suspected to rely on, and paste it onto images of other classes.

    Removal fills the region from its surroundings (`heatprint.explainers.trust.road.impute`), which leaves neither
    the artefact's colours nor a patch of its own. Its control fills the same shape somewhere else in the same image.
    The donor of the pasted region is the medoid of the strategy's images with a region; that of the control is the
    medoid of the rest of the class, or of the other classes where there is no rest.

    Args:
        classifier: Who is asked.
        batch: The images: those of the strategy, and others.
        inside: Rows of the strategy's images; all predicted as one class.
        region: bool [H, W] for all images, or bool [N, H, W], one for each, such as the known place of a planted
            artefact; from an image without a region nothing can be removed, and it counts in no share of removals.
        maps: Heat maps [N, h, w] by which medoids are found; without them the donor is the first by id.
        predicted: int64 [N], the class of each image's prediction where it is known already.
        seed: Of the control's place, which depends on the image's id alone.

    Raises:
        InvalidInput: The region has another shape, is empty for all of the strategy or leaves nothing of an image,
            or the strategy is empty or predicted as several classes.
    """
    masks = _masks(batch, region)
    inside = np.sort(np.asarray(inside, dtype=np.int64))
    predicted = _answers(classifier, batch.pixels) if predicted is None else predicted
    _check(predicted, inside, masks)
    label = int(predicted[inside[0]])
    own = predicted == label
    rest, others = np.setdiff1d(np.flatnonzero(own), inside), np.flatnonzero(~own)
    plain = rest if len(rest) else others  # whose medoid gives the control's patch
    marked = np.asarray(masks.any((1, 2)))
    inside, rest = inside[marked[inside]], rest[marked[rest]]
    elsewhere = masks.copy()
    for row in inside:
        rng = stream(seed, "atlas/counterfactual", batch.ids[row])
        elsewhere[row] = moved_elsewhere(masks[row], rng)

    def leaves(rows: np.ndarray, gone: np.ndarray) -> np.ndarray:
        return np.asarray(_answers(classifier, _filled(classifier, batch.pixels[rows], gone[rows])) != label)

    donor = _medoid(batch, inside, maps)

    def turns(giver: int, onto: np.ndarray) -> np.ndarray:
        pasted = torch.where(torch.from_numpy(masks[donor]), batch.pixels[giver], batch.pixels[onto])
        return np.asarray(_answers(classifier, pasted) == label)

    control = _medoid(batch, plain, maps) if len(plain) else donor

    return Counterfactual(
        label=label, area=float(masks[inside].mean()), inside=inside, rest=rest, others=others,
        removed=leaves(inside, masks), removed_control=leaves(inside, elsewhere), removed_rest=leaves(rest, masks),
        pasted=turns(donor, others), pasted_control=turns(control, others[others != control]),
    )  # fmt: skip


def _masks(batch: Batch, region: np.ndarray) -> np.ndarray:
    shape = (len(batch), *batch.pixels.shape[2:])
    if region.dtype != bool or region.shape not in (shape, shape[1:]):
        raise InvalidInput(
            f"counterfactual: the region is {region.dtype} {list(region.shape)}; it must be bool {list(shape[1:])} "
            f"for all images, or bool {list(shape)}, one for each."
        )
    return np.broadcast_to(region, shape).copy()


def _check(predicted: np.ndarray, inside: np.ndarray, masks: np.ndarray) -> None:
    kinds = set(predicted[inside].tolist())
    if len(kinds) != 1:
        raise InvalidInput(
            f"counterfactual: {len(inside)} images predicted as {len(kinds)} classes; give at least one image, all "
            "predicted as the class that the strategy belongs to."
        )
    if not masks[inside].any():
        raise InvalidInput("counterfactual: the region is empty for all images of the strategy; mark what to test.")
    if masks.all((1, 2)).any():
        raise InvalidInput("counterfactual: the region covers a whole image; leave some of it, to fill the rest from.")


def _medoid(batch: Batch, rows: np.ndarray, maps: np.ndarray | None) -> int:
    ordered = np.array(sorted(rows.tolist(), key=lambda row: batch.ids[row]))
    if maps is None:
        return int(ordered[0])
    return int(ordered[medoids(normalised(maps[ordered]), [batch.ids[row] for row in ordered], 1)[0]])


def _filled(classifier: Classifier, pixels: Tensor, gone: np.ndarray) -> Tensor:
    """Images uint8 [n, 3, H, W] with the missing part, bool [n, H, W], filled from its surroundings."""
    parts = [
        to_pixels(impute(to_images(some).to(classifier.device), missing.to(classifier.device))).cpu()
        for some, missing in zip(
            torch.split(pixels, batch_size(classifier)),
            torch.split(torch.from_numpy(gone), batch_size(classifier)),
            strict=True,
        )
    ]
    return torch.cat(parts) if parts else pixels


def _answers(classifier: Classifier, pixels: Tensor) -> np.ndarray:
    return np.asarray(predict(classifier, pixels).argmax(1).numpy())
