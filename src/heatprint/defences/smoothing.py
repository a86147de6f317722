"""Randomised smoothing: a vote under noise, with a certificate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import beta, norm
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import torch_seed
from heatprint.core.values import Attacked, Batch
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models.compose import composed, inside
from heatprint.models.lesson import Lesson
from heatprint.models.parts.smoothed import Smoothed
from heatprint.models.predict import batch_size
from heatprint.models.train import Training, train
from heatprint.models.wrap import wrap

ABSTAIN = -1


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Train on under Gaussian noise, and ask under Gaussian noise (Cohen, Rosenfeld and Kolter 2019).

    The fine-tuning adds fresh noise N(0, sigma^2) to every image (section 3.3); nothing is clipped. The result asks the
    network under `draws` fixed draws and returns the logarithm of the mean probabilities: a function of the image that
    an attacker can differentiate, and an estimate of the smoothed classifier, not that itself.

    A certificate is not of this classifier but of the vote under infinitely much noise, and comes from `certify`. It
    holds in L2: at 112 px a radius of 0.5 is 0.7 levels on every channel.

    Attributes:
        sigma: Standard deviation of the noise, pixel values in [0, 1]; above 0. The certified radius is a few sigma at
            most, and what it costs in accuracy grows with it.
        draws: Of the noise when asked, 1 or more; each costs a forward pass.
        training: The recipe.
    """

    sigma: float = 0.12
    draws: int = 16
    training: Training = field(default_factory=lambda: FINE_TUNE)

    def __post_init__(self) -> None:
        check_sigma("Smoothing", self.sigma)
        if self.draws < 1:
            raise InvalidInput(f"Smoothing: draws = {self.draws} must be 1 or more.")

    def protect(
        self,
        classifier: Classifier,
        train_batch: Batch,
        attacked: Mapping[str, Attacked],
        *,
        seed: int,
        checkpoint: Path | None,
        progress: Progress,
    ) -> Classifier:
        """See `heatprint.core.protocols.Defence`."""
        del attacked
        hardened, _ = train(classifier, train_batch, self.training, objective=Noisy(sigma=self.sigma), seed=seed,
                            checkpoint=checkpoint, progress=progress)  # fmt: skip
        noise = seed % 2**32
        network = Smoothed(inside(hardened), self.draws, self.sigma, noise)
        return composed(network, hardened, f"smoothed:{self.draws}:{self.sigma}:{noise}", "")


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """Cross-entropy under Gaussian noise (Cohen et al. 2019, section 3.3).

    Attributes:
        sigma: Standard deviation, pixel values in [0, 1].
    """

    sigma: float
    replays = 1

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        noise = torch.from_numpy(lesson.rng.standard_normal(lesson.images.shape, dtype=np.float32))
        logits = lesson.logits(lesson.images + self.sigma * noise.to(lesson.images))
        return F.cross_entropy(logits, lesson.labels, label_smoothing=lesson.label_smoothing), logits


@dataclass(frozen=True, kw_only=True, eq=False)
class Certified:
    """What the smoothed classifier is known to answer, and how far around.

    Attributes:
        classes: int64 [N], -1 where it abstains.
        radius: float64 [N], in L2, pixel values in [0, 1]; 0 where it abstains.
        votes: int64 [N], votes for the class out of n.
    """

    classes: Tensor
    radius: Tensor
    votes: Tensor


@torch.no_grad()
def certify(
    classifier: Classifier,
    pixels: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    seed: int = 0,
    progress: Progress = silent,
) -> Certified:
    """The smoothed classifier's answers with certified radii (Cohen et al. 2019, section 3.2.2, Certify, theorem 1).

    g(x) is the class that `classifier` answers most often under N(0, sigma^2). The class is guessed from `n0` draws,
    and its share bounded from below by p from `n` fresh ones (Clopper and Pearson 1934, one-sided). Where p > 1/2,
    no image nearer than sigma * Phi^-1(p) is answered otherwise by g. The statement is wrong with a chance of `alpha`
    at most, image by image; that it holds for all of N images has a chance of 1 - N alpha or more.

    The noise of an image depends on its pixels and the seed alone, not on the batch it is in.

    Args:
        classifier: The classifier to be smoothed. Of one that `Smoothing` made, the network it asks is taken.
        pixels: uint8 [N, 3, H, W].
        sigma: Standard deviation of the noise, pixel values in [0, 1].
        n0: Draws for the guess.
        n: Draws for the bound; with n = 10,000 and alpha = 0.001 no radius is above 3.2 sigma.
        alpha: See above; above 0 and below 1.
        seed: Of the noise.
        progress: Told after each image.

    Raises:
        InvalidInput: A number out of range, or `Smoothing` made the classifier with another sigma.
    """
    check_sigma("certify", sigma)
    if n0 < 1 or n < 1 or not 0 < alpha < 1:
        raise InvalidInput(f"certify: n0 = {n0} and n = {n} must be 1 or more, and alpha = {alpha} between 0 and 1.")
    voter, smoothed = classifier, classifier.network
    if isinstance(smoothed, Smoothed):
        if smoothed.sigma != sigma:
            raise InvalidInput(
                f"certify: {classifier.name!r} asks under noise of {smoothed.sigma}; write sigma={smoothed.sigma}."
            )
        voter = unsmoothed(classifier)
    guess, votes = [], []
    for number, image in enumerate(pixels):
        one = to_images(image.to(voter.device))
        key = digest(image)
        first = int(counted(voter, one, sigma, n0, torch_seed(seed, "certify/guess", key)).argmax())
        guess.append(first)
        votes.append(int(counted(voter, one, sigma, n, torch_seed(seed, "certify/bound", key))[first]))
        progress(number + 1, len(pixels))
    share = torch.from_numpy(lower_bound(np.array(votes), n, alpha))
    sure = share > 0.5
    radius = torch.where(sure, sigma * torch.from_numpy(norm.ppf(share.numpy().clip(0.5, 1))), 0)
    return Certified(classes=torch.where(sure, torch.tensor(guess, dtype=torch.long), ABSTAIN), radius=radius,
                     votes=torch.tensor(votes, dtype=torch.long))  # fmt: skip


def counted(classifier: Classifier, image: Tensor, sigma: float, draws: int, seed: int) -> Tensor:
    """How often each class is answered to an image [3, H, W] under noise, int64 [K]."""
    device, step = classifier.device, batch_size(classifier)
    generator = torch.Generator(device).manual_seed(seed)
    votes = torch.zeros(len(classifier.classes), dtype=torch.long)
    for start in range(0, draws, step):
        shape = (min(step, draws - start), *image.shape)
        noise = torch.randn(shape, generator=generator, device=device)
        answers = classifier(image + sigma * noise).argmax(1).cpu()
        votes += torch.bincount(answers, minlength=len(votes))
    return votes


def lower_bound(count: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """The one-sided Clopper-Pearson bound below which a share lies with a chance of `alpha` at most, float64 [N]."""
    count = np.asarray(count)
    found = beta.ppf(alpha, np.maximum(count, 1), n - count + 1)
    return np.where(count > 0, found, 0.0).astype(np.float64)


def unsmoothed(classifier: Classifier) -> Classifier:
    """The network that a classifier of `Smoothing` asks, as a classifier."""
    network = classifier.trainable.get_submodule("network")
    return wrap(network, classes=classifier.classes, size=classifier.size, name=classifier.name)


def check_sigma(who: str, sigma: float) -> None:
    """Refuse a standard deviation that cannot be meant for pixels in [0, 1].

    Raises:
        InvalidInput: With what to write instead.
    """
    if not 0 < sigma <= 10 or not math.isfinite(sigma):
        raise InvalidInput(
            f"{who}: sigma = {sigma} must be above 0, in pixel values of [0, 1]. For {sigma:g} of 255 levels write "
            f"{sigma / 255:.3g}."
        )
