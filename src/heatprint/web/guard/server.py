"""The process that serves a guard, and how it stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from heatprint.web.guard.app import guard_app
from heatprint.web.guard.service import Guarding
from heatprint.web.guard.settings import Settings


class Server(uvicorn.Server):
    """Stops in two steps: first it says that it is not ready, then it takes no more, answers what it has, and ends.

    Args:
        guard: What is served.
        settings: How.
    """

    def __init__(self, guard: Guarding, settings: Settings) -> None:
        app = guard_app(guard, settings)
        self.service, self.grace_s = app.state.service, settings.grace_s
        super().__init__(
            uvicorn.Config(
                app, host=settings.host, port=settings.port, log_config=None, access_log=False, server_header=False,
                proxy_headers=False, ws="none", lifespan="on", backlog=2048,
                timeout_graceful_shutdown=round(settings.limit_s) + 5,
            )
        )  # fmt: skip

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM and SIGINT; the second time at once."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.leave()
        timer = threading.Timer(self.grace_s, self._stop)
        timer.daemon = True
        timer.start()

    def _stop(self) -> None:
        self.should_exit = True


def serve(guard: Guarding, settings: Settings, told: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        guard: What is served.
        settings: How.
        told: Called with the port, once that is taken.
    """
    server = Server(guard, settings)
    taken = server.config.bind_socket()
    told(taken.getsockname()[1])
    server.run(sockets=[taken])
