"""What a file system may hold besides files: names that are no words, links, pipes, devices, endless folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from heatprint.testing.hostile.images import scene, written

NAMES = (
    b"new\nline", b"carriage\rreturn", b"tab\there", b"bell\a", b"clear\x1b[2J\x1b[31mscreen", b"quote'", b'quote"',
    b"<b>bold & &lt;", b"<script>alert(1)<", b"{{7*7}}", b"-rf", b"--help", b"a..b", b" blank ", b"%s%n%x", b"=1+1",
    b"$(id)", b"`id`", b";id", b"|id", b"*", b"?", b"[a]", b"{a,b}", b"~", b"#", b"a\\b", b"\\xff", b"\xff",
    b"\xfe\xffbroken", b"x" * 251, b"None", b"nan", b"-1", b"con", "café".encode(), "cafe\u0301".encode(),
    "\u202egnp.exe".encode(), "no\u200bgap".encode(), "line\u2028end".encode(), "\U0001f408".encode(),
)  # fmt: skip
MARKUP = ("a<", "script><img src=x onerror=alert(1)>.png")  # a folder and a file: together the end of a script
DEEP, LEVEL = 200, "d"
ENDLESS, LONG = 120, "e" * 40  # together longer than any path may be
SPARSE = 1 << 33  # bytes of a file that takes no room


def well_named(folder: Path) -> list[str]:
    """The scene under every name, and at the end of 200 folders: all must be read; returns the paths in the folder."""
    content = written(scene(), "PNG")
    deep = Path(*[LEVEL] * DEEP, "bottom.png")
    names = [Path(os.fsdecode(name + b".png")) for name in NAMES] + [
        Path(*MARKUP),
        deep,
        Path("named.png", "inside.png"),
    ]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    outside = folder.parent.parent / "outside.png"
    outside.write_bytes(content)
    (folder / "link out.png").symlink_to(outside)
    (folder / "link within.png").symlink_to("named.png/inside.png")
    return [os.fspath(name) for name in names] + ["link out.png", "link within.png"]


def misplaced(folder: Path) -> list[str]:
    """What must be named and left out, and must not be waited for; returns the paths in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder.parent.parent / "secret.txt"
    secret.write_text("not for others")
    links = {
        "nowhere.png": "/nowhere/at/all.png", "itself.png": "itself.png", "this way.png": "that way.png",
        "that way.png": "this way.png", "secret.png": os.fspath(secret), "zero.png": "/dev/zero",
        "random.png": "/dev/urandom", "null.png": "/dev/null", "full.png": "/dev/full", "terminal.png": "/dev/tty",
        "process.png": "/proc/self/environ", "link to a pipe.png": "pipe.png", "a folder.png": "/usr", "up": "..",
        "here": ".", "root": "/",
    }  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    os.mknod(folder / "socket.png", stat.S_IFSOCK | 0o600)
    (folder / "folder.png").mkdir()
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(SPARSE)
    return sorted([*links, "pipe.png", "socket.png", "folder.png", "sparse.png", _endless(folder)])


def _endless(folder: Path) -> str:
    """Folders within folders until the path is too long to be opened; returns the first that cannot be."""
    here = os.open(folder, os.O_RDONLY)
    inside = os.fspath(folder)
    for _ in range(ENDLESS):
        os.mkdir(LONG, dir_fd=here)
        below = os.open(LONG, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    while len(inside) < os.pathconf(folder, "PC_PATH_MAX") - 1:
        inside = f"{inside}/{LONG}"
    return os.path.relpath(inside, folder)
