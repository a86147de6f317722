"""Small pieces of what a study does to its folder, to be disturbed at every write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from harness import RECIPE
from PIL import Image

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Progress, silent
from heatprint.core.store import Part, Store, write_atomic
from heatprint.data.sources import Dataset, load_dataset
from heatprint.models import load
from heatprint.models.resume import UNFINISHED, Epoch
from heatprint.models.train import Training, _Course, train
from heatprint.study.checks import same_study
from heatprint.study.engines import Local, Task
from heatprint.study.images import read_images
from heatprint.study.parts import Piece, Workshop
from heatprint.study.progress import SILENT, Logged
from heatprint.study.recipe import DefenceTable, Recipe, RetrainingTable, load_recipe
from heatprint.study.steps import Lab
from heatprint.testing import labelled_batch, small_classifier

Work = Callable[[Path, Path], None]
"""Does something to a run folder, the first; notes every part and epoch that it computes in the file that is second."""


def note(log: Path) -> None:
    """Say that something was computed."""
    with log.open("a") as file:
        file.write("\n")


def computed(log: Path) -> int:
    """How many parts and epochs were."""
    return len(log.read_text()) if log.exists() else 0


def nothing(root: Path, log: Path) -> None:
    """Leave the folder as it is: there is none."""


@cache
def tiny() -> Recipe:
    """A recipe, read once."""
    return load_recipe("tiny")


@cache
def small() -> Recipe:
    """The recipe of the crash tests."""
    return load_recipe(RECIPE)


@cache
def short() -> Recipe:
    """A study of few steps."""
    attack = small().attacks[0].model_copy(update={"retrain": False})
    return small().model_copy(
        update={"attacks": (attack,), "retraining": small().retraining.model_copy(update={"control": False})}
    )


def begin(root: Path, log: Path) -> None:
    """Take a new folder, and say in the journal that a step began and ended."""
    store = Store(root)
    with store.writing():
        same_study(store, tiny())
        with Logged(SILENT, root / "events.jsonl").step("x") as progress:
            progress(1, 1)


@cache
def victim() -> Classifier:
    """What the parts are about."""
    return small_classifier()


def part(classifier: Classifier, number: int, log: Path, progress: Progress = silent) -> Part:
    """A part that takes no time: rows, and arrays if its number is even."""
    note(log)
    square = np.full((3, 2), number**2, np.float32)
    return Part(rows={"number": [number] * 3}, arrays={} if number % 2 else {"square": square})


def parts(root: Path, log: Path, count: int = 2) -> None:
    """A step of two parts."""
    store = Store(root)
    with store.writing(), closing(Local(1)) as engine:
        pieces = [
            Piece(key=n, images=3, task=lambda n=n: Task(function=part, arguments={"number": n, "log": log}))
            for n in range(count)
        ]
        found = list(Workshop(store=store, engine=engine).parts("attacks/x", victim(), pieces))
    assert [one.rows["number"][0] for one in found] == list(range(count))


def more_parts(root: Path, log: Path) -> None:
    """A step of four parts, of which a smaller study leaves two."""
    parts(root, log, 4)


def photographs(root: Path, log: Path) -> None:
    """Images, beside the run folder."""
    for number in range(8):
        path = root.parent / "source" / ("training_set", "test_set")[number // 4] / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (30 * number, 9, 200)).save(path)


def images(root: Path, log: Path) -> None:
    """The images of a source, read into the folder."""
    store = Store(root)
    with store.writing():
        assert len(read_images(store, str(root.parent / "source"), size=16).train) == 4


@contextmanager
def epochs_noted(log: Path) -> Iterator[None]:
    """Note every epoch that is trained, inside."""
    real = _Course.epoch

    def epoch(course: _Course, number: int) -> Epoch:
        note(log)
        return real(course, number)

    _Course.epoch = epoch  # type: ignore[method-assign]
    try:
        yield
    finally:
        _Course.epoch = real  # type: ignore[method-assign]


def checkpoints(root: Path, log: Path) -> None:
    """A training of two epochs with a checkpoint after each."""
    few, two = labelled_batch(victim(), 8), Training(stages=((2, 8),), batch=8)
    with Store(root).writing(), epochs_noted(log):
        train(victim(), few, two, checkpoint=root / UNFINISHED)


@cache
def untrained() -> tuple[Classifier, Dataset]:
    """What is trained, and on what."""
    data = load_dataset("menagerie", size=32, train=16, test=4)
    return load("vgg-slim", classes=data.classes, size=32, seed=0).named("clear"), data


@cache
def trainings() -> Recipe:
    """Trainings of two epochs on a handful of images, and a defence of two such trainings."""
    two = Training(stages=((2, 32),), batch=8)
    both = {"members": 2, "training": {"stages": [[2, 32]], "batch": 8}}
    return tiny().model_copy(
        update={"training": two, "attacks": (), "retraining": RetrainingTable(training=two, control=False),
                "defences": (DefenceTable(name="both", method="ensemble", settings=both),)}
    )  # fmt: skip


def lab(root: Path) -> Lab:
    """The steps of a study."""
    return Lab(trainings(), Store(root), SILENT, Local(1))


def model(root: Path, log: Path) -> None:
    """A model, saved after a training that takes no time and leaves a checkpoint."""

    def make(progress: Progress) -> tuple[Classifier, tuple[Epoch, ...]]:
        note(log)
        write_atomic(root / "models" / "clear" / UNFINISHED, b"state")
        return untrained()[0], (Epoch(epoch=0, size=32, loss=1.0, accuracy=0.5),)

    with Store(root).writing():
        lab(root)._model("clear", "key", make)


def training(root: Path, log: Path) -> None:
    """A model, trained with a checkpoint after every epoch, and saved."""
    with Store(root).writing(), epochs_noted(log):
        lab(root).train(*untrained())


def defence(root: Path, log: Path) -> None:
    """A defence of several trainings, each with a checkpoint of its own."""
    fresh, data = untrained()
    with Store(root).writing(), epochs_noted(log):
        lab(root).defend(fresh, data.train, {})


WORKS: dict[str, tuple[Work, Work]] = {
    "begin": (nothing, begin),
    "parts": (nothing, parts),
    "fewer parts": (more_parts, parts),
    "images": (photographs, images),
    "checkpoints": (nothing, checkpoints),
    "model": (nothing, model),
    "training": (nothing, training),
    "defence": (nothing, defence),
}
"""What is there before, and what is disturbed."""


def warm() -> None:
    """Make once what every work needs, and nothing that starts a thread."""
    tiny(), short(), victim(), untrained(), trainings()
