"""The inspector's server: a run as pages, columns and pictures, and a live laboratory beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from heatprint import report
from heatprint.core.errors import HeatprintError, StoreError
from heatprint.report.views import VIEWS
from heatprint.runs.columns import packed, packed_more
from heatprint.runs.inside import inside
from heatprint.runs.read import read_shown
from heatprint.runs.shown import Shown
from heatprint.web.access import LOOPBACK, Access
from heatprint.web.bench import Bench
from heatprint.web.jobs import Busy, Jobs
from heatprint.web.limits import Limits
from heatprint.web.live import MOST_BYTES, live_routes
from heatprint.web.specimens import Specimens

STATIC = Path(report.__file__).parent / "static"  # shared with the report, which carries some of it
STYLE = Path(report.__file__).parent / "templates" / "style.css"  # the report's colours and type
LIVE = "/api/live"
NEAR = 12  # neighbours of an image
log = logging.getLogger("heatprint.web")


def inspector(
    run: Path,
    bench: Callable[[], Bench] | None,
    *,
    token: str | None,
    hosts: frozenset[str] = LOOPBACK,
    map_sent: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application.

    Args:
        run: A finished run folder with an atlas.
        bench: Waits for the live laboratory and returns it; None where the run has no model.
        token: Who does not know it is not answered; None only for loopback.
        hosts: Names by which the server may be asked for.
        map_sent: Called when a page has its map; what is slow to begin may begin then.

    Raises:
        StoreError: The folder is not such a run, or damaged, or links in it lead out of it.
    """
    inside(run)
    shown, jobs = read_shown(run, distances=False), Jobs()

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()

    app = FastAPI(title="heatprint inspector", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.add_middleware(Limits, longer={f"{LIVE}/upload": MOST_BYTES})
    app.add_middleware(Access, token=token, hosts=hosts)
    _errors(app)
    _pages(app, run)
    _columns(app, shown, live=bench is not None, map_sent=map_sent)
    if bench is not None:
        app.include_router(live_routes(bench, Specimens(shown), jobs), prefix=LIVE)
    app.mount("/static", StaticFiles(directory=STATIC, follow_symlink=False))
    return app


def _pages(app: FastAPI, run: Path) -> None:
    """The one page, and sections of the report that it fetches."""

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    @app.get("/static/report.css")
    def colours() -> FileResponse:
        return FileResponse(STYLE, media_type="text/css")

    @app.get("/view/{name}")
    def view(name: str) -> Response:
        if name not in VIEWS:
            return _nothing(f"There is no view {name!r}.")
        return HTMLResponse(_section(name, run))


def _section(name: str, run: Path) -> str:
    try:
        return VIEWS[name](run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # files that are not as we wrote them
        log.warning("view %s", name, exc_info=error)
        raise StoreError(
            f"What the run holds for this view is damaged or of another version ({type(error).__name__}). Run the "
            "command that made it again; `heatprint study` on the same folder does only what is missing."
        ) from error


def _columns(app: FastAPI, shown: Shown, *, live: bool, map_sent: Callable[[], None]) -> None:
    """Facts, the block of columns, pictures, and neighbours."""
    meta, points = packed(shown)

    def then() -> None:
        with suppress(StoreError):  # told to the page that asks for them
            shown.more()
        map_sent()

    @app.get("/api/run")
    def facts() -> dict[str, Any]:
        return {**meta, "live": live, "views": list(VIEWS)}

    @app.get("/api/points")
    def geometry() -> Response:
        return Response(points, media_type="application/octet-stream", background=BackgroundTask(then))

    @app.get("/api/more")
    def further() -> Response:
        told, block = packed_more(shown)
        return Response(block, media_type="application/octet-stream", headers={"x-columns": json.dumps(told)})

    @app.get("/api/image/{row}.png")
    def image(row: int) -> Response:
        if not 0 <= row < len(shown):
            return _nothing(f"There is no image {row}.")
        return Response(shown.images[row], media_type="image/png", headers={"cache-control": "private, max-age=3600"})

    @app.get("/api/near/{row}")
    def near(row: int) -> Any:
        if not 0 <= row < len(shown):
            return _nothing(f"There is no image {row}.")
        return [{"row": other, "distance": distance} for other, distance in shown.neighbours(row, NEAR)]


def _nothing(words: str) -> JSONResponse:
    return JSONResponse({"error": words}, status_code=404)


def _errors(app: FastAPI) -> None:
    """Words for the page, details for the log."""

    @app.exception_handler(HeatprintError)
    def refused(_: Request, error: HeatprintError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=429 if isinstance(error, Busy) else 422)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        found = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return JSONResponse({"error": found}, status_code=422)

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": "The server failed; its log says why."}, status_code=500)
