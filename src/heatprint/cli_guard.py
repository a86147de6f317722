"""The command `heatprint guard`: a detector before a model, as a service."""

from __future__ import annotations

import secrets
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from heatprint.core.errors import MissingExtra

if TYPE_CHECKING:
    from heatprint.live import Guard
    from heatprint.web.guard.settings import Fail

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart",
          "prometheus_client": "prometheus_client"}  # fmt: skip


def guard(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model, e.g. RUN/models/clear.")],
    run: Annotated[Path, typer.Option(help="Run folder with this model's detector (`heatprint detect`).")],
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8421,
    name: Annotated[list[str] | None, typer.Option(help="Host name by which clients ask; may be repeated.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HEATPRINT_GUARD_TOKEN", help="Clients show it; random where one is needed.")
    ] = None,
    fpr: Annotated[float, typer.Option(help="Share of images left alone that may be flagged: 0.05 or 0.01.")] = 0.05,
    fail: Annotated[
        str, typer.Option(help="If the guard fails: closed (answer 503) or open (the plain prediction, unchecked).")
    ] = "closed",
    batch: Annotated[int, typer.Option(min=1, help="Images checked at one time.")] = 64,
    queue: Annotated[int, typer.Option(min=1, help="Images that may wait; beyond that, 429.")] = 256,
    limit: Annotated[float, typer.Option(min=1, help="Seconds a request may take.")] = 30.0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds between saying not ready and taking no more, on SIGTERM.")
    ] = 1.0,
) -> None:
    """Serve a model with its guard over HTTP: POST images to /v1/check."""
    check_installed()
    from heatprint.live import Guard
    from heatprint.web.guard.journal import log_as_lines
    from heatprint.web.guard.server import serve
    from heatprint.web.guard.settings import Settings, on_loopback

    settings = Settings(
        host=host, port=port, names=tuple(name or ()), fail=cast("Fail", fail), batch=batch, queue=queue,
        token=token if token or on_loopback(host) else secrets.token_urlsafe(32),
        most_images=min(Settings.most_images, queue), limit_s=limit, grace_s=grace,
    )  # fmt: skip
    log_as_lines()
    guarded = Guard.load(model, run, fpr=fpr)
    warm_up(guarded)

    def told(taken: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"guard of {guarded.classifier.name}, {guarded.size} px: http://{shown}:{taken}/v1/check")
        if settings.token and not token:
            typer.echo(f"token: {settings.token}")
        if not on_loopback(host):
            typer.echo(f"heatprint: {host} is open to the network, unencrypted: put TLS in front of it.")
        sys.stdout.flush()  # whoever reads along waits for the port

    serve(guarded, settings, told)


def check_installed() -> None:
    """Refuse to start without the packages of the extra.

    Raises:
        MissingExtra: With the line that installs them.
    """
    for module, package in NEEDED.items():
        if find_spec(module) is None:
            raise MissingExtra(package, "web", "heatprint guard")


def warm_up(guarded: Guard) -> None:
    """The first image takes seconds, others milliseconds: better before anybody waits."""
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (2, 3, guarded.size, guarded.size), dtype=np.uint8)
    guarded.check(noise)
    guarded.heat(noise)
