"""Training: the paper's recipe and a modern one, resumable after every epoch with equal results."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import stream, torch_seed
from heatprint.core.values import Batch
from heatprint.models.augment import Augmentation, augmented
from heatprint.models.resume import Epoch, load_state, save_state
from heatprint.models.wrap import wrap


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained. The defaults are the modern recipe; `PAPER` is the paper's.

    Attributes:
        optimiser: ``"adamw"`` or ``"sgd"`` (Nesterov when `momentum` > 0).
        schedule: ``"one-cycle"``: linear warm-up to `lr`, cosine to 0; ``"keras-decay"``:
            lr / (1 + decay * step), as Keras' SGD did in 2020; ``"constant"``.
        lr: Largest learning rate.
        decay: Of the Keras schedule, per step.
        momentum: Of SGD.
        weight_decay: On weights of convolutions and dense layers; never on biases and batch norm.
        batch: Images per step.
        stages: Pairs (epochs, image size), e.g. ((28, 64), (7, 112)): small images first cost a third.
        warm_up: Share of all steps spent warming up.
        label_smoothing: In [0, 1).
        clip: Largest gradient norm; 0 for no clipping.
        augmentation: Random crops, flips and light.
    """

    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one-cycle", "keras-decay", "constant"] = "one-cycle"
    lr: float = 2e-3
    decay: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.05
    batch: int = 32
    stages: tuple[tuple[int, int], ...] = ((28, 64), (4, 112))
    warm_up: float = 0.15
    label_smoothing: float = 0.05
    clip: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.batch < 2 or not self.stages or any(e < 1 or s < 8 for e, s in self.stages):
            raise InvalidInput(
                f"Training: batch = {self.batch} must be 2 or more, and stages = {self.stages} pairs "
                "(epochs >= 1, size >= 8)."
            )
        if not 0 < self.lr < math.inf:
            raise InvalidInput(f"Training: lr = {self.lr} must be positive and finite.")
        for name, top in (("decay", 1), ("momentum", 1), ("weight_decay", 1), ("warm_up", 1), ("label_smoothing", 1)):
            if not 0 <= getattr(self, name) < top:
                raise InvalidInput(f"Training: {name} = {getattr(self, name)} must be 0 or more and below {top}.")
        if not 0 <= self.clip < math.inf:
            raise InvalidInput(f"Training: clip = {self.clip} must be 0 (no clipping) or a positive number.")


PAPER = Training(
    optimiser="sgd",
    schedule="keras-decay",
    lr=1e-3,
    decay=1e-6,
    weight_decay=0.0,
    stages=((60, 112),),
    label_smoothing=0.0,
    augmentation=Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, jitter=0.0),
)
"""SGD 0.001 with Keras decay 1e-6 (paper, section 4.2); momentum 0.9 and the epochs are our assumption."""


def train(
    classifier: Classifier,
    data: Batch,
    training: Training,
    *,
    seed: int = 0,
    name: str | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> tuple[Classifier, tuple[Epoch, ...]]:
    """Train a copy of a classifier's network.

    Args:
        classifier: Where training starts: fresh weights, or trained ones for fine-tuning.
        data: Labelled images.
        training: The recipe.
        seed: Of order, crops and dropout.
        name: Name of the result.
        checkpoint: A file kept after every epoch; a later call with equal arguments resumes from it and gives
            bit-identical weights.
        progress: Told of every step.

    Returns:
        A new classifier, and loss and accuracy of each epoch on the augmented training images.
    """
    if len(data) < training.batch:
        raise InvalidInput(f"train: {len(data)} images are fewer than one batch of {training.batch}.")
    network = copy.deepcopy(classifier.trainable).requires_grad_(True)
    optimiser = _optimiser(network, training)
    plan = [size for epochs, size in training.stages for _ in range(epochs)]
    key = digest(training, seed, classifier.digest, data.ids, data.pixels, data.labels)
    history = load_state(checkpoint, key, network, optimiser) if checkpoint else []
    steps = math.ceil(len(data) / training.batch)
    with torch.random.fork_rng(devices=[classifier.device] if classifier.device.type == "cuda" else []):
        for epoch in range(len(history), len(plan)):
            torch.manual_seed(torch_seed(seed, "dropout", epoch))
            history.append(_epoch(network, optimiser, classifier, data, training, epoch, plan, steps, seed, progress))
            if checkpoint:
                save_state(checkpoint, key, network, optimiser, history)
    trained = wrap(
        network,
        classes=classifier.classes,
        size=classifier.size,
        mean=classifier.mean,
        std=classifier.std,
        name=name or classifier.name,
        architecture=classifier.architecture,
    )
    return trained, tuple(history)


def _epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    classifier: Classifier,
    data: Batch,
    training: Training,
    epoch: int,
    plan: Sequence[int],
    steps: int,
    seed: int,
    progress: Progress,
) -> Epoch:
    """One pass over the images in a new order."""
    network.train()
    rng = stream(seed, "train", counter=epoch)
    device = classifier.device
    narrow = device.type == "cuda" and torch.cuda.is_bf16_supported()
    order = torch.from_numpy(rng.permutation(len(data)))
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for step, rows in enumerate(torch.split(order, training.batch)):
        if len(rows) < 2:
            continue  # batch norm cannot learn from one image; it is first in line in another epoch
        rate = learning_rate(training, epoch * steps + step, len(plan) * steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        pixels, labels = data.pixels[rows].to(device), data.labels[rows].to(device)
        inputs = classifier.normalise(augmented(to_images(pixels), plan[epoch], training.augmentation, rng))
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=narrow):
            logits = network(inputs)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=training.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if training.clip:
            nn.utils.clip_grad_norm_(network.parameters(), training.clip)
        optimiser.step()
        loss_sum += loss.detach() * len(rows)
        correct += (logits.detach().argmax(1) == labels).sum()
        if step % 10 == 0 or step == steps - 1:
            progress(epoch * steps + step + 1, len(plan) * steps, f"epoch {epoch + 1}/{len(plan)}")
    return Epoch(
        epoch=epoch,
        size=plan[epoch],
        loss=round(float(loss_sum) / len(data), 6),
        accuracy=round(float(correct) / len(data), 6),
    )


def learning_rate(training: Training, step: int, steps: int) -> float:
    """The learning rate of a step in [0, steps)."""
    if training.schedule == "constant":
        return training.lr
    if training.schedule == "keras-decay":
        return training.lr / (1 + training.decay * step)
    rise = max(1, round(training.warm_up * steps))
    if step < rise:
        return training.lr * (step + 1) / rise
    return training.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    decayed: list[Tensor] = [p for p in network.parameters() if p.ndim > 1]
    plain: list[Tensor] = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if training.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=training.lr)
    return torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0)
