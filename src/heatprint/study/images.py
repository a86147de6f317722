"""The images of a study, kept in its folder: read once, then mapped into memory, never held there.

RUN/images/train.npy, test.npy              pixels uint8 [N, 3, H, W]
RUN/images/train.parquet, test.parquet      id, label and print of each
RUN/images/_done/images.json                key, digests, what was skipped; written last
RUN/.verified.json                          when the pixels were last found to be those that were written
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from heatprint.core.digest import content_digest, digest
from heatprint.core.errors import StoreError
from heatprint.core.protocols import Progress, silent
from heatprint.core.reading import read_json
from heatprint.core.store import Store, write_atomic, write_json
from heatprint.core.values import PIECE, PRINT, Batch
from heatprint.data.folder import Skipped
from heatprint.data.sources import Dataset, load_dataset, state_of
from heatprint.study.disk import SPARE, check_disk

VERSION = 1
FOLDER, SPLITS, VERIFIED = "images", ("train", "test"), ".verified.json"


def read_images(
    store: Store,
    source: str,
    *,
    size: int,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Dataset:
    """The images of a study; read anew where the source has changed since, or what was kept is damaged.

    Args:
        store: The run folder.
        source: See `load_dataset`, as the rest.
        size: Side in pixels.
        train: At most this many training images.
        test: The same for the test part.
        seed: Of drawn images.
        progress: Told of each image.
    """
    key = key_of(source, size=size, train=train, test=test, seed=seed)
    try:
        return _kept(store.root, key)
    except StoreError:
        found = load_dataset(source, size=size, train=train, test=test, seed=seed, progress=progress)
        keep(store.root, key, found)
        return _kept(store.root, key)


def kept_images(store: Store, source: str, *, size: int, train: int | None, test: int | None, seed: int) -> Dataset:
    """The images that another process has read into the folder; see `read_images`.

    Raises:
        StoreError: It holds others than those that this process would read.
    """
    return _kept(store.root, key_of(source, size=size, train=train, test=test, seed=seed))


def check_images(root: Path) -> None:
    """Read every byte of what was kept.

    Raises:
        StoreError: It is not what was written.
    """
    card = _card(root)
    for split in SPLITS:
        _check(root / FOLDER / f"{split}.npy", _listed(root, split, card)["print"])


def key_of(source: str, *, size: int, train: int | None, test: int | None, seed: int) -> str:
    """What the images are kept under; see `read_images`."""
    return digest(VERSION, state_of(source), size, train, test, seed)


def keep(root: Path, key: str, data: Dataset) -> None:
    """Write images into a run folder, under a key."""
    card: dict[str, Any] = {"key": key, "name": data.name, "classes": list(data.classes), "files": {},
                            "skipped": [asdict(one) for one in data.skipped]}  # fmt: skip
    check_disk(root / FOLDER, sum(getattr(data, split).pixels.nbytes for split in SPLITS) + SPARE)
    mark = _mark(root)
    mark.unlink(missing_ok=True)
    for split in SPLITS:
        batch: Batch = getattr(data, split)
        _write_pixels(root / FOLDER / f"{split}.npy", batch.pixels.numpy())
        rows = {"id": list(batch.ids), "label": batch.labels.tolist(), "print": [p.tobytes() for p in batch.prints]}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(rows), sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        write_atomic(root / FOLDER / f"{split}.parquet", content)
        card["files"][f"{split}.parquet"] = content_digest(content)
    write_json(root / VERIFIED, {split: _stamp(root / FOLDER / f"{split}.npy") for split in SPLITS})
    write_json(mark, card)


def _write_pixels(path: Path, pixels: np.ndarray) -> None:
    """Like `write_atomic`, a piece at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with torn.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(pixels))
            for start in range(0, len(pixels), PIECE):
                stream.write(np.ascontiguousarray(pixels[start : start + PIECE]).data)
            stream.flush()
            os.fsync(stream.fileno())
        torn.replace(path)
    finally:
        torn.unlink(missing_ok=True)


def _kept(root: Path, key: str) -> Dataset:
    """What was kept under a key.

    Raises:
        StoreError: Nothing, under another key, or it is damaged.
    """
    card = _card(root)
    if card.get("key") != key:
        raise StoreError(f"study: {root / FOLDER} holds other images.")
    parts = {split: _mapped(root, split, card) for split in SPLITS}
    return Dataset(
        name=card["name"],
        classes=tuple(card["classes"]),
        skipped=tuple(Skipped(**one) for one in card["skipped"]),
        **parts,
    )


def _mapped(root: Path, split: str, card: dict[str, Any]) -> Batch:
    listed, path = _listed(root, split, card), root / FOLDER / f"{split}.npy"
    if _seen(root).get(split) != _stamp(path):  # copied, restored or altered since: every byte is read once
        _check(path, listed["print"])
        write_json(root / VERIFIED, _seen(root) | {split: _stamp(path)})
    batch = Batch(
        ids=tuple(listed["id"].to_pylist()),
        pixels=torch.from_numpy(_pixels(path)),
        labels=torch.from_numpy(listed["label"].to_numpy().copy()),
    )
    return batch.printed(_prints(listed["print"]))


def _pixels(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)  # changes stay in this process
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"study: {path} is damaged ({error}).") from error
    return found


def _check(path: Path, prints: pa.ChunkedArray) -> None:
    pixels = _pixels(path)
    if len(pixels) != len(prints) or pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise StoreError(f"study: {path} is damaged: it has other images than its list.")
    ids = tuple(map(str, range(len(pixels))))
    found = Batch(ids=ids, pixels=torch.from_numpy(pixels), labels=torch.zeros(len(pixels), dtype=torch.long)).prints
    wrong = np.flatnonzero((found != _prints(prints)).any(1))
    if len(wrong):
        raise StoreError(f"study: {path} is damaged: {len(wrong)} of its images are not those that were written.")


def _prints(column: pa.ChunkedArray) -> np.ndarray:
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, PRINT)


def _listed(root: Path, split: str, card: dict[str, Any]) -> pa.Table:
    path = root / FOLDER / f"{split}.parquet"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"study: {path} cannot be read ({error}).") from error
    if content_digest(content) != card["files"].get(path.name):
        raise StoreError(f"study: {path} is damaged.")
    return pq.read_table(pa.BufferReader(content))


def _card(root: Path) -> dict[str, Any]:
    try:
        card = read_json(_mark(root))
    except (OSError, ValueError) as error:
        raise StoreError(f"study: {root / FOLDER} has no images ({error}).") from error
    if not isinstance(card, dict) or not {"key", "name", "classes", "skipped", "files"} <= card.keys():
        raise StoreError(f"study: {_mark(root)} is damaged.")
    return card


def _mark(root: Path) -> Path:
    return root / FOLDER / "_done" / "images.json"


def _seen(root: Path) -> dict[str, Any]:
    try:
        return dict(read_json(root / VERIFIED))
    except (OSError, ValueError, TypeError):
        return {}


def _stamp(path: Path) -> list[int]:
    """What changes when somebody writes to a file, or puts another in its place."""
    try:
        seen = path.stat()
    except OSError as error:
        raise StoreError(f"study: {path} cannot be read ({error}).") from error
    return [seen.st_size, seen.st_mtime_ns, seen.st_ino]
