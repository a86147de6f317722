"""Reconstruction error of an autoencoder (MagNet, Meng and Chen 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress
from heatprint.core.streams import stream, torch_seed
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import Examples
from heatprint.detectors.published.learning import (
    as_arrays,
    check_training,
    clean_rows,
    descend,
    from_arrays,
    seeded,
    shuffled,
)
from heatprint.models.predict import batch_size

GREY = 0.5  # taken off and put on again: the layers then start near what they are to return


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How far an image is from what an autoencoder of clean images makes of it; learns from clean images only.

    Meng and Chen (2017, "MagNet: a Two-Pronged Defense against Adversarial Examples"): a denoising autoencoder AE is
    trained on clean images with Gaussian noise; detectors measure the mean of |x - AE(x)|^p and the Jensen-Shannon
    divergence of softmax(z / T) at x and at AE(x), z the logits. Theirs flag an image if any detector does; here each
    is z-scored over the clean images and the largest counts, so that one threshold serves all.

    Deviations: rectifiers and `channels` filters instead of three sigmoid ones, with which photographs are blurred
    until the error measures their texture; the network is clipped to [0, 1], not squashed; and the divergence counts
    by its root, which grows as the change of the logits does and not as its square. On photographs the errors hardly
    tell a small attack; what is found is found by the divergence. Carlini and Wagner (2017, "MagNet and 'Efficient
    Defenses Against Adversarial Attacks' are Not Robust to Adversarial Examples") break it by a transfer attack.

    Attributes:
        powers: Exponents p of the error, 1, 2 or both; empty for the divergence alone.
        divergence: Measure the Jensen-Shannon divergence, too.
        temperature: T of it, above 0; the paper's 10.
        noise: Standard deviation of the noise in training, images in [0, 1]; the paper's 0.1.
        channels: Filters per layer, 1 or more.
        steps: Of Adam, 1 or more.
        batch: Images per step, 2 or more.
        rate: Largest learning rate; it falls to zero along half a cosine.
    """

    powers: tuple[int, ...] = (1, 2)
    divergence: bool = True
    temperature: float = 10.0
    noise: float = 0.1
    channels: int = 16
    steps: int = 500
    batch: int = 32
    rate: float = 5e-3
    unsupervised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not set(self.powers) <= {1, 2} or len(set(self.powers)) != len(self.powers):
            raise InvalidInput(f"Reconstruction: powers = {self.powers} must be of 1 and 2, each once. Write (1, 2).")
        if not self.powers and not self.divergence:
            raise InvalidInput("Reconstruction: there is nothing to measure; name powers or write divergence=True.")
        if not 0 < self.temperature < math.inf or not 0 <= self.noise < math.inf or self.channels < 1:
            raise InvalidInput(
                f"Reconstruction: temperature = {self.temperature} must be positive, noise = {self.noise} 0 or more "
                f"(images are in [0, 1]) and channels = {self.channels} 1 or more."
            )
        check_training("Reconstruction", steps=self.steps, batch=self.batch, rate=self.rate)

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """See `heatprint.detectors.door.Method`.

        Raises:
            InvalidInput: Too few clean images.
        """
        clean = examples.take(clean_rows("Reconstruction", examples))
        device = classifier.device
        network = seeded(lambda: Net(self.channels), torch_seed(seed, "reconstruction/weights")).to(device)
        batches = shuffled(np.arange(len(clean)), self.batch, stream(seed, "reconstruction/order"))
        generator = torch.Generator().manual_seed(torch_seed(seed, "reconstruction/noise"))

        def loss(step: int) -> Tensor:
            images = to_images(clean.pixels[torch.from_numpy(next(batches))])
            noisy = (images + self.noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)
            return F.mse_loss(network(noisy.to(device)), images.to(device))

        descend(network, loss, steps=self.steps, rate=self.rate, progress=progress)
        measured = self._columns(classifier, network, clean.pixels)
        deviation = measured.std(0)
        return as_arrays(network) | {"mean": measured.mean(0), "deviation": np.where(deviation > 0, deviation, 1)}

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """The largest z-score, float64 [N], in standard deviations of clean images."""
        network = from_arrays(lambda: Net(self.channels), learned, classifier.device)
        measured = (self._columns(classifier, network, pixels) - learned["mean"]) / learned["deviation"]
        return np.asarray(measured.max(1))

    @torch.no_grad()
    def _columns(self, classifier: Classifier, network: Net, pixels: Tensor) -> np.ndarray:
        """The errors and the root of the divergence, float64 [N, columns]."""
        parts = []
        for part in torch.split(pixels, batch_size(classifier)):
            images = to_images(part.to(classifier.device))
            again = network(images).clamp(0, 1)
            gap = (images - again).abs().flatten(1).double()
            columns = [gap.pow(power).mean(1) for power in self.powers]
            if self.divergence:
                columns.append(jensen_shannon(classifier(images), classifier(again), self.temperature).sqrt())
            parts.append(torch.stack(columns, 1).cpu().numpy())
        return np.concatenate(parts)


class Net(nn.Module):
    """Convolution, mean over 2 x 2, two convolutions, enlarged again, convolution: images to images of the same size.

    Args:
        channels: Filters of every hidden layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv4 = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions [N, 3, H, W], not clipped."""
        fine = self.conv1((images - GREY).contiguous(memory_format=torch.channels_last))
        coarse = F.avg_pool2d(torch.relu(fine), 2)
        coarse = torch.relu(self.conv3(torch.relu(self.conv2(coarse))))
        again: Tensor = self.conv4(F.interpolate(coarse, size=images.shape[2:])) + GREY
        return again


def jensen_shannon(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Jensen-Shannon divergence in nats, float64 [N], 0 to log 2, of the softmax of two logits [N, K] over T."""
    one, other = ((logits.double() / temperature).log_softmax(1) for logits in (first, second))
    middle = torch.logaddexp(one, other) - math.log(2)
    return 0.5 * ((one.exp() * (one - middle)).sum(1) + (other.exp() * (other - middle)).sum(1)).clamp_min(0)
