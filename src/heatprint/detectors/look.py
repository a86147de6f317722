"""One look of a classifier at some images: what all families of features share, computed once and only if asked for."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.lattice import to_images
from heatprint.detectors.filters import median3


class Look:
    """Images, the classifier's answer, and the slope of its margin: one forward and, per rival, one backward pass.

    Args:
        classifier: Who looks.
        pixels: uint8 [N, 3, H, W].
        rivals: How many classes behind the predicted one are compared with it; at most K - 1.
    """

    def __init__(self, classifier: Classifier, pixels: Tensor, *, rivals: int = 1) -> None:
        self.classifier = classifier
        self.pixels = pixels.to(classifier.device)
        self.rivals = min(rivals, len(classifier.classes) - 1)

    @cached_property
    def images(self) -> Tensor:
        """float32 [N, 3, H, W] in [0, 1]."""
        return to_images(self.pixels)

    @cached_property
    def residual(self) -> Tensor:
        """Image minus its 3 x 3 median, channel by channel, float32 [N, 3, H, W] in [-1, 1]."""
        return self.images - to_images(median3(self.pixels))

    @property
    def logits(self) -> Tensor:
        """float32 [N, K]."""
        return self._pass[0]

    @property
    def slopes(self) -> Tensor:
        """Gradient of predicted logit minus rival's, with respect to the image, float32 [N, rivals, 3, H, W]."""
        return self._pass[1]

    @cached_property
    def margins(self) -> Tensor:
        """Predicted logit minus that of each rival, the nearest rival first, float32 [N, rivals]; 0 or more."""
        ordered = self.logits.sort(dim=1, descending=True, stable=True).values
        return ordered[:, :1] - ordered[:, 1 : 1 + self.rivals]

    @property
    def predicted(self) -> Tensor:
        """The class answered, int64 [N]."""
        return self.logits.argmax(1)

    @cached_property
    def _pass(self) -> tuple[Tensor, Tensor]:
        images = self.images.detach().requires_grad_()
        logits = self.classifier(images)
        order = logits.argsort(dim=1, descending=True, stable=True)
        own = logits.gather(1, order[:, :1])
        margins = own - logits.gather(1, order[:, 1 : 1 + self.rivals])
        slopes = [
            torch.autograd.grad(margins[:, k].sum(), images, retain_graph=k + 1 < self.rivals)[0]
            for k in range(self.rivals)
        ]
        return logits.detach(), torch.stack(slopes, 1)
