"""Files that are small and claim much, or that no image is hidden in, whatever they are called."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from heatprint.testing.hostile.images import PNG, SIDE, Case, chunk, readable, scene, written

SEVERAL = ("animated", "pages")  # half of such a file may hold a whole image


def disguised(trace: str) -> Iterator[Case]:
    """Other things under the name of an image; one is a program that would make the file `trace`."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("cat.png", written(scene(), "PNG"))
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n%%EndComments\n({trace}) (w) file closefile\n"
    vector = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for name, content in {
        "nothing.png": b"",
        "text.jpg": b"not an image\n",
        "archive.jpg": archive.getvalue(),
        "page.jpg": b"<!doctype html><script>alert(1)</script>",
        "vector.png": vector.encode(),
        "program.jpg": b"\x7fELF\x02\x01\x01" + bytes(200),
        "script.gif": f"#!/bin/sh\ntouch '{trace}'\n".encode(),
        "postscript.jpg": postscript.encode(),
        "document.tif": b"%PDF-1.7\n1 0 obj\n",
        "zeros.png": bytes(4096),
        "head.png": PNG,
        "head.jpg": b"\xff\xd8\xff\xe0",
        "head.gif": b"GIF89a",
        "head.webp": b"RIFF\x1a\0\0\0WEBPVP8 ",
        "head.tif": b"II*\0\x08\0\0\0",
        "head.ppm": b"P6\n",
        "head.bmp": b"BM",
    }.items():
        yield Case(name=name, content=content, refused=True)
    for kind in ("JPEG2000", "ICO", "PDF", "EPS", "TGA", "PCX"):  # pictures, but of kinds that are not read
        yield Case(name=f"{kind.lower()}.jpg", content=written(Image.fromarray(scene()), kind), refused=True)


def truncated(points: int) -> Iterator[Case]:
    """Every readable file cut off at many points: refused in its first half, beyond that whatever is right."""
    for case in readable():
        stem, _, suffix = case.name.rpartition(".")
        for point in range(points):
            end = len(case.content) * point // points
            yield Case(
                name=f"{stem} cut {point}.{suffix}", content=case.content[:end],
                refused=2 * point < points and not case.name.startswith(SEVERAL),
            )  # fmt: skip


def claiming() -> Iterator[Case]:
    """Headers that claim far more pixels than the file holds."""
    for name, width, height in (
        ("large", 9000, 9000), ("enormous", 60_000, 60_000), ("most", 2**31 - 1, 2**31 - 1),
        ("row", 60_000_000, 1), ("column", 1, 60_000_000), ("none", 0, 0),
    ):  # fmt: skip
        yield Case(name=f"{name}.png", content=png(width, height, zlib.compress(b"")), refused=True)
        yield Case(name=f"{name}.ppm", content=b"P6\n%d %d\n255\n" % (width, height), refused=True)
        yield Case(name=f"{name}.pfm.ppm", content=b"Pf\n%d %d\n-1.0\n" % (width, height), refused=True)
        yield Case(name=f"{name}.bmp", content=_bmp(width, height), refused=True)
        yield Case(name=f"{name}.tif", content=_tiff(width, height), refused=True)
    yield Case(name="upside down.bmp", content=_bmp(50_000, -50_000), refused=True)
    yield Case(name="strip.tif", content=_tiff(SIDE, SIDE, strip=2**31), refused=True)
    screen = struct.pack("<6sHHBBB", b"GIF89a", 65_535, 65_535, 0, 0, 0)
    yield Case(name="screen.gif", content=screen + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;", refused=True)
    frame = struct.pack("<6sHHBBB", b"GIF89a", SIDE, SIDE, 0, 0, 0)
    yield Case(name="frame.gif", content=frame + b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;", refused=True)
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + (2**24 - 1).to_bytes(3, "little") * 2
    yield Case(
        name="canvas.webp", content=b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas, refused=True
    )
    jpeg = bytearray(written(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    yield Case(name="enormous.jpg", content=bytes(jpeg), refused=True)


def bombs(size: int) -> Iterator[Case]:
    """Files that grow while they are read, or that are read again and again.

    Args:
        size: Bytes the larger ones unpack to, or have.
    """
    packed = zlib.compress(bytes(size), 9)
    black = np.zeros_like(scene())
    yield Case(name="text.png", content=png(SIDE, SIDE, extra=chunk(b"zTXt", b"a\0\0" + packed)), refused=True)
    yield Case(name="profile.png", content=png(SIDE, SIDE, extra=chunk(b"iCCP", b"a\0\0" + packed)), refused=True)
    notes = b"".join(chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(10**6), 9)) for n in range(200))
    yield Case(name="texts.png", content=png(SIDE, SIDE, extra=notes), refused=True)
    yield Case(name="rows.png", content=png(SIDE, SIDE, packed), pixels=black)
    yield Case(name="pieces.png", content=png(SIDE, SIDE, extra=chunk(b"tEXt", b"") * 20_000), pixels=black)
    tags = _quadratic_tags(20_000, min(size, 300_000))
    yield Case(name="notes.png", content=png(SIDE, SIDE, extra=chunk(b"eXIf", tags)))
    yield Case(name="tags.tif", content=tags, refused=True)
    yield Case(name="pages.tif", content=_pages(20_000), pixels=scene())
    yield Case(name="frames.gif", content=_frames(20_000), pixels=black)
    jpeg = written(scene(), "JPEG", quality=95, progressive=True)
    block = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + bytes(64_992)
    yield Case(name="notes.jpg", content=jpeg[:2] + block * (size // 65_000 + 101) + jpeg[2:], refused=True)
    last = jpeg.rindex(b"\xff\xda")
    yield Case(name="scans.jpg", content=jpeg[:last] + jpeg[last:-2] * 5000 + jpeg[-2:], refused=True)


def png(width: int, height: int, packed: bytes | None = None, *, extra: bytes = b"") -> bytes:
    """A PNG with this header, these compressed rows (else black ones) and more pieces before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes((3 * width + 1) * height)) if packed is None else packed
    return PNG + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def _tiff(width: int, height: int, strip: int = 8) -> bytes:
    rows = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, strip))
    return struct.pack("<2sHIH", b"II", 42, 8, len(rows)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in rows
    ) + bytes(4)  # fmt: skip


def _quadratic_tags(count: int, size: int) -> bytes:
    """Tags that all claim the same bytes for their own."""
    start = 8 + 2 + 12 * count + 4
    listed = b"".join(struct.pack("<HHII", 1000 + tag, 7, size, start) for tag in range(count))
    return struct.pack("<2sHIH", b"II", 42, 8, count) + listed + bytes(4) + bytes(size)


def _pages(count: int) -> bytes:
    """A TIFF whose pages are all one: directories that point to the same pixels."""
    first = written(scene(), "TIFF")
    at = struct.unpack("<I", first[4:8])[0]
    length = 2 + 12 * struct.unpack("<H", first[at : at + 2])[0]
    directory, found = first[at : at + length], [bytearray(first)]
    found[0][at + length : at + length + 4] = struct.pack("<I", len(first))
    for page in range(1, count):
        after = len(first) + page * (length + 4) if page < count - 1 else 0
        found.append(bytearray(directory + struct.pack("<I", after)))
    return b"".join(found)


def _frames(count: int) -> bytes:
    """A GIF of one black frame, again and again."""
    whole = written(Image.new("P", (SIDE, SIDE)), "GIF")
    start = whole.index(b",", 13 + 3 * 2 ** ((whole[10] & 7) + 1))
    return whole[:start] + whole[start:-1] * count + whole[-1:]
