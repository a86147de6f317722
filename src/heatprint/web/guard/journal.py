"""One line of JSON per request, and the counters that belong to requests."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Any

from heatprint.web.access import App, Receive, Scope, Send
from heatprint.web.guard.metrics import Metrics

LOG = logging.getLogger("heatprint.guard")
FACTS = "heatprint.facts"
"""Key in the scope of a request under which its handler leaves what the line shall say."""
LONGEST = 200  # characters of a path that are logged


class Journal:
    """ASGI middleware, outermost, so that it sees also those that are turned away.

    Args:
        app: What it writes about.
        metrics: Where it counts.
    """

    def __init__(self, app: App, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, then write."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts: dict[str, Any] = {"request": secrets.token_hex(8)}
        scope[FACTS], status, begin = facts, 500, time.perf_counter()

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", facts["request"].encode())]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            took = time.perf_counter() - begin
            self.metrics.count(status)
            if scope["path"] == "/v1/check" and status == 200:
                self.metrics.seconds.observe(took)
            line = {"method": scope["method"], "path": scope["path"][:LONGEST], "status": status,
                    "milliseconds": round(1e3 * took, 1)}  # fmt: skip
            LOG.info("request", extra={"facts": line | facts})


class JsonLines(logging.Formatter):
    """Log records as JSON, one a line; whatever a client sends cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(), "event": record.getMessage()}  # fmt: skip
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def log_as_lines() -> None:
    """From now on everything that is logged or warned of is a line of JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.captureWarnings(True)
    for name in ("heatprint.guard", "uvicorn", "py.warnings"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO)
