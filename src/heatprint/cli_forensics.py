"""The commands `heatprint detect` and `heatprint identify`: was it attacked, by what, at which pixel?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatprint.cli_inputs import (
    METHOD,
    EngineName,
    Workers,
    check_classes,
    plain_warnings,
    read_images,
    tell_of_resizing,
    watch,
)
from heatprint.core.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from heatprint.core.classifier import Classifier
    from heatprint.core.values import Batch
    from heatprint.defences.worth import Worth
    from heatprint.detectors.door import Detector
    from heatprint.detectors.identifier import FittedIdentifier
    from heatprint.detectors.locator import Located

Run = Annotated[Path, typer.Option(help="Run folder of a study; its model `clear` is the one that is guarded.")]
MODEL, FITTED, WORTH = "models/clear", "forensics/fitted", "defence/fitted"
NAMED = 0.5  # family probability from which the family is named outright
SPARSE = ("one-pixel", "few-pixel")


def detect(
    run: Run,
    data: Annotated[str, typer.Option(help="The study's images again: menagerie, a folder, kaggle:OWNER/NAME.")],
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Attack, measure, fit and judge; print the table.")
    ] = False,
    trials: Annotated[Path | None, typer.Option(help="A TOML file of [[trials]] instead of heatprint's own.")] = None,
    learner: Annotated[str, typer.Option(help="boosting, trees or logistic.")] = "boosting",
    full: Annotated[
        bool, typer.Option("--full", help="Also judge published detectors, and attack this one knowing it: slow.")
    ] = False,
    transfer_from: Annotated[
        Path | None, typer.Option(help="Another run with a detector, which is judged on this network as it is.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=50, help="At most so many source images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    engine: EngineName = "local",
    workers: Workers = None,
) -> None:
    """Build the forensic laboratory of a run: attack its test images, fit detectors, print how well they tell."""
    from heatprint.detectors.learners import check_learner

    if not benchmark:
        raise InvalidInput("detect: write --benchmark to build the laboratory; for images: heatprint identify IMAGE...")
    from heatprint.data.sources import load_dataset
    from heatprint.data.splits import sample
    from heatprint.detectors import load as load_detector
    from heatprint.models import load
    from heatprint.report.forensics import lines
    from heatprint.study import engines
    from heatprint.study.corpus import read_trials
    from heatprint.study.forensics import forensics
    from heatprint.study.scores import map_scores

    classifier = load(run_model(run))
    with watch().step("images") as progress:
        images = load_dataset(data, size=classifier.size, seed=seed, progress=progress)
    check_classes("detect", images, classifier)
    chosen = images.test.take(sample(images.test, limit))
    told = forensics(
        classifier, chosen, run, learned=images.train,
        stranger=None if transfer_from is None else load_detector(transfer_from / FITTED),
        trials=read_trials(trials), learner=check_learner("detect", learner), full=full, seed=seed,
        engine=engines.make(engine, workers=workers), watch=watch(),
    )  # fmt: skip
    map_scores(run, classifier, load_detector(run / FITTED), watch())
    for line in lines(told):
        typer.echo(line)
    typer.echo(f"\nnumbers: {run / 'forensics.json'}\ndetector and identifier: {run / FITTED}")


def identify(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    run: Run,
    fpr: Annotated[float, typer.Option(help="Share of images left alone that may be flagged: 0.05 or 0.01.")] = 0.05,
    out: Annotated[Path | None, typer.Option(help="Folder for heat maps and restored images.")] = None,
) -> None:
    """Say of each image whether it was attacked, by what, and where."""
    from heatprint.defences.worth import Worth
    from heatprint.detectors import load as load_detector
    from heatprint.detectors.identifier import FittedIdentifier
    from heatprint.models import load

    classifier = load(run_model(run))
    if not (run / FITTED).is_dir():
        raise StoreError(
            f"identify: {run} has no detector yet. Build it: heatprint detect --benchmark --run {run} --data ..."
        )
    detector, identifier = load_detector(run / FITTED), FittedIdentifier.load(run / FITTED)
    batch = read_attacked(images, classifier)
    with plain_warnings():
        worth = Worth.load(run / WORTH) if (run / WORTH).is_dir() else None
        for line in _verdicts(classifier, detector, identifier, worth, batch, fpr, out):
            typer.echo(line)


def run_model(run: Path) -> Path:
    """The folder of a run's undefended model."""
    folder = run / MODEL
    if not folder.is_dir():
        raise StoreError(f"{run} has no model {MODEL}. Name the run folder of a study: heatprint study --out RUN.")
    return folder


def read_attacked(paths: list[Path], classifier: Classifier) -> Batch:
    """All images, under their own paths."""
    from heatprint.core.values import join

    found, seen = [], set[str]()
    for path in dict.fromkeys(paths):
        batch = read_images(path, classifier, None).batch
        tell_of_resizing(path, batch, classifier.size)
        names = [str(path if path.is_file() else path / name) for name in batch.ids]
        fresh = [row for row, name in enumerate(names) if name not in seen]  # a file may be named beside its folder
        seen |= set(names)
        found.append(replace(batch.take(fresh), ids=tuple(names[row] for row in fresh)))
    return join(found)


def _verdicts(
    classifier: Classifier,
    detector: Detector,
    identifier: FittedIdentifier,
    worth: Worth | None,
    batch: Batch,
    fpr: float,
    out: Path | None,
) -> list[str]:
    from heatprint.detectors.locator import locate
    from heatprint.models.predict import predict

    scores = detector.score(classifier, batch.pixels)
    flagged = detector.flags(scores, fpr=fpr)
    found, place = identifier.identify(classifier, batch.pixels), locate(classifier, batch.pixels)
    unknown = found.unknown()
    logits = predict(classifier, batch.pixels)
    lines = []
    for row, name in enumerate(batch.ids):
        label, sure = int(logits[row].argmax()), float(logits[row].softmax(0).max())
        lines += ["", name, f"  prediction   {classifier.classes[label]} ({sure:.1%})"]
        verdict = "attacked" if flagged[row] else "no sign of an attack"
        lines.append(f"  verdict      {verdict} (score {scores[row]:.3f}; flagged above "
                     f"{detector.thresholds[fpr]:.3f}, {fpr:.0%} of images left alone)")  # fmt: skip
        if not flagged[row]:
            continue
        who = "unknown attack, most like" if unknown[row] else "attack"
        best = found.probabilities[row].max()
        lines.append(f"  {who:12} {found.family[row]} ({found.family_probability[row]:.0%}), "
                     f"by name {found.name[row]} ({best:.0%})")  # fmt: skip
        if found.name[row] in SPARSE and bool(place.changed[row]):
            y, x = place.place[row].tolist()
            lines.append(f"  pixel        row {y}, column {x}; repaired, the answer is "
                         f"{classifier.classes[int(place.label[row])]}")  # fmt: skip
        if worth is not None:
            remedy, hope = worth.best(classifier, batch.pixels[row : row + 1])
            lines.append(f"  remedy       {remedy}, expected to be right about such images in {hope:.0%}")
    if out is not None:
        lines += ["", *_drawn(classifier, batch, place, out)]
    return lines[1:]


def _drawn(classifier: Classifier, batch: Batch, place: Located, out: Path) -> list[str]:
    """Heat maps and restored images as PNG files."""
    from heatprint.core.lattice import encode_pngs
    from heatprint.core.store import write_atomic
    from heatprint.explainers import explain, make
    from heatprint.models.predict import predict
    from heatprint.report.explained import Picture, picture_png

    seen, chance = explain(classifier, batch, make(METHOD)), predict(classifier, batch.pixels).softmax(1)
    lines = []
    for row, name in enumerate(batch.ids):
        answer = classifier.classes[int(seen.target[row])]
        picture = Picture(
            image=batch.pixels[row].permute(1, 2, 0).numpy(), heat=seen.heat[row].double().numpy(), name=name,
            answer=answer, probability=float(chance[row].max()), explained=answer,
        )  # fmt: skip
        stem = f"{row:03d}-{Path(name).stem}"
        write_atomic(out / f"{stem}-heat.png", picture_png(picture, METHOD))
        write_atomic(out / f"{stem}-restored.png", encode_pngs(place.restored[row : row + 1])[0])
        lines.append(f"  heat map     {out / f'{stem}-heat.png'}")
    return lines
