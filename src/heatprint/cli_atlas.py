"""The command `heatprint atlas`: what a classifier relies on in a folder of images, without a study."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    tell_of_resizing,
    watch,
)
from heatprint.core.errors import InvalidInput

if TYPE_CHECKING:
    from heatprint.core.classifier import Classifier
    from heatprint.core.values import Attacked, Batch
    from heatprint.data.folder import Loaded

SUSPICIOUS = 3  # strategies printed of each class
TOLD = 20  # files left out that the page names
CLUSTERING = "spray"


def atlas(
    images: Annotated[
        Path, typer.Argument(help="A folder with one sub-folder per class, or a folder of images of unknown class.")
    ],
    model: Model,
    against: Annotated[
        Path | None, typer.Option(help="Folder of attacked copies: shows where they move the heat maps.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("atlas.html"),
    method: Method = METHOD,
    strategies: Annotated[
        int, typer.Option(min=0, max=50, help="Strategies to tell apart in each class; 0: as many as the maps propose.")
    ] = 0,
    side: Annotated[int, typer.Option(min=4, max=112, help="Side in cells that heat maps are pooled to.")] = 28,
    classes: Classes = "",
    weights: Weights = None,
    size: Size = SIZE,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the clustering and of the counterfactuals' controls.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there already.")] = False,
) -> None:
    """Group images by what a classifier relied on, and test what looks suspicious."""
    _check_places(images, against, out, force=force)
    from heatprint.core.store import write_atomic
    from heatprint.explainers import make
    from heatprint.report import atlas_page
    from heatprint.signatures import CLUSTERERS
    from heatprint.study.atlas import Exploring
    from heatprint.study.atlas_alone import atlas_alone

    classifier, explainer = read_classifier(model, classes, weights, size), make(method)
    read = read_images(images, classifier, limit)
    notes = [*_left_out(read), *_unlabelled(read.batch, classifier, images)]
    clustering = Exploring(method=CLUSTERERS.make(CLUSTERING, seed=seed), wanted=strategies)
    with plain_warnings():
        copies = _copies(classifier, read.batch, images, against) if against else None
        found, drawn = atlas_alone(
            classifier, read.batch, explainer, clustering,
            names=(CLUSTERING, method), side=side, copies=copies, seed=seed, watch=watch(),
        )  # fmt: skip
    if copies:
        notes.append(
            f"{copies[0]}: {len(copies[1].clean)} of these images have an attacked copy. How it was made is not known, "
            "so there are no gains."
        )
    page = atlas_page(
        found,
        drawn,
        title=f"What {_name(Path(model))} relies on in {_name(images)}",
        facts=_facts(classifier, found, seed),
        notes=notes,
        copies=copies and copies[0],
        labelled=bool((read.batch.labels >= 0).all()),
    )
    for kind in found["classes"]:
        _print_class(kind, [card for card in found["cards"] if card["class"] == kind["class"]])
    for name, flow in found["flows"].items():
        typer.echo(f"\n{name}: {flow['images']} images; {_percent(flow['stayed'])} stayed in their strategy")
    write_atomic(out, page)
    typer.echo(f"\natlas: {_text(out)}")


def _check_places(images: Path, against: Path | None, out: Path, *, force: bool) -> None:
    """What can be refused before a model is loaded."""
    for name, path in (("IMAGES", images), ("--against", against)):
        if path is not None and path.is_file():
            raise InvalidInput(f"atlas: {name} = {path} is a file; name a folder. For one image: heatprint explain.")
        if path is not None and not path.is_dir():
            raise InvalidInput(f"atlas: {name} = {path}: there is no such folder.")
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InvalidInput(f"atlas: --out {out} must name an HTML file, e.g. --out atlas.html.")
    from heatprint.core.store import in_the_way

    blocked = in_the_way(out.absolute())
    if blocked:
        raise InvalidInput(f"atlas: --out {out} cannot be written, since {blocked} is a file. Name another --out.")
    if out.exists() and not force:
        raise InvalidInput(f"atlas: {out} exists. Name another --out, or write --force to replace it.")


def _left_out(read: Loaded) -> list[str]:
    """What could not be read, in one sentence."""
    told = "; ".join(f"{one.id} ({one.reason})" for one in read.skipped[:TOLD])
    more = f"; and {len(read.skipped) - TOLD} more" if len(read.skipped) > TOLD else ""
    return [f"Left out: {told}{more}."] if told else []


def _unlabelled(batch: Batch, classifier: Classifier, images: Path) -> list[str]:
    """What a reader must know where the true class of some images is not known; told at once, too."""
    unknown = int((batch.labels < 0).sum())
    if not unknown:
        return []
    if unknown < len(batch):
        told = f"The true class of {unknown} of {len(batch)} images is not known; purity and accuracy leave them out."
    else:
        told = "The true classes are not known, so there is no purity and no accuracy."
    hint = f"Only a folder with the name of a class says what its images are: {', '.join(classifier.classes)}."
    typer.echo(f"heatprint: {_text(images)}: {told} {hint}", err=True)
    return [f"{told} {hint}"]


def _copies(classifier: Classifier, clean: Batch, images: Path, against: Path) -> tuple[str, Attacked]:
    """The attacked copies under the name of their folder; all are read, whatever the limit, to find the partners."""
    from heatprint.study.atlas_alone import judged_copies

    attacked = read_images(against, classifier, None).batch
    tell_of_resizing(against, attacked, classifier.size)
    return _name(against), judged_copies(classifier, *paired(clean, attacked, images, against))


def _facts(classifier: Classifier, found: Mapping[str, Any], seed: int) -> dict[str, str]:
    """What the page says under its heading; no time and no path, so that equal inputs give equal bytes."""
    from importlib.metadata import version

    return {
        "model": f"{classifier.name}, {classifier.digest[:12]}",
        "classes": ", ".join(classifier.classes),
        "images": f"{found['images']:,}",
        "explainer": found["explainer"],
        "seed": str(seed),
        "heatprint": version("heatprint"),
    }


def _print_class(kind: Mapping[str, Any], cards: Sequence[Mapping[str, Any]]) -> None:
    """A class and its most suspicious strategies, which come first in `cards`."""
    from heatprint.report.measures import number

    shown = f" ({kind['count']} shown, exploratory)" if kind["forced"] else ""
    shown = f" (not clustered: {kind['note']})" if kind["note"] else shown
    typer.echo(
        f"\n{kind['class']}: {kind['images']} images; strategies proposed: {kind['proposed']}{shown}; "
        f"stability {number(kind['stability'])}, separability {number(kind['separability'])}"
    )
    for card in cards[:SUSPICIOUS]:
        typer.echo(f"  {_card_line(card)}")


def _card_line(card: Mapping[str, Any]) -> str:
    """One strategy with what its counterfactual says."""
    from heatprint.report.measures import number

    start = f"{card['name']} ({card['images']} images, suspicion {number(card['suspicion'])}): "
    test = card["counterfactual"]
    if test is None:
        return f"{start}no region to test"
    removed = (
        f"{start}{100 * test['region']:.0f} % of the image; removed, {_percent(test['removed'])} leave {card['class']} "
        f"(control: {_percent(test['removed_control'])})"
    )
    if test["pasted"] is None:
        return f"{removed}; no other class to paste it on"
    return f"{removed}; pasted, {_percent(test['pasted'])} turn to it (control: {_percent(test['pasted_control'])})"


def _percent(share: Mapping[str, Any] | None) -> str:
    return f"{share['count']}/{share['total']} = {100 * share['share']:.0f} %" if share else "–"


def _name(path: Path) -> str:
    return _text(path.resolve().name if path.is_dir() else path)


def _text(path: Path | str) -> str:
    """A path as valid text: bytes that are not UTF-8 are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
