"""The command `heatprint defend`: identify what came in, choose a defence, apply it, prove what it bought."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heatprint.cli_forensics import FITTED, Run, read_attacked, run_model
from heatprint.cli_inputs import check_classes, plain_warnings, watch
from heatprint.core.errors import InvalidInput, StoreError


def defend(
    run: Run,
    data: Annotated[str, typer.Option(help="The study's images again: menagerie, a folder, kaggle:OWNER/NAME.")],
    auto: Annotated[bool, typer.Option("--auto", help="Identify, choose, apply, evaluate again, report.")] = False,
    attacked: Annotated[
        list[Path] | None, typer.Option(help="Images that came in; without any, all attacks of the laboratory.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--with", help="Only these candidates, beside the models of the run.")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="A TOML file of [[candidates]] instead of heatprint's own.")
    ] = None,
    trials: Annotated[Path | None, typer.Option(help="The file that `detect` was given.")] = None,
    prior: Annotated[float, typer.Option(min=0, max=1, help="Share of the images that are attacked.")] = 0.5,
    reject: Annotated[
        float,
        typer.Option(min=0, max=1, help="Routing turns an image away of which it is less sure."),
    ] = 0.0,
    fpr: Annotated[float, typer.Option(help="Share of images left alone that may be flagged: 0.05 or 0.01.")] = 0.05,
    images: Annotated[int, typer.Option(min=10, help="Test images that are attacked anew.")] = 100,
    limit: Annotated[int | None, typer.Option(min=50, help="As `detect` was given.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Also attack the routing: slow.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Close the loop: from identified attack to proven defence."""
    if not auto:
        raise InvalidInput("defend: write --auto to identify, choose, apply and evaluate; --with NAME takes some only.")
    from dataclasses import replace
    from importlib.metadata import version

    from heatprint.core.inventory import LOOP, amend
    from heatprint.core.store import write_atomic
    from heatprint.data.sources import load_dataset
    from heatprint.data.splits import sample
    from heatprint.models import load
    from heatprint.report.defence import lines, page
    from heatprint.study.candidates import read_candidates
    from heatprint.study.closed_loop import PAGE, RESULTS, close_loop
    from heatprint.study.corpus import read_trials

    classifier = load(run_model(run))
    made, tried = read_candidates(candidates, only or ()), read_trials(trials)
    if not (run / FITTED).is_dir():
        raise StoreError(
            f"defend: {run} has no detector. Build it: heatprint detect --benchmark --run {run} --data {data}"
        )
    came = read_attacked(attacked, classifier) if attacked else None
    with watch().step("images") as progress:
        found = load_dataset(data, size=classifier.size, seed=seed, progress=progress)
    check_classes("defend", found, classifier)
    with plain_warnings():
        told = close_loop(
            classifier, replace(found, test=found.test.take(sample(found.test, limit))), run, candidates=made,
            attacked=came, trials=tried, prior=prior, reject=reject, fpr=fpr, images=images, full=full,
            seed=seed, watch=watch(),
        )  # fmt: skip
    for line in lines(told):
        typer.echo(line)
    facts = {"run": run.resolve().name, "images": found.name, "seed": str(seed), "heatprint": version("heatprint")}
    write_atomic(run / PAGE, page(told, facts=facts))
    amend(run, LOOP, PAGE)
    chosen = run / "models" / told["chosen"]
    typer.echo(f"\nreport: {run / PAGE}\nnumbers: {run / RESULTS}\nchosen: {chosen}")
