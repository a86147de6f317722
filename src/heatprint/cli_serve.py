"""The command `heatprint serve`: a run in the browser."""

from __future__ import annotations

import re
import secrets
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heatprint.cli_inputs import here
from heatprint.core.errors import HeatprintError, InvalidInput

if TYPE_CHECKING:
    from heatprint.web.bench import Bench

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,}")
MODEL = "models/clear"


def serve(
    run: Annotated[Path, typer.Argument(help="A finished run folder with an atlas.", callback=here)],
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let the network in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8420,
    token: Annotated[str, typer.Option(envvar="HEATPRINT_TOKEN", help="Instead of a random one.")] = "",
    name: Annotated[list[str] | None, typer.Option(help="Further names the server is asked for under.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Look at a run in the browser: the map, each pair, strategies, results, and a live laboratory."""
    uvicorn, inspector = _web()
    if token and not TOKEN.fullmatch(token):
        raise InvalidInput("serve: a token is 8 or more letters, digits and . _ ~ -, since it stands in an address.")
    if host in EVERYWHERE and not name:
        raise InvalidInput(f"serve: {host} is every address of this machine; say with --name under which it is asked.")
    word = token or secrets.token_urlsafe(24)
    bench = Waking(run) if (run / MODEL).is_dir() else None
    app = inspector(run, bench, token=word, hosts=_hosts(host, name or []), map_sent=bench.begin if bench else _nothing)
    listening = uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False, access_log=False)
    sock = listening.bind_socket()
    sock.listen()  # from now on a browser waits, and is not refused
    seen = f"[{host}]" if ":" in host else host
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else seen}:{sock.getsockname()[1]}/?token={word}"
    if host not in LOOPBACK:
        typer.echo(f"heatprint: {host} is open to the network, unencrypted: who listens learns the token.", err=True)
    typer.echo(f"inspector of {run}: {url}\nCtrl-C ends it.")
    if browser:
        typer.launch(url)
    uvicorn.Server(listening).run(sockets=[sock])


def _web() -> tuple[Any, Any]:
    """The server's parts, which are an extra."""
    try:
        import uvicorn

        from heatprint.web.app import inspector
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("heatprint"):
            raise
        raise InvalidInput(f"serve: {error.name} is not installed. Write: pip install 'heatprint[web]'") from error
    return uvicorn, inspector


def _hosts(host: str, names: list[str]) -> frozenset[str]:
    """Names the server may be asked for under: loopback, what it listens on, and those that were given."""
    from heatprint.web.access import LOOPBACK as near

    own = f"[{host}]" if ":" in host else host
    return near | {own.lower()} | {one.lower() for one in names}


def _nothing() -> None:
    """What there is to begin where the run has no model."""


class Waking:
    """The laboratory of a run, opened in the background; who asks for it before it is open waits.

    Args:
        run: The run folder, with a model.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._awake: Future[Bench] = Future()
        self._begun = threading.Lock()

    def __call__(self) -> Bench:
        """The laboratory.

        Raises:
            HeatprintError: It could not be opened.
        """
        self.begin()
        return self._awake.result()

    def begin(self) -> None:
        """Open it, once; two cores are better spent on the map until the map is there."""
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._wake, daemon=True, name="laboratory").start()

    def _wake(self) -> None:
        try:
            from heatprint.explainers.conservation import ConservationWarning
            from heatprint.live.laboratory import Laboratory

            warnings.simplefilter("ignore", ConservationWarning)  # every look says it in words

            self._awake.set_result(Laboratory.open(self._run))
        except HeatprintError as error:  # told to whoever asks for the laboratory
            self._awake.set_exception(
                HeatprintError(f"The laboratory could not be opened: {error} Then start it again.")
            )
        except BaseException as error:
            self._awake.set_exception(error)
