"""The command line: parse, call, print. Heavy rooms are imported by the command that needs them."""

from __future__ import annotations

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from heatprint.cli_atlas import atlas
from heatprint.cli_card import evaluate
from heatprint.cli_defend import defend
from heatprint.cli_doctor import doctor
from heatprint.cli_explain import explain
from heatprint.cli_forensics import detect, identify
from heatprint.cli_guard import guard
from heatprint.cli_inputs import EngineName, Workers, here
from heatprint.cli_serve import serve
from heatprint.cli_train import train
from heatprint.core.errors import HeatprintError
from heatprint.core.interrupts import ends, on_ctrl_c, stoppable

ROOM = ". Make room on that disk: what is finished is kept, and the same command again goes on."
HINTS = {errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EROFS: ". It can only be read: name another folder."}

app = typer.Typer(
    help="Inspect adversarial attacks on image classifiers through explainable AI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Built-in data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.command()(explain)
app.command()(atlas)
app.command()(defend)
app.command()(detect)
app.command()(doctor)
app.command()(evaluate)
app.command()(identify)
app.command()(serve)
app.command()(train)
app.command()(guard)


class Room(StrEnum):
    """What `list` can list."""

    attacks = "attacks"
    explainers = "explainers"
    signatures = "signatures"
    detectors = "detectors"
    defences = "defences"
    models = "models"
    recipes = "recipes"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"heatprint {version('heatprint')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What `heatprint` takes before the name of a command."""


@app.command()
def study(
    out: Annotated[
        str, typer.Option(help="Run folder, or s3://BUCKET/RUN and the like; the same command again resumes it.")
    ],
    recipe: Annotated[str, typer.Option(help="A built-in recipe (see `heatprint list recipes`) or a .toml file.")] = (
        "quick"
    ),
    data: Annotated[
        str | None, typer.Option(help="Instead of the recipe's images: menagerie, a folder, kaggle:OWNER/NAME.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda, instead of the recipe's.")] = None,
    engine: EngineName = "local",
    workers: Workers = None,
    work: Annotated[
        Path | None, typer.Option(help="With an address: local folder to work in, instead of one in the cache.")
    ] = None,
) -> None:
    """Run the whole experiment: train, attack, explain, map, defend, evaluate, report."""
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    stopped = "Stopped. Everything finished so far is kept: the same command again resumes."
    with on_ctrl_c(ends(stopped)):
        from heatprint.study import engines, load_recipe
        from heatprint.study import study as run
        from heatprint.study.progress import Shown

    console = Console(soft_wrap=True)
    log = logging.getLogger("heatprint")  # which path a network takes, and why
    log.setLevel(logging.INFO)
    log.addHandler(RichHandler(console=console, show_time=False, show_level=False, show_path=False))
    chosen = load_recipe(recipe, data=data, seed=seed, device=device)
    console.print(f"heatprint study: recipe {chosen.name}, seed {chosen.seed}, into {out}", highlight=False)
    with stoppable(stopped):
        path = run(chosen, out, watch=Shown(console), engine=engines.make(engine, workers=workers), work=work)
    there = f"{out.rstrip('/')}/{path.name}, and here: " if "://" in out else ""
    console.print(f"report: {there}{path}", highlight=False)


@app.command()
def fetch(
    address: Annotated[str, typer.Argument(help="Of a run on an object store: s3://BUCKET/RUN and the like.")],
    out: Annotated[Path, typer.Argument(help="Folder: new, empty, or an earlier copy.")],
) -> None:
    """Copy a run from an object store, or what has changed since: for serve, report, export, doctor."""
    from heatprint.study.remote import fetched

    fetched(address, out)
    typer.echo(out)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A finished run folder.", callback=here)]) -> None:
    """Write report.html of a run again."""
    from heatprint.report import report as write

    typer.echo(write(run))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder with an atlas.", callback=here)],
    to: Annotated[str, typer.Option(help="csv, huggingface or virelay.")],
    out: Annotated[Path, typer.Option(help="Folder to write; new or empty.")],
) -> None:
    """Write the atlas of a run for another tool: a spreadsheet, Hugging Face datasets, ViRelAy."""
    from heatprint.export import export as write

    typer.echo(write(run, to, out))


@app.command("list")
def list_(room: Annotated[Room, typer.Argument(help="What to list.")]) -> None:
    """Print the known methods, models or recipes."""
    for line in _listed(room):
        typer.echo(line)


@data_app.command("menagerie")
def data_menagerie(
    out: Annotated[Path, typer.Option(help="Folder to write training_set/ and test_set/ into; new or empty.")],
    train: Annotated[int, typer.Option(min=2, help="Training images.")] = 2000,
    test: Annotated[int, typer.Option(min=2, help="Test images.")] = 500,
    size: Annotated[int, typer.Option(min=32, max=512, help="Side in pixels.")] = 112,
    seed: Annotated[int, typer.Option(help="Other seeds draw other animals.")] = 0,
    masks: Annotated[bool, typer.Option(help="Also write masks/ with the animal of each image.")] = False,
) -> None:
    """Draw cats and dogs, one folder per class, as PNG files."""
    from rich.console import Console

    from heatprint.data.sources import write_menagerie
    from heatprint.study.progress import Shown

    with Shown(Console(soft_wrap=True)).step("drawing") as progress:
        write_menagerie(out, train=train, test=test, size=size, seed=seed, masks=masks, progress=progress)
    typer.echo(out)


def _listed(room: Room) -> list[str]:
    from importlib import import_module

    if room is Room.recipes:
        from heatprint.study.recipe import recipe_names

        return recipe_names()
    if room is Room.models:
        from heatprint.models.zoo import names

        return [*names(), "torchvision:NAME", "timm:NAME"]
    if room is Room.attacks:
        return _attacks_listed()
    listed: list[str] = import_module(f"heatprint.{room.value}").names()
    return listed


def _attacks_listed() -> list[str]:
    from heatprint.attacks import ATTACKS, make

    wide, lines = max(map(len, ATTACKS.names())), []
    for name in ATTACKS.names():
        library = getattr(ATTACKS.load(name), "package", None)
        if library:  # named without being imported, which takes seconds
            told = f"any attack of the package {library}: settings = {{ attack = ..., settings = {{ ... }} }}"
        else:
            t = make(name).taxonomy
            told = f"{t.knowledge:9}  {t.frequency:9}  {t.norm:4}  {t.specificity:22}  {t.paper}"
        lines.append(f"{name:{wide}}  {told}")
    return lines


def main() -> None:
    """Entry point: errors on purpose become one message and exit status 2."""
    try:
        app()
    except HeatprintError as error:
        typer.echo(f"heatprint: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without permission: nothing of ours is wrong
        hint = HINTS.get(error.errno or 0, "")
        typer.echo(f"heatprint: {error.strerror or error}: {error.filename or 'a file'}{hint}", err=True)
        sys.exit(2)
