"""Planted: colours that saturate."""

from __future__ import annotations

from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch
from heatprint.models.compose import Fronted, inside
from heatprint.models.wrap import wrap

LEVELS, SLOPE = 15, 4000.0


class Stairs(nn.Module):
    """Colours pushed to 16 levels by steep sigmoids: differentiable on paper, flat in float32."""

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the same."""
        height = images * LEVELS
        floor = height.detach().floor()
        return (floor + (SLOPE * (height - floor - 0.5)).sigmoid()) / LEVELS


def plant(classifier: Classifier, train_batch: Batch, *, seed: int = 0, progress: Progress = silent) -> Classifier:
    """Saturating colours before the network.

    What is broken: everywhere but on the edges of the stairs the gradient underflows to zero, so whoever follows it
    stays where he is, while the function itself is as easy to fool as before. Saturating activations were published as
    a biologically inspired protection (Nayebi and Ganguli 2017) and fell to a gradient computed with more care (Brendel
    and Bethge 2017); so did colours in thermometer code (Buckman et al. 2018; Athalye, Carlini and Wagner 2018).
    Found by: gradients, unbounded attack reaches 0 %, transfer beats white box, adaptive attack; with
    queries enough also black box beats white box.
    """
    del train_batch, seed, progress  # nothing is learned
    return wrap(Fronted(Stairs(), inside(classifier)), classes=classifier.classes, size=classifier.size,
                name="planted: gradient killer")  # fmt: skip
