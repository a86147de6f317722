"""`heatprint doctor`: what an installation lacks; and what is wrong with a run, and mending it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatprint.cli_inputs import here
from heatprint.core.errors import InvalidInput

if TYPE_CHECKING:
    from heatprint.doctor import Examined, Finding

DETECT, DEFEND = "heatprint detect --benchmark --run {} --data ...", "heatprint defend --auto --run {} --data ..."
SHOWN = 200  # findings that are printed
WIDE = 72  # characters of a path, at most, up to which the columns are aligned


def doctor(
    run: Annotated[Path | None, typer.Argument(help="A run folder, to be checked to the byte.", callback=here)] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is damaged, and compute again what can be.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="With --repair: where the run's images are, if not where they were.")
    ] = None,
) -> None:
    """Print what is installed, free memory and disk, and what each extra lacks; of a run, what is wrong with it."""
    if run is not None:
        raise typer.Exit(_visited(run, repair=repair, data=data))
    if repair or data:
        raise InvalidInput("doctor: --repair and --data need a run folder: heatprint doctor RUN --repair")
    from heatprint.doctor import findings

    width = max(len(name) for name, _ in findings())
    for name, value in findings():
        typer.echo(f"{name:{width}}  {value}")


def _visited(run: Path, *, repair: bool, data: str | None) -> int:
    """Examine a run, mend it where that is wanted; the exit status."""
    found = _examined(run)
    _print(run, found)
    if not found.sick:
        return 0
    if not repair:
        typer.echo(f"Mend it: heatprint doctor {run} --repair")
        return 1
    from rich.console import Console

    from heatprint.doctor.mend import mend
    from heatprint.study.progress import Shown

    mend(run, found, data=data, watch=Shown(Console(soft_wrap=True)))
    typer.echo("Again:")
    left = _examined(run)
    _print(run, left)
    for name, command in (("forensics", DETECT), ("defence", DEFEND)):
        if any(one.remedy == name for one in left.sick):
            typer.echo(f"Write: {command.format(run)}")
    return 1 if left.sick else 0


def _examined(run: Path) -> Examined:
    from heatprint.doctor import examine

    with _bar() as read:
        return examine(run, read=read)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], object]]:
    """Bytes that were read, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("checking", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, whole: bars.update(task, completed=done, total=whole)


def _print(run: Path, found: Examined) -> None:
    """A line for each finding, and one for all of them."""
    shown = found.findings[:SHOWN]
    file = max((len(one.file) for one in shown if len(one.file) <= WIDE), default=0)
    what = max((len(one.what) for one in shown), default=0)
    for one in shown:
        typer.echo(f"{one.file:{file}}  {one.what:{what}}  {_help(one, run)}".rstrip())
    if len(found.findings) > SHOWN:
        typer.echo(f"... and {len(found.findings) - SHOWN} more")
    size = f"{found.files} files, {found.size / 2**20:.1f} MiB"
    verdict = f"{len(found.sick)} findings" if found.sick else "all is well"
    unfinished = "" if found.finished else "; the study is not finished: the command that began it resumes it"
    typer.echo(f"{run}: {size}: {verdict}{unfinished}")


def _help(finding: Finding, run: Path) -> str:
    from heatprint.doctor import Remedy

    return {
        Remedy.STUDY: "--repair computes it again",
        Remedy.LABORATORY: f"--repair removes it; then: {DETECT.format(run)}",
        Remedy.LOOP: f"--repair removes it; then: {DEFEND.format(run)}",
        Remedy.REMOVED: "--repair removes it",
        Remedy.REWRITTEN: "--repair writes it again",
        Remedy.NONE: "left alone",
    }[finding.remedy]
