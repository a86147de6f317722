"""The command `heatprint evaluate`: can the usual attacks be believed about this model?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatprint.cli_inputs import (
    SIZE,
    Classes,
    Size,
    Weights,
    check_classes,
    plain_warnings,
    read_classifier,
    watch,
)
from heatprint.core.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from heatprint.core.classifier import Classifier
    from heatprint.core.values import Batch

MODELS, CLEAR = "models", "clear"
WIDEST, NARROWEST = 140, 80  # of the table, in characters


def evaluate(
    model: Annotated[str, typer.Argument(help="A saved model's folder, a run folder, or an architecture.")],
    data: Annotated[str, typer.Option(help="Test images: menagerie, a folder, kaggle:OWNER/NAME.")],
    card: Annotated[bool, typer.Option("--card", help="Make the report card.")] = False,
    images: Annotated[int, typer.Option(min=1, help="Test images to attack.")] = 96,
    eps: Annotated[str, typer.Option(help="Radius, pixel values in [0, 1]: 2/255.")] = "2/255",
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    threat: Annotated[str, typer.Option(help='What the attacker knows and wants: "white box, untargeted".')] = "",
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="An attack written for this very defence is part of the evaluation.")
    ] = False,
    original: Annotated[str, typer.Option(help="The undefended model's folder; of a run it is the model clear.")] = "",
    arm: Annotated[str, typer.Option(help="Which model of a run folder.")] = CLEAR,
    classes: Classes = "",
    weights: Weights = None,
    size: Size = SIZE,
    out: Annotated[
        Path | None, typer.Option(help="Folder for card.json; of a run RUN/cards/ARM, else this one.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count WARN as failure.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random, and of drawn images.")] = 0,
) -> None:
    """Check an evaluation by its own attacks: PASS, WARN or FAIL, why, and what to do. Exit status 1 on FAIL."""
    if not card:
        raise InvalidInput("evaluate: write --card for the report card.")
    from heatprint.core.lattice import parse_level
    from heatprint.core.registry import validated
    from heatprint.core.store import write_json
    from heatprint.evaluation.card import ThreatModel
    from heatprint.evaluation.card import card as make

    stated = validated("evaluate", ThreatModel, {"norm": norm, "eps": parse_level(eps), "words": threat})
    folder = _place(model, out)
    where, before = _which(model, arm, original)
    classifier = read_classifier(where, classes, weights, size)
    undefended = read_classifier(before, "", None, size) if before else None
    with plain_warnings():
        batch = _images(data, classifier, images, seed)
        with watch().step("card") as progress:
            made = make(classifier, batch, threat=stated, adaptive=adaptive, original=undefended, seed=seed,
                        progress=progress)  # fmt: skip
    wide = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    for line in made.lines(wide):
        typer.echo(line)
    path = (folder or Path(model) / "cards" / arm) / "card.json"
    write_json(path, made.as_json())
    typer.echo(f"\nnumbers: {path}")
    raise typer.Exit(made.status(strict=strict))


def _place(model: str, out: Path | None) -> Path | None:
    """Where the card goes; None for a run's own folder. A saved model has a card.json of its own, which stays."""
    from heatprint.models.checkpoint import WEIGHTS

    if out is None and (Path(model) / MODELS).is_dir():
        return None
    folder = out or Path()
    if (folder / WEIGHTS).exists():
        raise InvalidInput(f"--out: {folder} holds a saved model, whose card.json would be lost. Name another folder.")
    return folder


def _which(model: str, arm: str, original: str) -> tuple[str, str]:
    """The model to judge and the one it was made from, as folders or names; empty where there is none."""
    run = Path(model) / MODELS
    if not run.is_dir():
        return model, original
    if not (run / arm).is_dir():
        known = ", ".join(sorted(p.name for p in run.iterdir() if p.is_dir())) or "none"
        raise StoreError(f"--arm: {model} has no model {arm!r}. It has: {known}.")
    clear = run / CLEAR
    return str(run / arm), original or (str(clear) if arm != CLEAR and clear.is_dir() else "")


def _images(data: str, classifier: Classifier, count: int, seed: int) -> Batch:
    """Test images of the classifier's classes."""
    from heatprint.data.sources import load_dataset

    with watch().step("images") as progress:
        found = load_dataset(data, size=classifier.size, train=len(classifier.classes), test=count, seed=seed,
                             progress=progress)  # fmt: skip
    check_classes("evaluate", found, classifier)
    return found.test
