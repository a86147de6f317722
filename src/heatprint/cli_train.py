"""The command `heatprint train`: the first model of a study by itself, on several GPUs where torchrun starts it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated

import typer

from heatprint.cli_inputs import here


def train(
    out: Annotated[Path, typer.Option(help="Run folder; the same command again resumes it.", callback=here)],
    recipe: Annotated[str, typer.Option(help="A built-in recipe (see `heatprint list recipes`) or a .toml file.")] = (
        "quick"
    ),
    data: Annotated[
        str | None, typer.Option(help="Instead of the recipe's images: menagerie, a folder, kaggle:OWNER/NAME.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda, instead of the recipe's.")] = None,
) -> None:
    """Train the classifier of a study, on N GPUs as `torchrun --nproc-per-node N -m heatprint train ...`.

    `heatprint study` with the same recipe and run folder then finds it ready, and goes on.
    """
    from rich.console import Console

    from heatprint.study import load_recipe
    from heatprint.study.progress import Shown
    from heatprint.study.training import train_first

    chosen = load_recipe(recipe, data=data, seed=seed, device=device)
    processes, first = int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0"
    console = Console(soft_wrap=True, quiet=not first)  # one process speaks for all
    if not first:
        warnings.simplefilter("ignore")
    together = f", in {processes} processes" if processes > 1 else ""
    console.print(f"heatprint train: recipe {chosen.name}, seed {chosen.seed}, into {out}{together}", highlight=False)
    try:
        model = train_first(chosen, out, watch=Shown(console))
    except KeyboardInterrupt:
        console.print("\nStopped. The same command again goes on after the last finished epoch.")
        raise typer.Exit(130) from None
    console.print(f"model: {model}", highlight=False)
