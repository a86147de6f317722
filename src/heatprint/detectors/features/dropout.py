"""How sure the head is when some of its neurons are left out: Monte Carlo dropout without running the rest again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.detectors.look import Look
from heatprint.models.head import through_head


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """What dropout in the head does to the margin and to the probabilities (Gal and Ghahramani 2016).

    Feinman et al. 2017 use the variance over passes to detect attacks. Here, of p_t the softmax of pass t: mean and
    standard deviation of the margin of the class predicted without dropout, the mean over the deviation, the smallest
    margin, the share of passes that answer otherwise, the entropy of mean p_t, the mutual information of answer and
    mask (Houlsby et al. 2011, "BALD": entropy of mean p_t less mean entropy of p_t), and the variance of p_t, mean over
    classes; entropies over log K, 0 to 1.

    The head is what follows the last operation whose weights are not a linear map of one vector per image: the dense
    layers of a VGG, the one of a ResNet. Dropout is on the input of each of its linear layers, whether the network was
    trained with it there or not. Everything before is run once, and the passes go through the head side by side.

    Deviation: all images meet the same masks, drawn once from `seed`, so that the columns are the image's own and two
    images differ by what they are, not by their draws.

    All columns grow or fall with the margin, "margin over deviation" and the share of changed labels less than others.
    Costs two forward passes besides the look's own, one of them of a single image.

    Attributes:
        rate: Share of the neurons that is left out, above 0 and below 1; the others are divided by 1 - rate.
        passes: 2 or more.
        seed: Of the masks.
    """

    rate: float = 0.3
    passes: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InvalidInput(f"Dropout: rate = {self.rate} must be above 0 and below 1. Write 0.3 for three in ten.")
        if self.passes < 2:
            raise InvalidInput(f"Dropout: passes = {self.passes} must be 2 or more, since a deviation needs two.")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        return ("mean margin", "margin deviation", "margin over deviation", "smallest margin", "changed",
                "entropy", "mutual information", "variance")  # fmt: skip

    def measure(self, look: Look) -> Tensor:
        """float32 [N, 8].

        Raises:
            InvalidInput: The network has no linear layer of vectors behind its convolutions.
            Unsupported: Its head mixes images, or returns something else than logits.
        """
        return uncertainty(self.logits(look.classifier, look.images), look.predicted).float()

    def logits(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Logits of every pass, [passes, N, K].

        Args:
            classifier: Whose head is asked; left as it is.
            images: float [N, 3, H, W] in [0, 1].

        Raises:
            InvalidInput: See `measure`.
            Unsupported: See `measure`.
        """
        return through_head(classifier, images, self.passes, self.mask)

    def mask(self, layer: int, width: int) -> Tensor:
        """What the input of a linear layer of the head, numbered from 0, is multiplied with: float32 [passes, D]."""
        return _mask(self.seed, layer, self.passes, width, self.rate)


def uncertainty(logits: Tensor, predicted: Tensor) -> Tensor:
    """The columns of `Dropout`, float64 [N, 8].

    Args:
        logits: Of each pass, [T, N, K].
        predicted: Class without dropout, int64 [N].
    """
    wide = logits.double()
    own = predicted.view(1, -1, 1).expand(len(wide), -1, 1)
    margin = (wide.gather(2, own) - wide.scatter(2, own, -torch.inf).amax(2, keepdim=True)).squeeze(2)
    spread = margin.std(0, correction=0)
    each = wide.softmax(2)
    mean, scale = each.mean(0), float(np.log(wide.shape[2]))
    whole = torch.special.entr(mean).sum(1) / scale
    within = torch.special.entr(each).sum(2).mean(0) / scale
    return torch.stack([
        margin.mean(0), spread, margin.mean(0) / spread.clamp_min(1e-6), margin.amin(0),
        (margin < 0).double().mean(0), whole, (whole - within).clamp_min(0), each.var(0, correction=0).mean(1),
    ], 1)  # fmt: skip


@lru_cache(maxsize=16)
def _mask(seed: int, layer: int, passes: int, width: int, rate: float) -> Tensor:
    kept = stream(seed, "dropout", layer).random((passes, width)) >= rate
    return torch.from_numpy(kept.astype(np.float32) / np.float32(1 - rate))
