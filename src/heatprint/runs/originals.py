"""The clean images of a study, as its folder keeps them; see `heatprint.study.images`."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from heatprint.core.digest import content_digest
from heatprint.core.errors import StoreError
from heatprint.core.reading import read_json
from heatprint.runs.parts import UNREADABLE

FOLDER, SPLIT = "images", "test"
PRINT = 16  # bytes of an image's digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Originals:
    """The test images.

    Attributes:
        run: The run folder.
        ids: Of the images, an array of text.
        prints: Digest of the pixels of each, uint8 [N, 16].
    """

    run: Path
    ids: pa.Array
    prints: np.ndarray = field(repr=False)

    @classmethod
    def open(cls, run: Path) -> Originals | None:
        """Read their list; None where the run has none, as older runs.

        Raises:
            StoreError: It is damaged.
        """
        mark, path = run / FOLDER / "_done" / "images.json", run / FOLDER / f"{SPLIT}.parquet"
        if not mark.exists():
            return None
        try:
            content = path.read_bytes()
            if content_digest(content) != read_json(mark)["files"][path.name]:
                raise ValueError("it is not what was written")
            # without threads: one that lets go of our bytes while Python ends would abort the process
            table = pq.ParquetFile(pa.BufferReader(content)).read(columns=["id", "print"], use_threads=False)
            prints = table["print"].combine_chunks()
            if len(prints) and pc.min_max(pc.binary_length(prints)).as_py() != {"min": PRINT, "max": PRINT}:
                raise ValueError("digests of other lengths")
            found = np.frombuffer(prints.buffers()[2] or b"", np.uint8)[PRINT * prints.offset :][: PRINT * len(prints)]
        except (*UNREADABLE, TypeError) as error:
            raise _damaged(run, path, error) from error
        return cls(run=run, ids=table["id"].combine_chunks(), prints=found.reshape(-1, PRINT))

    def png(self, part: int, place: int) -> bytes:
        """The image of a row; there is one part. See `heatprint.runs.pictures.Source`."""
        del part
        path = self.run / FOLDER / f"{SPLIT}.npy"
        try:
            with path.open("rb") as stream:
                np.lib.format.read_magic(stream)
                shape, _, _ = np.lib.format.read_array_header_1_0(stream)
                size = int(np.prod(shape[1:]))
                stream.seek(place * size, io.SEEK_CUR)
                content = stream.read(size)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(self.run, path, error) from error
        if hashlib.blake2b(content, digest_size=PRINT).digest() != self.prints[place].tobytes():
            raise _damaged(self.run, path, f"image {place} is not the one that was written")
        pixels = np.frombuffer(content, np.uint8).reshape(shape[1:])
        sink = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(sink, "PNG", compress_level=1)
        return sink.getvalue()


def _damaged(run: Path, file: Path, what: object) -> StoreError:
    return StoreError(
        f"store: {file.relative_to(run)} is damaged ({what}). Run again: heatprint study --out {run} reads the images "
        "anew."
    )
