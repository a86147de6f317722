"""Knowledge distillation with a temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, ModelMismatch
from heatprint.core.protocols import Progress
from heatprint.core.streams import torch_seed
from heatprint.core.values import Attacked, Batch
from heatprint.defences.stages import files, stage
from heatprint.models.checkpoint import load
from heatprint.models.lesson import Lesson
from heatprint.models.predict import predict
from heatprint.models.train import Training, train
from heatprint.models.wrap import wrap
from heatprint.models.zoo import build


@dataclass(frozen=True, kw_only=True)
class Distil:
    """A network learns the soft answers of another at a temperature, and is used at temperature 1.

    Defensive distillation (Papernot, McDaniel, Wu, Jha and Swami 2016, section IV, eqs. 5 to 8): a teacher is trained
    with softmax(z / T), the student of the same architecture on the teacher's softmax(z / T) of the training images,
    also through softmax(z / T); both from fresh weights. T is then put to 1, so that the student's logits are about T
    times as large as usual.

    It masks gradients, and nothing more: probabilities saturate and the gradient of the cross-entropy underflows, so
    that attacks that follow it stand still. A loss of logits goes through (Carlini and Wagner 2017, section VIII: every
    image falls). Never choose it against attacks that use gradients, and never believe its number under one that uses
    the cross-entropy.

    Deviation: soft labels are of the images as they are, the student sees them augmented.

    Attributes:
        temperature: T, 1 or more; the paper's 20 to 100.
        teacher: Folder of a saved classifier that teaches as it is, of any architecture (Hinton, Vinyals and Dean
            2015), with the same classes and image size. Empty for the network given, trained anew at T.
        taught_by: Digest of that classifier, read when the method is made, so that whoever keeps results by settings
            sees another teacher in the same folder. Empty without one.
        fresh: Start from fresh weights, as the paper does; they need a training as long as the first was. Otherwise,
            and for a network that is not in the zoo, from the weights given.
        training: The recipe, of teacher and student. With SGD and a large T the steps get small: the loss has 1 / T of
            the usual gradient, as in the paper. AdamW does not mind.
    """

    temperature: float = 20.0
    teacher: str = ""
    taught_by: str = field(init=False, default="")
    fresh: bool = True
    training: Training = field(default_factory=lambda: Training(label_smoothing=0.0, stages=((28, 64), (4, 0))))

    def __post_init__(self) -> None:
        if not 1 <= self.temperature < math.inf:
            raise InvalidInput(
                f"Distil: temperature = {self.temperature} must be 1 or more and finite. Write 20 for the paper's."
            )
        if self.training.label_smoothing:
            raise InvalidInput(
                f"Distil: label_smoothing = {self.training.label_smoothing} would soften labels that the temperature "
                "softens already. Write label_smoothing=0."
            )
        if self.teacher:
            object.__setattr__(self, "taught_by", load(self.teacher).digest)

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
        """See `heatprint.core.protocols.Defence`.

        Raises:
            InvalidInput: The network is not in the zoo, and fresh weights are asked for; or the teacher's folder holds
                another classifier than when the method was made.
            ModelMismatch: The teacher has other classes or another image size.
        """
        del attacked
        student_start = self._start(classifier, torch_seed(seed, "distil/student"))
        (kept,) = files(checkpoint, "teacher")
        if self.teacher:
            teacher = checked(self._saved().to(classifier.device), classifier)
        else:
            start = self._start(classifier, torch_seed(seed, "distil/teacher"))
            teacher, _ = train(
                start, train_batch, self.training, objective=Tempered(temperature=self.temperature),
                seed=torch_seed(seed, "distil/teacher"), checkpoint=kept, progress=stage(progress, 0, 2, "teacher"),
            )  # fmt: skip
        soft = (predict(teacher, train_batch.pixels) / self.temperature).softmax(1)
        student, _ = train(
            student_start, train_batch, self.training, objective=Soft(temperature=self.temperature, soft=soft),
            seed=torch_seed(seed, "distil/student"), checkpoint=checkpoint,
            progress=progress if self.teacher else stage(progress, 1, 2, "student"),
        )  # fmt: skip
        return student

    def _saved(self) -> Classifier:
        """The saved teacher."""
        teacher = load(self.teacher)
        if teacher.digest != self.taught_by:
            raise InvalidInput(
                f"Distil: {self.teacher} holds another classifier than when the method was made. Make it again."
            )
        return teacher

    def _start(self, classifier: Classifier, seed: int) -> Classifier:
        """Where a training starts."""
        if not self.fresh:
            return classifier
        if not classifier.architecture:
            raise InvalidInput(
                f"Distil: {classifier.name!r} wraps a network of your own, for which there are no fresh weights. Write "
                "fresh=False to train on from the ones it has."
            )
        network = build(classifier.architecture, classes=len(classifier.classes), size=classifier.size, seed=seed)
        made = wrap(network, classes=classifier.classes, size=classifier.size, mean=classifier.mean, std=classifier.std,
                    name=classifier.name, architecture=classifier.architecture)  # fmt: skip
        return made.to(classifier.device)


@dataclass(frozen=True, kw_only=True)
class Tempered:
    """Cross-entropy at a temperature.

    Attributes:
        temperature: What logits are divided by.
    """

    temperature: float
    replays = 1

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        logits = lesson.logits(lesson.images)
        return F.cross_entropy(logits / self.temperature, lesson.labels), logits


@dataclass(frozen=True, kw_only=True, eq=False)
class Soft:
    """Cross-entropy at a temperature, with the probabilities of a teacher for labels.

    Attributes:
        temperature: What logits are divided by.
        soft: The teacher's probabilities of every training image, float32 [N, K].
    """

    temperature: float
    soft: Tensor
    replays = 1

    def loss(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See `heatprint.models.lesson.Objective`."""
        logits = lesson.logits(lesson.images)
        return F.cross_entropy(logits / self.temperature, self.soft[lesson.rows].to(logits)), logits


def checked(teacher: Classifier, student: Classifier) -> Classifier:
    """A teacher that can teach this student.

    Raises:
        ModelMismatch: It has other classes or another image size.
    """
    if (teacher.classes, teacher.size) != (student.classes, student.size):
        raise ModelMismatch(
            f"Distil: the teacher knows {', '.join(teacher.classes)} at {teacher.size} px, the student is for "
            f"{', '.join(student.classes)} at {student.size} px. Name a teacher of the same classes, in the same "
            "order, and of the same size."
        )
    return teacher
