"""What commands on a model and images share: their options, reading both, and progress on standard error."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatprint.core.errors import InvalidInput, ModelMismatch, UnreadableData
from heatprint.core.reading import MOST_RECIPE, read_regular

if TYPE_CHECKING:
    from heatprint.core.classifier import Classifier
    from heatprint.core.protocols import Progress
    from heatprint.core.values import Batch
    from heatprint.data.folder import Loaded
    from heatprint.data.sources import Dataset
    from heatprint.study.progress import Watch

Model = Annotated[
    str, typer.Option(help="A saved model's folder, e.g. RUN/models/clear, or a name of `heatprint list models`.")
]
Method = Annotated[str, typer.Option(help="See `heatprint list explainers`.")]
Classes = Annotated[
    str, typer.Option(help="Class names of a model by name: a,b,c in the order of its logits, or a text file.")
]
Weights = Annotated[Path | None, typer.Option(help="Weights of a model by name: .safetensors or state_dict.")]
Size = Annotated[int, typer.Option(min=8, max=4096, help="Image side in pixels of a model by name.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many images, in equal shares of the folders.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="local, ray, or the address of a Ray cluster: HOST:6379, ray://HOST:10001.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Parts computed at a time; by default one on each core.")]

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")  # what a path makes of s3://bucket

METHOD, SIZE = "lrp.sequential_preset_a_flat", 112


def here(run: Path | None) -> Path | None:
    """A run folder of this machine, as the option of a command that only reads such.

    Raises:
        InvalidInput: It is the address of an object store.
    """
    if run is not None and ADDRESS.match(str(run)):
        raise InvalidInput(
            f"{run}: this command needs a folder of this machine. Copy the run there: heatprint fetch ADDRESS DIR, "
            "and name DIR."
        )
    return run


def read_classifier(model: str, classes: str, weights: Path | None, size: int) -> Classifier:
    """A saved model, or an architecture with its classes and weights."""
    from heatprint.models import load

    if Path(model).is_dir():
        if classes or weights:
            raise InvalidInput(
                f"--model: {model} is a saved model with classes and weights of its own; leave them out."
            )
        return load(model)
    if "/" in model and not model.startswith(("torchvision:", "timm:")):
        raise UnreadableData(f"--model: there is no folder {model}. A run keeps its models in RUN/models/.")
    names = _class_names(classes)
    if len(names) < 2:
        raise InvalidInput(f"--model: {model} is an architecture; name its classes: --classes cats,dogs (or a file).")
    if weights is None:
        typer.echo(
            f"heatprint: {model} has fresh random weights: its heat maps mean nothing. Give --weights.", err=True
        )
    return load(model, classes=names, size=size, weights=weights)


def _class_names(classes: str) -> list[str]:
    try:
        if "," not in classes and Path(classes).is_file():
            lines = read_regular(Path(classes), MOST_RECIPE).decode().splitlines()
            return [line.strip() for line in lines if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"--classes: {classes} is not UTF-8 text; write one class name per line.") from error
    return [name.strip() for name in classes.split(",") if name.strip()]


def read_images(path: Path, classifier: Classifier, limit: int | None) -> Loaded:
    """The images at a path, in the size of the classifier; what cannot be read is told and left out."""
    from heatprint.data import load_files

    with shown("reading images") as progress:
        found = load_files(path, size=classifier.size, classes=classifier.classes, limit=limit, progress=progress)
    for one in found.skipped:
        typer.echo(f"heatprint: skipped {one.id}: {one.reason}", err=True)
    return found


def check_classes(who: str, found: Dataset, classifier: Classifier) -> None:
    """Refuse images of other classes than the classifier's.

    Raises:
        ModelMismatch: Their names or their order differ.
    """
    if found.classes != classifier.classes:
        raise ModelMismatch(
            f"{who}: {found.name} has the classes {', '.join(found.classes)}, {classifier.name!r} has "
            f"{', '.join(classifier.classes)}. Both need the same, in the same order."
        )


def paired(clean: Batch, attacked: Batch, images: Path, against: Path) -> tuple[Batch, Batch]:
    """The images of two folders that have a partner in the other, both under the ids of the clean ones."""
    from heatprint.data.partners import partners

    partner = partners(clean.ids, attacked.ids)
    rows = [row for row, name in enumerate(clean.ids) if name in partner]
    if not rows:
        raise InvalidInput(f"--against: no image of {against} has the relative path of one in {images}, suffix aside.")
    if len(rows) < len(clean):
        typer.echo(f"heatprint: {len(clean) - len(rows)} images have no attacked copy in {against}.", err=True)
    kept, where = clean.take(rows), {name: row for row, name in enumerate(attacked.ids)}
    return kept, kept.with_pixels(attacked.pixels[[where[partner[name]] for name in kept.ids]])


def tell_of_resizing(against: Path, attacked: Batch, size: int) -> None:
    """An attacked image of another size than the network's is no longer the one that was attacked."""
    from heatprint.core.pictures import claimed_size

    base, resized = against if against.is_dir() else against.parent, 0
    for name in attacked.ids:
        try:
            resized += claimed_size(base / name) != (size, size)
        except (OSError, UnreadableData):  # a name that is spelled out
            continue
    if resized:
        typer.echo(
            f"heatprint: {resized} attacked image(s) were not {size}x{size} and have been resized, "
            "which may undo an attack made at that size.",
            err=True,
        )


def watch() -> Watch:
    """Bars on standard error; nothing where that is no terminal."""
    from rich.console import Console

    from heatprint.study.progress import SILENT, Shown

    console = Console(stderr=True, soft_wrap=True)
    return Shown(console) if console.is_terminal else SILENT


@contextmanager
def shown(title: str) -> Iterator[Progress]:
    """A bar of `watch` while it lasts."""
    with watch().step(title) as progress:
        yield progress


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as messages without file names and code lines, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for text in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
        typer.echo(f"heatprint: {text}", err=True)
