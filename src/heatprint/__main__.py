"""The command `heatprint`, also as `python -m heatprint`."""

from __future__ import annotations

import signal

from heatprint.core.interrupts import Stops, ends


def main() -> None:
    """Entry point: Ctrl-C ends it without a traceback, whenever it comes."""
    signal.signal(signal.SIGINT, ends())
    from heatprint.cli import main as run

    signal.signal(signal.SIGINT, Stops())
    try:
        run()
    finally:
        signal.signal(signal.SIGINT, ends(""))


if __name__ == "__main__":
    main()
