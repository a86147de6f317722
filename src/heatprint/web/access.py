"""Who may ask: a token, the server's own names, and answers that a browser treats as they are meant."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.requests import cookie_parser

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_WANTED = (
    "The token is wanted that was printed when the server was started: open the address with ?token=..., "
    "or send the header Authorization: Bearer ..."
)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Access:
    """ASGI middleware that lets only those in who know the token and mean this server.

    A page of another site cannot read answers (no CORS headers), nor make this server act: the Host header must name it
    (against DNS rebinding), and a foreign Origin is turned away. A browser shows the token once, in the address, and
    gets a cookie for it that scripts cannot read and other sites do not send; a program sends it as Bearer token.

    Args:
        app: What is guarded.
        token: Who does not know it is answered 401; None lets everybody in, for loopback only.
        hosts: Names by which the server may be asked for, without port; ``"[::1]"`` in brackets.
        open_paths: Paths that need no token.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str | None,
        hosts: frozenset[str] = LOOPBACK,
        open_paths: tuple[str, ...] = (),
    ) -> None:
        self.app, self.token, self.hosts, self.open_paths = app, token, hosts, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served, not {scope['type']!r}")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if _name(host) not in self.hosts:
            await _refuse(send, 421, "This server is not asked for under that name. Start it with --name NAME.")
        elif not _same_origin(headers.get("origin"), host):
            await _refuse(send, 403, "Requests from pages of other sites are not answered.")
        elif self._equal(_asked(scope).get("token", "")) and scope["method"] == "GET":
            await _welcome(send, scope, _cookie(host), self.token or "")
        elif scope["path"] in self.open_paths or self._known(headers, host):
            await self.app(scope, receive, _signed(send))
        else:
            await _refuse(send, 401, TOKEN_WANTED)

    def _known(self, headers: dict[str, str], host: str) -> bool:
        if self.token is None:
            return True
        scheme, _, word = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._equal(word.strip()):
            return True
        return self._equal(cookie_parser(headers.get("cookie", "")).get(_cookie(host), ""))

    def _equal(self, word: str) -> bool:
        return self.token is not None and hmac.compare_digest(word.encode(), self.token.encode())


def _name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _cookie(host: str) -> str:
    """Cookies know no ports; two servers of one machine must not take each other's."""
    port = host.rpartition(":")[2]
    return f"heatprint-{port if port.isdigit() else 'web'}"


def _same_origin(origin: str | None, host: str) -> bool:
    try:
        return origin is None or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # "http://["
        return False


def _asked(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))


def _signed(send: Send) -> Send:
    """Adds the headers to every answer."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            extra = {**HEADERS, "cache-control": "no-store"}
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in there),
            ]
        await send(message)

    return sending


async def _welcome(send: Send, scope: Scope, cookie: str, token: str) -> None:
    """Take the token out of the address, where it would be bookmarked and shared, into a cookie."""
    rest = urlencode([pair for pair in _asked(scope).items() if pair[0] != "token"])
    path = quote(scope["path"].lstrip("/\\"), safe="/")  # never //host: that would lead elsewhere
    where = f"/{path}" + (f"?{rest}" if rest else "")
    headers = {"location": where, "set-cookie": f"{cookie}={token}; HttpOnly; SameSite=Strict; Path=/"}
    await _answer(send, 303, b"", headers)


async def _refuse(send: Send, status: int, words: str) -> None:
    await _answer(send, status, words.encode(), {"content-type": "text/plain; charset=utf-8"})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    found = {**HEADERS, "cache-control": "no-store", "content-length": str(len(body)), **headers}
    spelled = [(name.encode(), value.encode("latin-1", "replace")) for name, value in found.items()]
    await send({"type": "http.response.start", "status": status, "headers": spelled})
    await send({"type": "http.response.body", "body": body})
