"""The mask engine: one image with some of its superpixels replaced, and what the classifier says of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.explainers.fills import Fill, filled
from heatprint.explainers.target import score
from heatprint.models.predict import batch_size


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedImage:
    """One image whose superpixels can be switched off.

    Attributes:
        classifier: Who is asked.
        image: Normalised, [3, H, W].
        labels: The superpixel of each pixel, int64 [H, W], 0 to S - 1.
        fill: What an off superpixel shows: a normalised image [3, H, W], see `hidden`.
        target: What is scored: a class int64 [1], or weights of the logits [1, K].
    """

    classifier: Classifier
    image: Tensor
    labels: Tensor
    fill: Tensor
    target: Tensor

    @cached_property
    def size(self) -> int:
        """Number of superpixels S."""
        return int(self.labels.max()) + 1

    @cached_property
    def areas(self) -> Tensor:
        """Pixels of each superpixel, int64 [S]."""
        return torch.bincount(self.labels.flatten(), minlength=self.size)

    def images(self, masks: Tensor) -> Tensor:
        """The masked images [M, 3, H, W] of masks bool [M, S], where True is on."""
        flat = self.labels.flatten().expand(len(masks), -1)
        shown = masks.to(self.image.device).gather(1, flat).view(-1, 1, *self.labels.shape)
        return torch.where(shown, self.image, self.fill)

    @torch.no_grad()
    def logits(self, masks: Tensor) -> Tensor:
        """Logits [M, K] of masks bool [M, S]; the images are made and asked about in chunks."""
        chunks = torch.split(masks, batch_size(self.classifier))
        return torch.cat([self.classifier.network(self.images(chunk)) for chunk in chunks])

    def scores(self, masks: Tensor) -> Tensor:
        """The target's score, [M], of masks bool [M, S]."""
        logits = self.logits(masks)
        return score(logits, self.target.expand(len(logits), *self.target.shape[1:]))

    def holds(self, masks: Tensor) -> Tensor:
        """Whether the answer explained is given, bool [M]: the class is predicted, or the weighted score positive."""
        logits = self.logits(masks)
        if self.target.is_floating_point():
            return score(logits, self.target.expand(len(logits), -1)) > 0
        return logits.argmax(1) == self.target

    def spread(self, weights: Tensor) -> Tensor:
        """Weights [S] of superpixels as relevance [3, H, W] whose `heat` sums to the weights, superpixel by superpixel.

        Each weight is divided by the superpixel's number of pixels and shared equally by the three channels.
        """
        per_pixel = (weights.to(self.image) / self.areas)[self.labels]
        return (per_pixel / 3).expand_as(self.image)


def hidden(fill: Fill | Tensor, classifier: Classifier, image: Tensor, labels: Tensor) -> Tensor:
    """What an off superpixel shows, as a normalised image [3, H, W].

    Args:
        fill: A word of `heatprint.explainers.fills`, where ``"mean"`` is the mean colour of each superpixel by
            itself, as LIME has it; or another normalised image of the same shape, which is taken as it is.
        classifier: Knows the normalisation.
        image: Normalised, [3, H, W].
        labels: Superpixels, int64 [H, W].

    Raises:
        InvalidInput: The other image has another shape.
    """
    if isinstance(fill, Tensor):
        if fill.shape != image.shape:
            raise InvalidInput(
                f"masks: the other image is {list(fill.shape)}, the explained one {list(image.shape)}; "
                "resize it and write classifier.normalise(other)[0]."
            )
        return fill.to(image)
    if fill == "mean":
        return _mean_colours(image, labels)
    return filled(fill, classifier, image[None])[0]


def _mean_colours(image: Tensor, labels: Tensor) -> Tensor:
    count = int(labels.max()) + 1
    flat = labels.flatten()
    # a product with the membership matrix: index_add_ sums in no fixed order on a GPU
    members = F.one_hot(flat, count).to(image)
    means = image.flatten(1) @ members / members.sum(0)
    return means[:, flat].view_as(image)
