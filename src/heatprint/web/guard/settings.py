"""How a guard is served."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields
from typing import Literal, get_args

from heatprint.core.errors import InvalidInput
from heatprint.web.access import LOOPBACK

Fail = Literal["closed", "open"]
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Address, limits, and what happens when the guard fails.

    Attributes:
        host: Address to listen at.
        port: Of it; 0 for any that is free.
        token: What clients must show as ``Authorization: Bearer``; may be None on loopback only.
        names: Host names by which clients ask for this server, besides its address and loopback.
        fail: ``"closed"``: an image that cannot be checked is answered 503; ``"open"``: with the plain prediction and
            the verdict ``"unchecked"``.
        batch: Images checked at one time, at most; naming attacks costs the same for one image as for many.
        wait_ms: How long a batch waits for more images when nothing else is waiting.
        queue: Images that may wait; beyond that, 429.
        limit_s: Seconds a request may take, reading it included.
        read_s: Seconds in which its body must have arrived; beyond that, 408.
        grace_s: Seconds for which a server that was asked to stop goes on taking requests while it says that it is not
            ready, so that load balancers notice.
        most_images: In one request.
        most_bytes: Of a request.
        most_pixels: Of an image before it is resized.
        most_held: Bytes that have arrived of all requests that are not answered yet; beyond that, 429.
        recent: Images whose heat map can still be asked for.
    """

    host: str = "127.0.0.1"
    port: int = 8421
    token: str | None = None
    names: tuple[str, ...] = ()
    fail: Fail = "closed"
    batch: int = 64
    wait_ms: float = 5.0
    queue: int = 256
    limit_s: float = 30.0
    read_s: float = 10.0
    grace_s: float = 1.0
    most_images: int = 32
    most_bytes: int = 16 * 2**20
    most_pixels: int = 16_000_000
    most_held: int = 256 * 2**20
    recent: int = 256

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            least = 0 if one.name in ("port", "wait_ms", "grace_s") else 1
            if one.type in ("int", "float") and not (least <= value < float("inf")):
                raise InvalidInput(f"guard: {one.name} = {value} must be {least} or more.")
        if self.port > 65535:
            raise InvalidInput(f"guard: port = {self.port} must be 0 to 65535.")
        if self.fail not in get_args(Fail):
            raise InvalidInput(f"guard: fail = {self.fail!r} must be 'closed' or 'open'.")
        if self.most_images > self.queue or self.most_bytes > self.most_held:
            raise InvalidInput(
                f"guard: a request of {self.most_images} images and {self.most_bytes:,} bytes would never fit into a "
                f"queue of {self.queue} and {self.most_held:,} bytes. Make queue and most_held larger."
            )
        if self.token is None and not on_loopback(self.host):
            raise InvalidInput(f"guard: {self.host} can be reached from elsewhere and needs a token.")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise InvalidInput("guard: a token is 8 or more printable ASCII characters.")
        if self.host in EVERYWHERE and not self.names:
            raise InvalidInput(
                f"guard: {self.host} is every address of this machine; name those that clients use: --name HOSTNAME."
            )

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header of a request may say, without port."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return LOOPBACK | frozenset(name.lower() for name in (own, *self.names)) - frozenset(("0.0.0.0", "[::]"))


def on_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
