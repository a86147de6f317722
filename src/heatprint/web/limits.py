"""Bodies of requests are counted as they come: no more is held than an answer can need, and nobody is waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from heatprint.web.access import App, Receive, Scope, Send

MOST = 64 * 2**10  # bytes; a specimen with all its edits has half of that
PATIENCE = 30.0  # seconds that a body may take


class Limits:
    """ASGI middleware that refuses bodies that are too long or too slow.

    Args:
        app: What is guarded.
        longer: Paths that take more, and how many bytes.
    """

    def __init__(self, app: App, *, longer: Mapping[str, int]) -> None:
        self.app, self.longer = app, longer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 408, or hand the whole body on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        most = self.longer.get(scope["path"], MOST)
        try:
            async with asyncio.timeout(PATIENCE):
                body = await _body(receive, most)
        except TimeoutError:
            await _refuse(send, 408, f"The request took longer than {PATIENCE:.0f} seconds to arrive.")
            return
        if body is None:
            await _refuse(send, 413, f"The request has more than {most:,} bytes.")
            return
        sent = False

        async def again() -> dict[str, object]:
            nonlocal sent
            if sent:
                return dict(await receive())
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


async def _body(receive: Receive, most: int) -> bytes | None:
    """A whole body, or None as soon as it is longer."""
    content = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(content)
        content += message.get("body", b"")
        if len(content) > most:
            return None
        if not message.get("more_body"):
            return bytes(content)


async def _refuse(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
