"""Removing pixels in the order of a map: insertion, deletion and pixel flipping.

A map that knows what the network relies on moves the output fastest when its most relevant pixels go first. What
is put in their place matters as much as the order: an image with holes is not an image, and a network may react to
the holes. That is why every number stands beside that of a random map, and why ROAD (`road`) exists.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Batch
from heatprint.explainers.trust.curves import area, curve, pixel_counts, replaced
from heatprint.explainers.trust.filters import blurred, gaussian
from heatprint.explainers.trust.heat import Heat, explained_class, removal_ranks

Fill = Literal["mean", "black", "blur"]
Order = Literal["most", "least"]


def removal_curve(
    classifier: Classifier,
    batch: Batch,
    heat: Heat,
    *,
    order: Order = "most",
    fill: Fill = "mean",
    insert: bool = False,
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Logits [N, steps + 1, K] while pixels are removed from the images, or put back into their fill.

    Args:
        classifier: Who is asked.
        batch: The images.
        heat: Their maps.
        order: Most relevant first (MoRF) or least relevant first (LeRF).
        fill: What stands for a removed pixel: the image's mean colour, black, or a blurred copy of the image.
        insert: Start from the fill and put pixels back.
        steps: Points of the curve after the first one.
        seed: Of the order among pixels of equal relevance.
    """
    ranks = removal_ranks(batch, heat, seed=seed)
    pixels = ranks[0].numel()
    if order == "least":
        ranks = pixels - 1 - ranks
    device = classifier.device
    images = batch.images.to(device)
    start, end = images, filled(images, fill)
    if insert:
        start, end = end, start
    counts = pixel_counts(pixels, steps).to(device)
    return curve(classifier, len(batch), steps + 1, replaced(start, end, ranks.to(device), counts))


def filled(images: Tensor, fill: Fill) -> Tensor:
    """What stands for removed pixels of images [N, 3, H, W] in [0, 1].

    Raises:
        InvalidInput: An unknown word.
    """
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "black":
        return torch.zeros_like(images)
    if fill == "blur":
        side = min(images.shape[2:])
        return blurred(images, gaussian(side / 16, min(side - 1, side // 5), like=images))
    raise InvalidInput(f"trust: fill {fill!r}; write 'mean', 'black' or 'blur'.")


def deletion(
    classifier: Classifier,
    batch: Batch,
    heat: Heat,
    *,
    target: Tensor | None = None,
    fill: Fill = "mean",
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Area under the probability of the explained class while its most relevant pixels are removed, float [N].

    Petsiuk et al. 2018 (RISE), algorithm 1. Lower is better: the class vanishes early. They fill with the mean
    of the data set; here it is the image's own mean colour, which needs no data set.

    Args:
        classifier: Who is asked.
        batch: The images.
        heat: Their maps.
        target: The class explained, int64 [N]; that of the explanation, or the predicted one.
        fill: See `removal_curve`.
        steps: See `removal_curve`.
        seed: See `removal_curve`.

    Returns:
        In [0, 1].
    """
    logits = removal_curve(classifier, batch, heat, fill=fill, steps=steps, seed=seed)
    return area_of_probability(logits, explained_class(classifier, batch, heat, target), batch)


def insertion(
    classifier: Classifier,
    batch: Batch,
    heat: Heat,
    *,
    target: Tensor | None = None,
    fill: Fill = "blur",
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Area under the probability of the explained class while its most relevant pixels are put back, float [N].

    Petsiuk et al. 2018 (RISE), algorithm 1. Higher is better. It starts from a blurred copy, so that what is put
    back does not begin with sharp-edged islands on grey. Their window (sigma of 5 pixels) belongs to images of 224
    pixels and leaves small ones readable; here sigma is a sixteenth of the side.

    Args:
        classifier: Who is asked.
        batch: The images.
        heat: Their maps.
        target: See `deletion`.
        fill: See `removal_curve`.
        steps: See `removal_curve`.
        seed: See `removal_curve`.

    Returns:
        In [0, 1].
    """
    logits = removal_curve(classifier, batch, heat, fill=fill, insert=True, steps=steps, seed=seed)
    return area_of_probability(logits, explained_class(classifier, batch, heat, target), batch)


def pixel_flipping(
    classifier: Classifier,
    batch: Batch,
    heat: Heat,
    *,
    target: Tensor | None = None,
    fill: Fill = "mean",
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Area between the logit's curves, least relevant first minus most relevant first, float [N] in logits.

    Bach et al. 2015, section "Pixel flipping"; Samek et al. 2017 (MoRF and LeRF). Higher is better, 0 is a random
    map, and a map turned upside down has the opposite value. They replace whole regions by random colours; here
    single pixels become the image's mean colour, so that equal maps give equal numbers.

    Args:
        classifier: Who is asked.
        batch: The images.
        heat: Their maps.
        target: See `deletion`.
        fill: See `removal_curve`.
        steps: See `removal_curve`.
        seed: See `removal_curve`.
    """
    classes = explained_class(classifier, batch, heat, target)
    most, least = (
        removal_curve(classifier, batch, heat, order=order, fill=fill, steps=steps, seed=seed)
        for order in ("most", "least")
    )
    return area_of_logit(least, classes, batch) - area_of_logit(most, classes, batch)


def area_of_probability(logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
    """Area under the probability of `target` int64 [N] along curves of logits [N, points, K], float [N]."""
    return area_of_logit(logits.softmax(2), target, batch)


def area_of_logit(logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
    """Area under the value of `target` int64 [N] along curves [N, points, K], float [N]."""
    points = logits.shape[1]
    values = logits.gather(2, target.view(-1, 1, 1).expand(-1, points, 1)).squeeze(2)
    return area(values, pixel_counts(batch.pixels[0, 0].numel(), points - 1))
