"""The command `heatprint explain`: heat maps of images as PNG files, before and after an attack."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatprint.core.errors import InvalidInput, UnknownName, UnreadableData

if TYPE_CHECKING:
    from torch import Tensor

    from heatprint.core.classifier import Classifier
    from heatprint.core.protocols import Explainer, Progress
    from heatprint.core.values import Batch, Explained
    from heatprint.explainers import Compared
    from heatprint.explainers.target import Which
    from heatprint.report.explained import Picture

AT_ONCE = 256  # images whose maps are held in memory at one time
FILE_TITLE = "{}.heat.png"


def explain(
    image: Annotated[Path, typer.Argument(help="An image file, or a folder of images.")],
    model: Annotated[
        str, typer.Option(help="A saved model's folder, e.g. RUN/models/clear, or a name of `heatprint list models`.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="PNG file, or folder for a folder of images; next to IMAGE by default.")
    ] = None,
    method: Annotated[str, typer.Option(help="See `heatprint list explainers`.")] = "lrp.sequential_preset_a_flat",
    target: Annotated[
        str, typer.Option(help="What to explain: predicted, true, runner-up, contrast, or a class by name.")
    ] = "predicted",
    against: Annotated[
        Path | None, typer.Option(help="The attacked image (or folder): draws before and after, prints the numbers.")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="Class names of a model by name: a,b,c in the order of its logits, or a text file.")
    ] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Weights of a model by name: .safetensors or state_dict.")
    ] = None,
    size: Annotated[int, typer.Option(min=8, max=4096, help="Image side in pixels of a model by name.")] = 112,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, in equal shares of the folders.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Test whether the explanations can be trusted.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the rule of every layer and what it conserves.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace pictures that are there already.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --check.")] = 0,
) -> None:
    """Draw what a classifier relied on in an image, as a heat map."""
    from heatprint.explainers import make

    classifier, explainer = _classifier(model, classes, weights, size), make(method)
    clean = _images(image, classifier, limit)
    attacked = None
    if against is not None:
        clean, attacked = _pairs(clean, _images(against, classifier, limit), image, against, classifier.size)
    wanted = _target(target, classifier, clean)
    if check:
        from heatprint.explainers.trust.check import refuse_contrast

        refuse_contrast(wanted)  # before pictures are drawn
    places = _places(image, out, clean, force, [image] if against is None else [image, against])
    with _plain_warnings():
        if attacked is None:
            seen = _draw_images(classifier, clean, explainer, wanted, method, places)
        else:
            seen = _draw_pairs(classifier, clean, attacked, explainer, wanted, method, places)
        if plan:
            _print_plan(seen, method)
        if check:
            _print_check(classifier, clean, explainer, wanted, seed, paired=attacked is not None)


def _classifier(model: str, classes: str, weights: Path | None, size: int) -> Classifier:
    from heatprint.models import load

    if Path(model).is_dir():
        if classes or weights:
            raise InvalidInput(
                f"explain: {model} is a saved model with classes and weights of its own; leave them out."
            )
        return load(model)
    if "/" in model and not model.startswith(("torchvision:", "timm:")):
        raise UnreadableData(f"explain: there is no folder {model}. A run keeps its models in RUN/models/.")
    names = _class_names(classes)
    if len(names) < 2:
        raise InvalidInput(f"explain: {model} is an architecture; name its classes: --classes cats,dogs (or a file).")
    if weights is None:
        typer.echo(
            f"heatprint: {model} has fresh random weights: its heat maps mean nothing. Give --weights.", err=True
        )
    return load(model, classes=names, size=size, weights=weights)


def _class_names(classes: str) -> list[str]:
    try:
        if Path(classes).is_file():
            return [line.strip() for line in Path(classes).read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"explain: {classes} is not UTF-8 text; write one class name per line.") from error
    return [name.strip() for name in classes.split(",") if name.strip()]


def _images(path: Path, classifier: Classifier, limit: int | None) -> Batch:
    from heatprint.data import load_files

    found = load_files(path, size=classifier.size, classes=classifier.classes, limit=limit)
    for one in found.skipped:
        typer.echo(f"heatprint: skipped {one.id}: {one.reason}", err=True)
    return found.batch


def _pairs(clean: Batch, attacked: Batch, image: Path, against: Path, size: int) -> tuple[Batch, Batch]:
    """Both batches with the images they share, under the ids of the clean ones."""
    if image.is_dir() != against.is_dir():
        raise InvalidInput("explain: IMAGE and --against must both be files, or both be folders.")
    _tell_of_resizing(against, attacked, size)
    if image.is_file():
        return clean, clean.with_pixels(attacked.pixels)
    from heatprint.data.partners import partners

    partner = partners(clean.ids, attacked.ids)
    rows = [row for row, name in enumerate(clean.ids) if name in partner]
    if not rows:
        raise InvalidInput(f"explain: no image of {against} has the relative path of one in {image}, suffix aside.")
    if len(rows) < len(clean):
        typer.echo(f"heatprint: {len(clean) - len(rows)} images have no attacked copy in {against}.", err=True)
    kept, where = clean.take(rows), {name: row for row, name in enumerate(attacked.ids)}
    return kept, kept.with_pixels(attacked.pixels[[where[partner[name]] for name in kept.ids]])


def _tell_of_resizing(against: Path, attacked: Batch, size: int) -> None:
    """An attacked image of another size than the network's is no longer the one that was attacked."""
    from PIL import Image

    base, resized = against if against.is_dir() else against.parent, 0
    for name in attacked.ids:
        try:
            with Image.open(base / name) as picture:
                resized += picture.size != (size, size)
        except OSError:  # a name that is not UTF-8, spelled out
            continue
    if resized:
        typer.echo(
            f"heatprint: {resized} attacked image(s) were not {size}x{size} and have been resized, "
            "which may undo an attack made at that size.",
            err=True,
        )


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
        with _shown(f"{name}, images {rows[0] + 1} to {rows[-1] + 1} of {len(batch)}") as progress:
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
        with _shown(f"{name}, pairs {rows[0] + 1} to {rows[-1] + 1} of {len(clean)}") as progress:
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

    with _shown("checks") as progress:
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


@contextmanager
def _shown(title: str) -> Iterator[Progress]:
    """A bar on standard error while it lasts; nothing where that is no terminal."""
    from rich.console import Console

    from heatprint.core.protocols import silent
    from heatprint.study.progress import Shown

    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield silent
        return
    with Shown(console).step(title) as progress:
        yield progress


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as messages without file names and code lines, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for text in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
        typer.echo(f"heatprint: {text}", err=True)
