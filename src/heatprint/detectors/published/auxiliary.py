"""An auxiliary network that tells attacked from other images (Gong et al. 2017; Metzen et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.lattice import LEVELS, to_images
from heatprint.core.protocols import Progress
from heatprint.core.streams import stream, torch_seed
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import Examples
from heatprint.detectors.filters import median3
from heatprint.detectors.published.layers import check_seen, outputs
from heatprint.detectors.published.learning import as_arrays, check_training, descend, from_arrays, seeded, shuffled
from heatprint.models.predict import batch_size

CHANNELS = (16, 32, 64)
MEASURED = 512  # images from which mean and deviation of the input are taken


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A small convolutional network, attacked or not, on the image or on activations of the frozen classifier.

    Gong, Wang and Ku (2017, "Adversarial and Clean Data Are Not Twins") train it on images, Metzen, Genewein, Fischer
    and Bischoff (2017, "On Detecting Adversarial Perturbations") on the activations of a block of the frozen
    classifier: batches half attacked and half not, Adam, binary cross-entropy. The score is the log odds it gives.
    Within each half every kind is as frequent, however many images there are of it.

    Its three convolutions (3 x 3, stride 2, 16, 32 and 64 channels), mean over all places and one linear layer are
    lighter than the published ones, so that it trains in minutes on a CPU. It learns the attacks it is shown; both
    papers and Carlini and Wagner (2017) find that it tells others poorly and is fooled by an attack that knows it.

    Attributes:
        on: ``"images"`` or ``"activations"``.
        residual: On images: see the image minus its 3 x 3 median instead of the image. Contents then cannot be
            learned by heart, and what attacks leave is no longer small beside them. Our deviation; False for the
            papers' input. Without effect on activations.
        layer: On activations: name of the module whose output [N, C, h, w] is read. Empty: the convolution in the
            middle, the seventh of VGG16's thirteen. Without effect on images.
        steps: Of Adam, 1 or more.
        batch: Images per step, 2 or more; half of them attacked.
        rate: Largest learning rate; it falls to zero along half a cosine.
    """

    on: Literal["images", "activations"] = "images"
    residual: bool = True
    layer: str = ""
    steps: int = 1000
    batch: int = 64
    rate: float = 2e-3
    unsupervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.on not in ("images", "activations"):
            raise InvalidInput(f"Auxiliary: on = {self.on!r} must be 'images' or 'activations'.")
        check_training("Auxiliary", steps=self.steps, batch=self.batch, rate=self.rate)

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """See `heatprint.detectors.door.Method`.

        Raises:
            Unsupported: The middle convolution is asked for, and the network has no convolutions.
            InvalidInput: There is no such module, or it returns no maps.
        """
        attacked = np.asarray(examples.attacked, dtype=bool)
        mean, deviation = self._scale(classifier, examples.pixels, seed)
        network = seeded(lambda: Net(len(mean)), torch_seed(seed, "auxiliary/weights")).to(classifier.device)
        batches = Halves(attacked, examples.kinds, self.batch, seed)

        def loss(step: int) -> Tensor:
            rows = next(batches)
            inputs = self._inputs(classifier, examples.pixels[torch.from_numpy(rows)])
            truth = torch.from_numpy(attacked[rows]).to(inputs)
            return F.binary_cross_entropy_with_logits(network((inputs - mean) / deviation), truth)

        descend(network, loss, steps=self.steps, rate=self.rate, progress=progress)
        return as_arrays(network) | {
            "mean": mean.flatten().cpu().numpy(),
            "deviation": deviation.flatten().cpu().numpy(),
        }

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Log odds of attacked against not, float64 [N]."""
        mean, deviation = (
            torch.tensor(learned[key], device=classifier.device).view(-1, 1, 1) for key in ("mean", "deviation")
        )
        network = from_arrays(lambda: Net(len(mean)), learned, classifier.device)
        parts = [
            network((self._inputs(classifier, part) - mean) / deviation)
            for part in torch.split(pixels, batch_size(classifier))
        ]
        return torch.cat(parts).double().cpu().numpy()

    def _inputs(self, classifier: Classifier, pixels: Tensor) -> Tensor:
        """What the network sees, float32 [N, C, h, w]."""
        pixels = pixels.to(classifier.device)
        images = to_images(pixels)
        if self.on == "images":
            return (pixels.float() - median3(pixels)) / LEVELS if self.residual else images
        name = self.layer or middle_convolution(classifier)
        with outputs(classifier.network, [name]) as seen, torch.no_grad():
            classifier(images)
        check_seen(seen, [name])
        if seen[name].ndim != 4:
            raise InvalidInput(
                f"Auxiliary: layer = {name!r} returns {list(seen[name].shape)}, no maps [N, C, h, w]. Name a layer of "
                "the convolutional part, or leave it out."
            )
        return seen[name].float()

    def _scale(self, classifier: Classifier, pixels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each input channel, [C, 1, 1]."""
        rows = stream(seed, "auxiliary/scale").permutation(len(pixels))[:MEASURED]
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        for part in torch.split(pixels[torch.from_numpy(rows)], batch_size(classifier)):
            inputs = self._inputs(classifier, part).double()
            total = total.to(inputs) + inputs.sum((0, 2, 3))
            squares = squares.to(inputs) + inputs.square().sum((0, 2, 3))
            count += inputs.numel() // inputs.shape[1]
        mean = total / count
        spread = (squares / count - mean.square()).clamp_min(0).sqrt()
        spread = torch.where(spread > 0, spread, 1.0)  # a channel that never varies tells nothing
        return mean.float().view(-1, 1, 1), spread.float().view(-1, 1, 1)


class Net(nn.Module):
    """Three convolutions of stride 2, the mean over all places, one linear layer: maps [N, C, h, w] to log odds [N]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.conv1 = nn.Conv2d(channels, first, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.head = nn.Linear(third, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Log odds [N]."""
        maps = maps.contiguous(memory_format=torch.channels_last)
        for layer in (self.conv1, self.conv2, self.conv3):
            maps = torch.relu(layer(maps))
        odds: Tensor = self.head(maps.mean((2, 3)))
        return odds[:, 0]


class Halves:
    """Batches without end, half of whose rows are attacked images and half others; in each, every kind is as frequent.

    Args:
        attacked: bool [N], some of either.
        kinds: Kind of each.
        batch: Rows per batch; the odd one of an odd batch is not attacked.
        seed: Of the order.
    """

    def __init__(self, attacked: np.ndarray, kinds: Sequence[str], batch: int, seed: int) -> None:
        names = np.asarray(kinds)
        self._rows: dict[tuple[bool, int], Iterator[np.ndarray]] = {}
        self._kinds: dict[bool, Iterator[np.ndarray]] = {}
        for half, size in ((False, batch - batch // 2), (True, batch // 2)):
            rng = stream(seed, "auxiliary/order", int(half))
            found = np.unique(names[attacked == half])
            self._kinds[half] = shuffled(np.arange(len(found)), size, rng)
            for place, name in enumerate(found):
                self._rows[half, place] = shuffled(np.flatnonzero((attacked == half) & (names == name)), 1, rng)

    def __next__(self) -> np.ndarray:
        """Rows int64 [batch]."""
        return np.concatenate([next(self._rows[half, k]) for half in (False, True) for k in next(self._kinds[half])])


def middle_convolution(classifier: Classifier) -> str:
    """Name of the convolution in the middle of those a network holds.

    Raises:
        Unsupported: It holds none.
    """
    names: list[str] = [name for name, module in classifier.network.named_modules() if isinstance(module, nn.Conv2d)]
    if not names:
        raise Unsupported(f"Auxiliary: {classifier.name!r} holds no convolutions. Name a layer, or on='images'.")
    return names[len(names) // 2]
