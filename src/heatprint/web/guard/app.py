"""The guard's HTTP application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from heatprint import __version__
from heatprint.core.errors import InvalidInput
from heatprint.web.access import Access
from heatprint.web.guard.answers import Answer, Answers, Problem
from heatprint.web.guard.batches import Full
from heatprint.web.guard.journal import FACTS, Journal
from heatprint.web.guard.service import Guarding, Service
from heatprint.web.guard.settings import Settings
from heatprint.web.uploads import TooLarge, limited, read_body

OPEN = ("/health/live", "/health/ready")
CLOSED = 499  # what proxies log of a client that has gone
LOG = logging.getLogger("heatprint.guard")
File = tuple[str, bytes]

BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not an image that can be decoded."},
    401: {"description": "No token, or a wrong one."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "Too many bytes, pixels or images."},
    415: {"model": Problem, "description": "Neither an image nor a form of images."},
    429: {"model": Problem, "description": "The queue is full; Retry-After says when to ask again."},
    503: {"model": Problem, "description": "The guard failed, or took too long."},
}


def guard_app(guard: Guarding, settings: Settings) -> FastAPI:
    """The application; its `Service` is ``app.state.service``.

    Args:
        guard: What is served, e.g. `heatprint.live.Guard`.
        settings: Limits, token, and what happens when the guard fails.
    """
    service = Service(guard, settings)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with service.at_work():
            yield

    app = FastAPI(
        title="heatprint guard", version=__version__, docs_url=None, redoc_url=None, lifespan=life,
        description="Answers of an image classifier, and for each image whether it was attacked.",
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(Access, token=settings.token, hosts=settings.hosts, open_paths=OPEN)
    app.add_middleware(Journal, metrics=service.metrics)
    _problems(app)
    _health(app, service)
    _images(app, service)
    return app


def _images(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/v1/check", response_model=Answers, responses=PROBLEMS, openapi_extra={"requestBody": BODY})
    async def check(request: Request) -> Answers:
        """Answer and verdict of one image (body of type image/*) or several (multipart/form-data)."""
        check_announced(request, settings.most_bytes)
        end = asyncio.get_running_loop().time() + settings.limit_s
        with service.holding() as arrived:
            files = await read_in_time(request, settings, arrived)
            async with asyncio.timeout_at(end):
                images = [await service.decoded(content) for _, content in files]
                found = await service.checks.ask(images)
        told: list[Answer] = []
        for (name, _), image, answer in zip(files, images, found, strict=True):
            if answer is None:
                raise HTTPException(503, "The guard failed on an image; the server's log says why.")
            heat = f"/v1/heat/{service.remember(image)}.png"
            told.append(answer.model_copy(update={"file": name, "heat": heat}))
            service.metrics.images.labels(answer.verdict).inc()
        request.scope[FACTS] |= {"images": len(told), "attacked": sum(one.verdict == "attacked" for one in told)}
        return Answers(images=told)

    @app.get("/v1/heat/{name}.png", response_class=Response,
             responses=PROBLEMS | {200: {"content": {"image/png": {}}}, 404: {"model": Problem}})  # fmt: skip
    async def heat(name: str) -> Response:
        """What the classifier relied on in a recent image: white is zero, red speaks for its answer."""
        try:
            async with asyncio.timeout(settings.limit_s):
                png = await service.heat_png(name)
        except KeyError as error:
            raise HTTPException(404, "There is no image of this name, or no longer. Check it again.") from error
        if png is None:
            raise HTTPException(503, "The heat map could not be made; the server's log says why.")
        return Response(png, media_type="image/png")


def _health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "live"}

    @app.get("/health/ready", responses={503: {"description": "Starting, draining or stuck."}})
    async def ready() -> JSONResponse:
        """Whether to send it images."""
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _problems(app: FastAPI) -> None:
    """Words for the client, details for the log."""

    def told(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": words}, status, headers)

    @app.exception_handler(InvalidInput)
    async def refused(_: Request, error: InvalidInput) -> JSONResponse:
        return told(413 if isinstance(error, TooLarge) else 400, str(error))

    @app.exception_handler(Full)
    async def full(_: Request, error: Full) -> JSONResponse:
        return told(429, str(error), {"retry-after": str(error.seconds)})

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> JSONResponse:
        return told(503, "The request took too long.", {"retry-after": "1"})

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> JSONResponse:
        return told(CLOSED, "The client has gone.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        LOG.error("a request failed", exc_info=error)
        return told(500, "The server failed; its log says why.")


async def read_in_time(request: Request, settings: Settings, arrived: Callable[[int], None]) -> list[File]:
    """As `read_files`, which else waits for as long as a client likes.

    Raises:
        HTTPException: 408, the body did not arrive in time; or as `read_files`.
    """
    most_s = min(settings.read_s, settings.limit_s)
    try:
        async with asyncio.timeout(most_s):
            return await read_files(request, settings, arrived)
    except TimeoutError as error:
        words = f"The body did not arrive within {most_s:g} s. Send fewer or smaller images."
        raise HTTPException(408, words, {"connection": "close"}) from error


async def read_files(request: Request, settings: Settings, arrived: Callable[[int], None]) -> list[File]:
    """Names and contents of the image files of a request.

    Args:
        request: What is read.
        settings: Its limits.
        arrived: Told the bytes of every piece of the body; what it raises ends the reading.

    Raises:
        HTTPException: 415, neither an image nor a form of images; 400, a broken form; 413, too many.
        TooLarge: More bytes than are taken.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return [("", await read_body(request.stream(), settings.most_bytes, arrived))]
    if kind != "multipart/form-data":
        raise HTTPException(415, f"{kind[:100]!r} is no image: send image/png or the like, or multipart/form-data.")
    body = limited(request.stream(), settings.most_bytes, arrived)
    parser = MultiPartParser(request.headers, body, max_files=settings.most_images, max_fields=0)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 413 if "Too many files" in error.message else 400
        raise HTTPException(status, f"{error.message} At most {settings.most_images} images, and no fields.") from error
    except FormParserError as error:  # which older starlette lets through
        raise HTTPException(400, f"The form is broken: {error}.") from error
    except UnicodeError as error:
        raise HTTPException(400, "The names in the form are not written in the charset it states.") from error
    async with form_closed(form):
        parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not parts:
            raise HTTPException(400, "The form holds no image.")
        for part in parts:
            if not (part.content_type or "").lower().startswith("image/"):
                raise HTTPException(415, f"{(part.filename or '')[:100]!r} of the form is not sent as an image.")
        return [(spelled(part.filename or ""), await part.read()) for part in parts]


def spelled(name: str) -> str:
    """At most 255 characters of a name, as JSON can carry it: lone surrogates are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()[:255]


@asynccontextmanager
async def form_closed(form: Any) -> AsyncIterator[None]:
    """Closes the temporary files of a form."""
    try:
        yield
    finally:
        await form.close()


def check_announced(request: Request, most: int) -> None:
    """Refuse a request before it is read.

    Raises:
        TooLarge: It says that it has more bytes than are taken.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise TooLarge(
            f"The request has {int(said):,} bytes; at most {most:,} are taken. Send fewer or smaller images."
        )
