"""What every page shares: the templates, and a policy that lets it ask for nothing and run nothing but its scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates; what is put into them is text, never markup."""
    pages = Environment(
        loader=PackageLoader("heatprint.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": _percent, "whole": _whole}
    return pages


def policy(scripts: Sequence[str]) -> str:
    """A content security policy under which nothing is loaded and only these scripts run."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {hashes}"


def as_bytes(page: str) -> bytes:
    """The page as UTF-8; a file name that is not arrives as lone surrogates, which are spelled out."""
    return page.encode("utf-8", "backslashreplace")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}"


def _whole(value: int) -> str:
    return f"{value:,}"
