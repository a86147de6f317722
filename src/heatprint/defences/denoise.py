"""A denoising autoencoder before the network, and MagNet's reformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.lattice import Level, check_level
from heatprint.core.protocols import Progress
from heatprint.core.streams import torch_seed
from heatprint.core.values import Attacked, Batch
from heatprint.defences.contractive import jacobian_penalty, layer_points
from heatprint.models.augment import Augmentation
from heatprint.models.compose import Fronted, fronted
from heatprint.models.lesson import Lesson
from heatprint.models.parts.autoencoder import Autoencoder
from heatprint.models.train import Training, train

NOISES = ("gaussian", "sign", "salt and pepper")
ATTACKS = ("fgsm", "pgd")

AUTOENCODER = Training(
    lr=3e-3,
    weight_decay=0.0,
    label_smoothing=0.0,
    stages=((10, 0),),
    augmentation=Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True, jitter=0.0),
)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """What is done to training images. Each image meets one kind, at a strength drawn evenly from 0 to the largest.

    Attributes:
        kinds: Of `NOISES` and `ATTACKS`, in equal shares.
        noise: Largest standard deviation of Gaussian noise, pixel values in [0, 1].
        eps: Largest change of sign noise, FGSM and PGD, likewise; ``"8/255"`` is accepted.
        salt: Largest share of pixels that become black or white.
        steps: Of PGD.
    """

    kinds: tuple[str, ...]
    noise: float
    eps: Level
    salt: float
    steps: int

    def corrupted(self, network: nn.Module, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] to the same; attacks are on `network`, which takes such images."""
        kind = torch.from_numpy(rng.integers(0, len(self.kinds), len(images))).to(images.device)
        strength = torch.from_numpy(rng.random(len(images), dtype=np.float32)).to(images).view(-1, 1, 1, 1)
        generator = torch.Generator(images.device).manual_seed(int(rng.integers(2**63)))
        out = images.clone()
        for number, name in enumerate(self.kinds):
            rows = (kind == number).nonzero().squeeze(1)
            if len(rows):
                out[rows] = self._one(name, network, images[rows], strength[rows], generator)
        return out

    def _one(
        self, name: str, network: nn.Module, images: Tensor, strength: Tensor, generator: torch.Generator
    ) -> Tensor:
        def drawn(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=images.device)

        eps = strength * self.eps
        if name == "gaussian":
            noise = torch.randn(images.shape, generator=generator, device=images.device)
            return (images + strength * self.noise * noise).clamp(0, 1)
        if name == "sign":
            return (images + eps * (drawn(*images.shape) - 0.5).sign()).clamp(0, 1)
        if name == "salt and pepper":
            hit = drawn(len(images), 1, *images.shape[2:]) < strength * self.salt
            return torch.where(hit, (drawn(*images.shape) < 0.5).to(images), images)
        if name == "fgsm":
            return climbed(network, images, images, eps, eps, steps=1)
        start = images + eps * (2 * drawn(*images.shape) - 1)
        return climbed(network, images, start.clamp(0, 1), eps, 2.5 * eps / self.steps, steps=self.steps)


def climbed(network: nn.Module, images: Tensor, start: Tensor, eps: Tensor, step: Tensor, *, steps: int) -> Tensor:
    """Images after signed steps away from the network's own answers, within `eps` [N, 1, 1, 1] of where they were.

    (Goodfellow et al. 2015 with one step; Madry et al. 2018, eq. 1.) Nothing is rounded and nobody judges: these are
    lessons, not results.
    """
    with torch.no_grad():
        goal = untargeted(network(images).argmax(1))
    current = start
    for _ in range(steps):
        with torch.enable_grad():
            here = current.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(goal.cross_entropy(network(here).float()).sum(), here)
        moved = (current + step * gradient.sign()).clamp(0, 1)
        current = torch.minimum(torch.maximum(moved, images - eps), images + eps)
    return current.detach()


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """A small U-Net that takes perturbations off before the network sees them; the network stays as it is.

    It learns on the classifier's training images, with noise and with FGSM and PGD on the bare classifier; the loss is
    the mean squared error of the image plus `divergence` times KL(f(x) | f(A(x'))), f the probabilities of the frozen
    classifier, A the autoencoder, x' the corrupted image. The second term asks for what the classifier reads, not for
    pixels (Liao et al. 2018, "Defense against Adversarial Attacks Using High-Level Representation Guided Denoiser",
    section 3.3, with log-probabilities for features). With `learn_from` ``"noise"`` it is a reformer as in MagNet (Meng
    and Chen 2017, section 4.4): noise and the squared error alone, of no attack and no classifier.

    It helps where the attacker does not know of it. Attacked as one network it falls like any other (Gu and Rigazio
    2014, section 4; Athalye and Carlini 2018 on the work of Liao et al.): the white-box number belongs beside it.

    Deviations: correction and clipping as in `models.parts.autoencoder`; each image meets one kind of corruption, at a
    strength drawn evenly from nothing to the largest, so that weak attacks and clean images are learnt, too.

    Attributes:
        learn_from: ``"attacks"`` for noise and attacks, or ``"noise"``.
        divergence: Weight of the KL divergence in nats, 0 or more; not used with ``"noise"``.
        error: Weight of the mean squared error, pixel values in [0, 1]; 0 or more.
        contraction: Weight of the mean squared gradients of the autoencoder's layers (`defences.contractive`), 0 or
            more: the deep contractive autoencoder of Gu and Rigazio (2014, section 3).
        noise: Largest standard deviation of Gaussian noise, pixel values in [0, 1].
        eps: Largest change by sign noise, FGSM and PGD, likewise.
        salt: Largest share of pixels that become black or white, 0 to 1.
        steps: Of PGD, 1 or more.
        channels: Filters at the full size, 1 or more.
        training: The recipe.
    """

    learn_from: Literal["attacks", "noise"] = "attacks"
    divergence: float = 1.0
    error: float = 1.0
    contraction: float = 0.0
    noise: float = 0.05
    eps: Level = 8 / 255
    salt: float = 0.001
    steps: int = 5
    channels: int = 8
    training: Training = field(default_factory=lambda: AUTOENCODER)

    def __post_init__(self) -> None:
        if self.learn_from not in ("attacks", "noise"):
            raise InvalidInput(f"Denoise: learn_from = {self.learn_from!r} must be 'attacks' or 'noise'.")
        for name in ("noise", "eps", "salt"):
            check_level(f"Denoise: {name}", getattr(self, name))
        for name in ("divergence", "error", "contraction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"Denoise: {name} = {getattr(self, name)} must be 0 or more and finite.")
        if self.error == 0 and (self.divergence == 0 or self.learn_from == "noise"):
            raise InvalidInput("Denoise: there is nothing to learn; write error=1.")
        if self.steps < 1 or self.channels < 1:
            raise InvalidInput(f"Denoise: steps = {self.steps} and channels = {self.channels} must be 1 or more.")

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
        del attacked  # attacks are made anew for every batch
        front = Autoencoder(self.channels, torch_seed(seed, "denoise/weights")).to(classifier.device)
        start = fronted(classifier, front, f"autoencoder:{self.channels}")
        safe, _ = train(start, train_batch, self.training, objective=self.objective(), learns="front", seed=seed,
                        checkpoint=checkpoint, progress=progress)  # fmt: skip
        return safe

    def objective(self) -> Denoising:
        """What is minimised."""
        attacks = self.learn_from == "attacks"
        corruption = Corruption(kinds=NOISES + ATTACKS if attacks else NOISES, noise=self.noise, eps=self.eps,
                                salt=self.salt, steps=self.steps)  # fmt: skip
        return Denoising(corruption=corruption, error=self.error, divergence=self.divergence if attacks else 0.0,
                         contraction=self.contraction)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """The loss of an autoencoder that stands before a frozen network; see `Denoise`."""

    corruption: Corruption
    error: float
    divergence: float
    contraction: float
    replays = 1

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        both = cast("Fronted", lesson.network)
        seen = self.corruption.corrupted(both.network, lesson.images, lesson.rng).requires_grad_(True)
        points = layer_points(both.front, lambda: both.front(seen))
        cleaned = points[-1]
        logits = both.network(cleaned).float()
        loss = self.error * F.mse_loss(cleaned.float(), lesson.images)
        if self.divergence:
            with torch.no_grad():
                told = both.network(lesson.images).float().log_softmax(1)
            gap = F.kl_div(logits.log_softmax(1), told, log_target=True, reduction="batchmean")
            loss = loss + self.divergence * gap
        if self.contraction:
            loss = loss + self.contraction * jacobian_penalty(points, lesson.rng, 1)
        return loss, logits
