"""Asks a guard's service from Python, with nothing but the standard library on the wire."""

from __future__ import annotations

import json
import mimetypes
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from heatprint.core.errors import HeatprintError, InvalidInput
from heatprint.web.guard.answers import Answer, Answers

Picture = str | Path | bytes
SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "image/webp", b"GIF8": "image/gif",
              b"BM": "image/bmp"}  # fmt: skip
LONGEST = 30.0  # seconds that are waited before asking again, whatever the service says
HINTS = {
    401: "Give GuardClient(url, token=...) the token the guard was started with.",
    421: "Start the guard with --name and the host name of this URL.",
}


class GuardError(HeatprintError):
    """The service refused, failed or cannot be reached.

    Attributes:
        status: HTTP status; 0 where there was no answer.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class GuardClient:
    """A guard's service; may be shared between threads, since each question has a connection of its own.

    Args:
        url: E.g. ``"http://127.0.0.1:8421"``.
        token: What the service was started with; None where it needs none.
        timeout: Seconds for one attempt.
        tries: Attempts while the service says that its queue is full.

    Raises:
        InvalidInput: Not an http or https address, or no attempts.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 10, *, tries: int = 5) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"GuardClient: {url!r} is no address of a service. Write http://HOST:PORT.")
        if tries < 1 or not timeout > 0:
            raise InvalidInput(f"GuardClient: tries = {tries} must be 1 or more, timeout = {timeout} above 0.")
        self.url, self.token, self.timeout, self.tries = url, token, timeout, tries
        self._parts = parts

    def check(self, images: Picture | Sequence[Picture]) -> list[Answer]:
        """Answers and verdicts in the order of the images.

        Args:
            images: Paths of image files, or their bytes; one or several.

        Raises:
            GuardError: The service refused, failed or cannot be reached.
            InvalidInput: No images.
            OSError: A file cannot be read.
        """
        several = [images] if isinstance(images, str | Path | bytes) else list(images)
        if not several:
            raise InvalidInput("GuardClient: there are no images to check.")
        files = [_file(one) for one in several]
        if len(files) == 1:
            _, kind, content = files[0]
            answer = self._ask("POST", "/v1/check", content, kind)
        else:
            boundary = secrets.token_hex(16)
            answer = self._ask("POST", "/v1/check", _form(files, boundary), f"multipart/form-data; boundary={boundary}")
        found = Answers.model_validate_json(answer).images
        return [one.model_copy(update={"file": name}) for one, (name, _, _) in zip(found, files, strict=True)]

    def heat(self, answer: Answer) -> bytes:
        """The heat map of an image that was checked lately, a PNG file; errors as in `check`."""
        return self._ask("GET", answer.heat)

    def ready(self) -> bool:
        """Whether the service takes images; False also where it cannot be reached."""
        try:
            self._ask("GET", "/health/ready")
        except GuardError:
            return False
        return True

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        for left in reversed(range(self.tries)):
            status, content, after = self._once(method, path, body, kind)
            if status == 429 and left:
                time.sleep(min(LONGEST, float(after) if after.isdecimal() else 1.0))
            elif status == 200:
                return content
            else:
                raise GuardError(status, f"{self.url}: {status}: {_words(content)} {HINTS.get(status, '')}".rstrip())
        raise AssertionError("the last attempt returns or raises")

    def _once(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, bytes, str]:
        """Status, content, and what Retry-After says."""
        connect = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        link = connect(self._parts.hostname or "", self._parts.port, timeout=self.timeout)
        headers = {"Content-Type": kind} if kind else {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # turned away before the body was read
                link.request(method, self._parts.path.rstrip("/") + path, body or None, headers)
            answer = link.getresponse()
            return answer.status, answer.read(), answer.headers.get("Retry-After", "")
        except (OSError, HTTPException) as error:
            words = str(error) or type(error).__name__
            raise GuardError(0, f"{self.url}: no answer ({words}). Is the guard running?") from error
        finally:
            link.close()


def _file(image: Picture) -> tuple[str, str, bytes]:
    """Name, kind and content."""
    if isinstance(image, bytes):
        name, content, guessed = "", image, None
    else:
        name, content = str(image), Path(image).read_bytes()
        guessed = mimetypes.guess_type(name)[0]
    kind = next((kind for start, kind in SIGNATURES.items() if content.startswith(start)), guessed)
    return name, kind if kind and kind.startswith("image/") else "image/unknown", content


def _form(files: Sequence[tuple[str, str, bytes]], boundary: str) -> bytes:
    """The files as multipart/form-data; their names stay here."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{row}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for row, (_, kind, content) in enumerate(files)
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _words(content: bytes) -> str:
    """What an answer says is wrong."""
    try:
        return str(json.loads(content)["detail"])
    except (ValueError, KeyError, TypeError):
        return content[:300].decode("utf-8", "replace")
