"""Training: the paper's recipe and a modern one, resumable after every epoch with equal results."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import stream, torch_seed
from heatprint.core.values import Batch
from heatprint.models.augment import Augmentation, augmented
from heatprint.models.distributed import ALONE, World
from heatprint.models.lesson import CrossEntropy, Lesson, Objective, Validation
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
        stages: Pairs (epochs, image size), e.g. ((28, 64), (7, 112)): small images first cost a third. Size 0 is the
            classifier's own.
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
        if self.batch < 2 or not self.stages or any(e < 1 or (s < 8 and s != 0) for e, s in self.stages):
            raise InvalidInput(
                f"Training: batch = {self.batch} must be 2 or more, and stages = {self.stages} pairs "
                "(epochs >= 1, size >= 8, or 0 for the classifier's own)."
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
    objective: Objective | None = None,
    validation: Validation | None = None,
    learns: str = "",
    seed: int = 0,
    name: str | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
    world: World = ALONE,
) -> tuple[Classifier, tuple[Epoch, ...]]:
    """Train a copy of a classifier's network.

    Args:
        classifier: Where training starts: fresh weights, or trained ones for fine-tuning.
        data: Labelled images.
        training: The recipe.
        objective: What is minimised; without one, cross-entropy on the images.
        validation: What is measured after every epoch, and when that ends the training.
        learns: The part of the network that learns, by its name in it, e.g. ``"front"``; all else stays bit for bit,
            and in evaluation mode. Empty for the whole network.
        seed: Of order, crops and dropout.
        name: Name of the result.
        checkpoint: A file kept after every epoch; a later call with equal arguments resumes from it and gives
            bit-identical weights.
        progress: Told of every step, and that it is done, however early it ended.
        world: The processes that train together, each calling this with equal arguments (see `models.distributed`):
            every batch is divided among them, with the same images in the same order as in one process. All
            read `checkpoint`, and only the first writes it.

    Returns:
        A new classifier, and loss and accuracy of each epoch on the augmented training images.

    Raises:
        InvalidInput: Fewer images than a batch, a loss that is not finite, or processes that do not fit together.
        Unsupported: Batch norm that processes on the CPU cannot measure together.
        ModelMismatch: The weights are not finite after the last step of an epoch.
    """
    if len(data) < training.batch:
        raise InvalidInput(f"train: {len(data)} images are fewer than one batch of {training.batch}.")
    _check_world(world, classifier.trainable, training, objective, validation)
    network = copy.deepcopy(classifier.trainable)
    course = _Course(network, learns, classifier, data, training, objective or CrossEntropy(), seed, progress, world)
    key = digest(training, objective, validation and (validation.score, validation.patience, validation.key), learns,
                 seed, classifier.digest, data.ids, data.pixels, data.labels)  # fmt: skip
    history, best = load_state(checkpoint, key, network, course.optimiser) if checkpoint else ([], {})
    if not world.agrees(f"{key} {len(history)}"):
        raise InvalidInput(
            f"train: the {world.size} processes differ in images, recipe, seed or checkpoint. Start all with the same "
            "command, and keep the images and the run folder where every machine sees them."
        )
    with torch.random.fork_rng(devices=[classifier.device] if classifier.device.type == "cuda" else []):
        while len(history) < len(course.plan) and not _over(history, validation):
            epoch = len(history)
            torch.manual_seed(torch_seed(seed, "dropout", epoch, *([world.rank] if world.rank else [])))
            done = course.epoch(epoch)
            if validation is not None:
                done = replace(done, measured=dict(validation.measure(_wrapped(network, classifier))))
            history.append(done)
            if validation is not None and _best(history, validation.score) == epoch:
                best = {k: v.detach().clone() for k, v in network.state_dict().items()}
            if checkpoint and world.leads:
                save_state(checkpoint, key, network, course.optimiser, history, best)
    if best:
        network.load_state_dict(best)
    course.over(len(history))
    return _wrapped(network, classifier, name), tuple(history)


def _check_world(
    world: World, network: nn.Module, training: Training, objective: Objective | None, validation: Validation | None
) -> None:
    """Refuse what several processes cannot divide among them."""
    if world.size == 1:
        return
    if objective is not None or validation is not None:
        raise InvalidInput(
            f"train: {world.size} processes divide a training on cross-entropy, without a validation; another "
            "objective draws its random numbers for whole batches. Train that in one process."
        )
    if world.size > training.batch:
        raise InvalidInput(
            f"train: {world.size} processes cannot divide batches of {training.batch} images. Start at most "
            f"{training.batch}, or raise batch."
        )
    world.check(network)


def _over(history: Sequence[Epoch], validation: Validation | None) -> bool:
    """Whether a training ends before its last epoch."""
    if validation is None or not history:
        return False
    if validation.alarm is not None and validation.alarm([epoch.measured for epoch in history]):
        return True
    late = len(history) - 1 - _best(history, validation.score)
    return bool(validation.score and validation.patience and late >= validation.patience)


def _best(history: Sequence[Epoch], score: str) -> int:
    """The epoch of the largest score, the first of equal ones; the last where nothing is scored."""
    if not score:
        return len(history) - 1
    return max(range(len(history)), key=lambda epoch: (history[epoch].measured[score], -epoch))


def _wrapped(network: nn.Module, like: Classifier, name: str | None = None) -> Classifier:
    return wrap(network, classes=like.classes, size=like.size, mean=like.mean, std=like.std, name=name or like.name,
                architecture=like.architecture)  # fmt: skip


class _Course:
    """A network on its way through the epochs of a recipe."""

    def __init__(
        self,
        network: nn.Module,
        learns: str,
        classifier: Classifier,
        data: Batch,
        training: Training,
        objective: Objective,
        seed: int,
        progress: Progress,
        world: World,
    ) -> None:
        self.network, self._classifier, self._data, self._training = network, classifier, data, training
        self._objective, self._seed, self._progress, self._world = objective, seed, progress, world
        self._learner = network.get_submodule(learns).requires_grad_(True)
        self.optimiser = _optimiser(self._learner, training)
        self.plan = [size or classifier.size for epochs, size in training.stages for _ in range(epochs)]
        self._steps = math.ceil((len(data) - 1) / training.batch)  # batch norm cannot learn from one image left over

    def epoch(self, epoch: int) -> Epoch:
        """One pass over the images in a new order."""
        self._learner.train()
        taught = self._world.parallel(self.network)  # anew each epoch, as in a process that resumes here
        rng = stream(self._seed, "train", counter=epoch)
        device, data, training = self._classifier.device, self._data, self._training
        order = torch.from_numpy(rng.permutation(len(data)))
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        for step, rows in enumerate(torch.split(order, training.batch)[: self._steps]):
            rate = learning_rate(training, epoch * self._steps + step, len(self.plan) * self._steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            share = self._world.share(len(rows))
            own = rows[share]
            pixels, labels = data.pixels[own].to(device), data.labels[own].to(device)
            lesson = Lesson(
                network=taught, normalise=self._classifier.normalise, labels=labels, rows=own,
                epoch=epoch, rng=rng,
                images=augmented(to_images(pixels), self.plan[epoch], training.augmentation, rng,
                                 count=len(rows), share=share),
                label_smoothing=training.label_smoothing,
            )  # fmt: skip
            for _ in range(self._objective.replays):
                loss, logits = self._step(lesson, len(rows))
            loss_sum += loss * len(own) if len(own) else 0
            correct += (logits.argmax(1) == labels).sum()
            if step % 10 == 0 or step == self._steps - 1:
                done = epoch * self._steps + step + 1
                self._progress(done, len(self.plan) * self._steps, f"epoch {epoch + 1}/{len(self.plan)}")
        loss_sum, correct = self._world.summed(torch.stack([loss_sum, correct]))
        if not bool(loss_sum.isfinite()):
            raise InvalidInput(
                f"train: the loss of epoch {epoch + 1} is not finite; take a smaller learning rate than "
                f"lr = {training.lr:g}, or clip gradients (clip = 1)."
            )
        return Epoch(
            epoch=epoch,
            size=self.plan[epoch],
            loss=round(float(loss_sum) / len(data), 6),
            accuracy=round(float(correct) / len(data), 6),
        )

    def over(self, epochs: int) -> None:
        """Tell that the training is done, after so many epochs."""
        total = len(self.plan) * self._steps
        early = "" if epochs == len(self.plan) else ", and no more"
        self._progress(total, total, f"epoch {epochs}/{len(self.plan)}{early}")

    def _step(self, lesson: Lesson, count: int) -> tuple[Tensor, Tensor]:
        """One step of the optimiser on a batch of `count`; loss and logits of the lesson's share of it before."""
        narrow = lesson.images.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=narrow):
            loss, logits = self._objective.loss(lesson)
        self.optimiser.zero_grad(set_to_none=True)
        self._world.weighed(loss, logits, count).backward()  # type: ignore[no-untyped-call]
        if self._training.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._training.clip)
        self.optimiser.step()
        return loss.detach(), logits.detach()


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
