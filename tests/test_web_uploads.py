"""Images from strangers: read exactly as the loader reads them, or refused in words."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from heatprint.core.errors import InvalidInput
from heatprint.data import load_files
from heatprint.web.uploads import TooLarge, limited, read_body, read_image

SIZE = 24
COLOURS = np.random.default_rng(0).integers(0, 256, (37, 53, 4), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65536, (37, 53)).astype(np.uint16)


def picture(mode):
    if mode == "I;16":
        return Image.fromarray(WIDE)
    if mode == "P, transparent":
        flat = Image.fromarray(COLOURS).convert("RGB").convert("P")
        flat.info["transparency"] = 3
        return flat
    return Image.fromarray(COLOURS).convert(mode)


def written(image, kind, **settings):
    sink = io.BytesIO()
    image.save(sink, kind, **settings)
    return sink.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return written(picture("RGB"), "JPEG", exif=exif, quality=95)


FILES = {
    **{f"png {mode}": written(picture(mode), "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")},
    "png P, transparent": written(picture("P, transparent"), "PNG", transparency=3),
    **{f"jpeg {mode}": written(picture(mode), "JPEG") for mode in ("RGB", "L", "CMYK")},
    "jpeg turned": turned(),
    "webp RGBA": written(picture("RGBA"), "WEBP", lossless=True),
    "bmp RGB": written(picture("RGB"), "BMP"),
    "gif of two": written(picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(90)]),
}


def read(content, **limits):
    return read_image(content, SIZE, **{"most_bytes": 10**6, "most_pixels": 10**6} | limits)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_the_loader_reads_it(name, tmp_path):
    path = tmp_path / f"image.{name.split()[0]}"
    path.write_bytes(FILES[name])
    expected = load_files(path, size=SIZE, classes=("a", "b")).batch.pixels[0].numpy()
    found = read(FILES[name])
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.uint8, (3, SIZE, SIZE), True)
    assert (found == expected).all()


def bomb(side=40_000):
    """A PNG of few bytes whose header promises 1,600 million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [1_001, 10_000, 40_000])
def test_a_decompression_bomb_is_refused_by_its_header(side, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(TooLarge, match="pixels are taken"):
        read(bomb(side))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", written(picture("RGB"), "TIFF")]
)
def test_what_is_no_image_of_a_known_kind_is_refused(content):
    with pytest.raises(InvalidInput, match=r"empty|no.* image file of a known kind|not an image file"):
        read(content)


@pytest.mark.parametrize("name", FILES)
def test_half_a_file_is_refused(name):
    with pytest.raises(InvalidInput, match=r"damaged|not an image"):
        read(FILES[name][: len(FILES[name]) // 2])


@settings(max_examples=settings.default.max_examples * 10)
@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8))
def test_damage_anywhere_is_read_or_refused(name, damage):
    content = bytearray(FILES[name])
    for place, value in damage:
        content[int(place * len(content))] = value
    with suppress(InvalidInput):
        assert read(bytes(content)).shape == (3, SIZE, SIZE)


def test_bytes_are_counted():
    with pytest.raises(TooLarge, match="at most 100 are taken"):
        read(FILES["png RGB"], most_bytes=100)


def test_a_body_is_read_no_further_than_its_limit():
    pulled = []

    async def stream():
        for _ in range(100):
            pulled.append(10)
            yield bytes(10)

    assert len(asyncio.run(read_body(stream(), 1000))) == 1000
    pulled.clear()
    with pytest.raises(TooLarge, match="more than 35 bytes"):
        asyncio.run(read_body(stream(), 35))
    assert sum(pulled) == 40
    assert hasattr(limited(stream(), 5), "__aiter__")
