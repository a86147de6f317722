"""The command `heatprint explain`: heat maps of images as PNG files, before and after an attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatprint.cli_inputs import (
    METHOD,
    SIZE,
    Classes,
    Limit,
    Method,
    Model,
    Size,
    Weights,
    paired,
    plain_warnings,
    read_classifier,
    read_images,
    shown,
    tell_of_resizing,
)
from heatprint.core.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from heatprint.core.classifier import Classifier
    from heatprint.core.protocols import Explainer
    from heatprint.core.values import Batch, Explained
    from heatprint.explainers import Compared
    from heatprint.explainers.target import Which
    from heatprint.report.explained import Picture

AT_ONCE = 256  # images whose maps are held in memory at one time
FILE_TITLE = "{}.heat.png"


def explain(
    image: Annotated[Path, typer.Argument(help="An image file, or a folder of images.")],
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="PNG file, or folder for a folder of images; next to IMAGE by default.")
    ] = None,
    method: Method = METHOD,
    target: Annotated[
        str, typer.Option(help="What to explain: predicted, true, runner-up, contrast, or a class by name.")
    ] = "predicted",
    against: Annotated[
        Path | None, typer.Option(help="The attacked image (or folder): draws before and after, prints the numbers.")
    ] = None,
    classes: Classes = "",
    weights: Weights = None,
    size: Size = SIZE,
    limit: Limit = None,
    check: Annotated[bool, typer.Option("--check", help="Test whether the explanations can be trusted.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the rule of every layer and what it conserves.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace pictures that are there already.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --check.")] = 0,
) -> None:
    """Draw what a classifier relied on in an image, as a heat map."""
    from heatprint.explainers import make

    classifier, explainer = read_classifier(model, classes, weights, size), make(method)
    clean = read_images(image, classifier, limit).batch
    attacked = None
    if against is not None:
        clean, attacked = _pairs(clean, read_images(against, classifier, limit).batch, image, against, classifier.size)
    wanted = _target(target, classifier, clean)
    if check:
        from heatprint.explainers.trust.check import refuse_contrast

        refuse_contrast(wanted)  # before pictures are drawn
    places = _places(image, out, clean, force, [image] if against is None else [image, against])
    with plain_warnings():
        if attacked is None:
            seen = _draw_images(classifier, clean, explainer, wanted, method, places)
        else:
            seen = _draw_pairs(classifier, clean, attacked, explainer, wanted, method, places)
        if plan:
            _print_plan(seen, method)
        if check:
            _print_check(classifier, clean, explainer, wanted, seed, paired=attacked is not None)


def _pairs(clean: Batch, attacked: Batch, image: Path, against: Path, size: int) -> tuple[Batch, Batch]:
    """Both batches with the images they share, under the ids of the clean ones."""
    if image.is_dir() != against.is_dir():
        raise InvalidInput("explain: IMAGE and --against must both be files, or both be folders.")
    tell_of_resizing(against, attacked, size)
    if image.is_file():
        return clean, clean.with_pixels(attacked.pixels)
    return paired(clean, attacked, image, against)


def _target(target: str, classifier: Classifier, batch: Batch) -> Tensor | Which:
    import torch

    if target in ("predicted", "runner-up"):
        return target  # type: ignore[return-value]
    if target in ("true", "contrast"):
        if bool((batch.labels < 0).any()):
            raise InvalidInput(
                f"explain: --target {target} needs the true class. Put the image into a folder with the name of its "
                f"class ({', '.join(classifier.classes)}), or name a class: --target {classifier.classes[0]}."
            )
        return target  # type: ignore[return-value]
    if target not in classifier.classes:
        raise UnknownName(
            "explain: the target", target, ["predicted", "true", "runner-up", "contrast", *classifier.classes]
        )
    return torch.full((len(batch),), classifier.classes.index(target))


def _places(image: Path, out: Path | None, batch: Batch, force: bool, inputs: Sequence[Path]) -> list[Path]:
    """Where each picture goes; nothing is replaced unasked, and never a file of the `inputs` (files or folders)."""
    if image.is_dir():
        folder = out or image.with_name(f"{image.resolve().name}.heat")
        if folder.exists() and not folder.is_dir():
            raise InvalidInput(f"explain: --out {folder} is a file; name a folder for the pictures of a folder.")
        places = [folder / f"{name}.png" for name in batch.ids]
    else:
        place = out or image.with_name(FILE_TITLE.format(image.stem))
        place = place / FILE_TITLE.format(image.stem) if place.is_dir() else place
        places = [place]
    if places[0].suffix.lower() != ".png":
        raise InvalidInput(f"explain: pictures are PNG files; write --out {places[0].with_suffix('.png')}.")
    there = [place for place in places if place.exists()]
    own = _files(inputs) if there else set()
    for place in there:
        if _file(place) in own:
            raise InvalidInput(
                f"explain: the picture {place} would replace an image that was given; --force does not do that either. "
                "Name another --out."
            )
    if there and not force:
        raise InvalidInput(
            f"explain: {there[0]} exists{f', and {len(there) - 1} more' if len(there) > 1 else ''}. "
            "Name another --out, or write --force to replace pictures."
        )
    return places


def _files(inputs: Sequence[Path]) -> set[tuple[int, int]]:
    """Every file that was given, also inside folders."""
    given = [file for path in inputs for file in (path.rglob("*") if path.is_dir() else [path])]
    return {_file(file) for file in given if file.is_file()}


def _file(path: Path) -> tuple[int, int]:
    """The file behind a path, however the path is spelled."""
    seen = path.stat()
    return seen.st_dev, seen.st_ino


def _draw_images(
    classifier: Classifier, batch: Batch, method: Explainer, target: Tensor | Which, name: str, places: Sequence[Path]
) -> Explained:
    """One picture per image; the explanations of the first images are returned."""
    from heatprint.core.store import write_atomic
    from heatprint.explainers import explain as ask
    from heatprint.report.explained import picture_png

    first = None
    for rows in _chunks(len(batch)):
        piece = batch.take(rows)
        with shown(f"{name}, images {rows[0] + 1} to {rows[-1] + 1} of {len(batch)}") as progress:
            seen = ask(classifier, piece, method, target=_part(target, rows), progress=progress)
        for row, picture in zip(rows, _pictures(classifier, piece, seen), strict=True):
            write_atomic(places[row], picture_png(picture, name))
            facts = f" ({picture.facts})" * bool(picture.facts)
            typer.echo(f"{picture.name}: {_said(picture)}; heat map of {picture.explained}{facts}: {places[row]}")
        first = first or seen
    assert first is not None
    return first


def _draw_pairs(
    classifier: Classifier,
    clean: Batch,
    attacked: Batch,
    method: Explainer,
    target: Tensor | Which,
    name: str,
    places: Sequence[Path],
) -> Explained:
    """One before-and-after picture per pair, and the numbers of all; the first clean explanations are returned."""
    from heatprint.core.store import write_atomic
    from heatprint.explainers import compare
    from heatprint.report.explained import pair_png

    parts: list[Compared] = []
    for rows in _chunks(len(clean)):
        before, after = clean.take(rows), attacked.take(rows)
        with shown(f"{name}, pairs {rows[0] + 1} to {rows[-1] + 1} of {len(clean)}") as progress:
            part = compare(classifier, before, after, method, target=_part(target, rows), progress=progress)
        pictures = _pictures(classifier, before, part.clean), _pictures(classifier, after, part.adversarial)
        for row, numbers, one, other in zip(rows, part.rows(), *pictures, strict=True):
            write_atomic(places[row], pair_png(one, other, name, numbers))
            facts = [f" ({picture.facts})" * bool(picture.facts) for picture in (one, other)]
            typer.echo(f"{one.name}: {_said(one)} before{facts[0]}, {_said(other)} after{facts[1]}: {places[row]}")
        parts.append(part)
    _print_numbers([row for part in parts for row in part.rows()])
    return parts[0].clean


def _chunks(count: int) -> Iterator[list[int]]:
    for start in range(0, count, AT_ONCE):
        yield list(range(start, min(start + AT_ONCE, count)))


def _part(target: Tensor | Which, rows: list[int]) -> Tensor | Which:
    return target if isinstance(target, str) else target[rows]


def _pictures(classifier: Classifier, batch: Batch, seen: Explained) -> list[Picture]:
    from heatprint.models import predict
    from heatprint.report.explained import Picture
    from heatprint.report.measures import told_facts

    chance, names = predict(classifier, batch.pixels).softmax(1), classifier.classes
    against = [""] * len(batch) if seen.against is None else [f" against {names[k]}" for k in seen.against.tolist()]
    return [
        Picture(
            image=batch.pixels[row].permute(1, 2, 0).numpy(),
            heat=seen.heat[row].double().numpy(),
            name=batch.ids[row],
            answer=names[int(chance[row].argmax())],
            probability=float(chance[row].max()),
            explained=names[int(seen.target[row])] + against[row],
            facts=told_facts({name: float(fact[row]) for name, fact in seen.facts.items()}),
        )
        for row in range(len(batch))
    ]


def _said(picture: Picture) -> str:
    return f"{picture.answer} {100 * picture.probability:.1f} %"


def _print_numbers(rows: Sequence[dict[str, float]]) -> None:
    """The measures of one pair, or the median and quartiles of many."""
    from heatprint.explainers.pairs import MEASURES, spread
    from heatprint.report.measures import TITLES, told, told_spread

    one = len(rows) == 1
    table = [["measure", "value"] if one else ["measure", "median [quartiles]", "pairs"]]
    for name in MEASURES:
        over = spread([row[name] for row in rows])
        table.append([TITLES[name], told(name, rows[0][name])] if one else
                     [TITLES[name], told_spread(name, over), str(over["count"])])  # fmt: skip
    typer.echo("\n" + _aligned(table))


def _print_plan(seen: Explained, method: str) -> None:
    """The rule plan, and what each layer received and passed on as fractions of the score, in the median image."""
    from heatprint.explainers.conservation import conservation

    if not seen.plan:
        typer.echo(f"\n{method} has no plan of rules; the methods named 'lrp.' have one.")
        return
    leaks = {leak.layer: leak for leak in conservation(seen)}
    table = [["layer", "operator", "rule", "epsilon", "bias", "received", "passed", "ratio"]]
    for line in seen.plan:
        leak = leaks.get(line.layer)
        kept = [f"{leak.received:.4g}", f"{leak.passed:.4g}", f"{leak.ratio:.3g}"] if leak else ["", "", ""]
        epsilon = "" if line.epsilon is None else f"{line.epsilon:g}"
        table.append([line.layer, line.operator, line.rule, epsilon, line.bias, *kept])
    images = "this image" if len(seen.ids) == 1 else f"the median of {len(seen.ids)} images"
    typer.echo(f"\n{_aligned(table)}\nreceived, passed: sums of relevance as fractions of the score, {images}")


def _print_check(
    classifier: Classifier, batch: Batch, method: Explainer, target: Tensor | Which, seed: int, *, paired: bool
) -> None:
    from heatprint.explainers.trust.check import check

    with shown("checks") as progress:
        checked = check(classifier, batch, method, target=target, seed=seed, progress=progress)
    typer.echo("\n" + _aligned(checked.table()))
    changes = {
        True: "the map changes when all weights are randomised",
        False: "the map HARDLY CHANGES when all weights are randomised",
        None: "whether the map changes with the weights is NOT DECIDED: it is the same everywhere",
    }[checked.randomisation_passed]
    typer.echo(
        f"{'checked are the clean images: ' * paired}{changes}; "
        f"{100 * checked.excluded:.0f} % of the noisy copies changed the answer and were left out"
    )


def _aligned(table: Sequence[Sequence[str]]) -> str:
    """Rows as columns of plain text; columns without any entry are left out."""
    filled = [column for column in zip(*table, strict=True) if any(column[1:])]
    wide = [max(map(len, column)) for column in filled]
    return "\n".join(
        "  ".join(f"{cell:{w}}" for cell, w in zip(row, wide, strict=True)).rstrip()
        for row in zip(*filled, strict=True)
    )
