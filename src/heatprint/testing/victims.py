"""Networks and images whose answers are known, on which methods are checked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.models import predict, wrap


class Linear(nn.Module):
    """Logits W x + b of the flattened image: its nearest adversarial is known in closed form."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.dense = nn.Linear(weight.shape[1], weight.shape[0])
        self.dense.weight.data, self.dense.bias.data = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        logits: Tensor = self.dense(x.flatten(1))
        return logits


def linear_classifier(*, size: int = 12, classes: int = 2, seed: int = 0, scale: float = 0.05) -> Classifier:
    """A random linear classifier of images [N, 3, size, size] in [0, 1], centred on grey."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((classes, 3 * size * size), generator=generator) * scale
    return wrap(Linear(weight, -weight.sum(1) / 2), classes=[f"class {i}" for i in range(classes)], size=size)


def small_classifier(*, size: int = 16, classes: int = 3, seed: int = 0) -> Classifier:
    """A random convolutional network with batch norm, a residual sum, both poolings and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return wrap(Residual(classes), classes=[f"class {i}" for i in range(classes)], size=size, mean=(0.5,) * 3)


class Residual(nn.Module):
    """See `small_classifier`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        x = self.stem(x)
        logits: Tensor = self.head(torch.relu(self.body(x)) + x)
        return logits


def labelled_batch(classifier: Classifier, count: int = 8, *, seed: int = 0, wrong: int = 0) -> Batch:
    """Random mid-grey images labelled as the classifier sees them; the first `wrong` ones labelled otherwise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, classifier.size, classifier.size)
    pixels = torch.randint(64, 192, shape, generator=generator).to(torch.uint8)
    labels = predict(classifier, pixels).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % len(classifier.classes)
    return Batch(ids=tuple(f"image {i}" for i in range(count)), pixels=pixels, labels=labels)


def two_strategies(larger: int = 70, smaller: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heat maps of two strategies that no clustering can miss, in mixed order.

    Returns:
        Maps float32 [N, 12, 12], with the relevance above or below; images uint8 [N, 3, 16, 16], bright on the right
        or even; and the strategy of each, int64 [N], 1 for the larger.
    """
    rng = stream(0, "testing/strategies")
    kind = rng.permutation(np.repeat([0, 1], [smaller, larger]))
    maps = rng.normal(scale=0.1, size=(len(kind), 12, 12)).astype(np.float32)
    images = rng.integers(90, 130, size=(len(kind), 3, 16, 16), dtype=np.uint8)
    maps[kind == 0, :4] += 1
    maps[kind == 1, 8:] += 1
    images[kind == 1, :, :, 8:] += 100
    return maps, images, kind
