"""The images of a study, kept in its folder: read once, then mapped into memory, never held there.

RUN/images/train.npy, test.npy              pixels uint8 [N, 3, H, W]
RUN/images/train.parquet, test.parquet      id, label and print of each
RUN/images/_done/images.json                key, what was asked for, digests, what was skipped; written last
RUN/.verified.json                          when the pixels were last found to be those that were written
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from heatprint.core.digest import content_digest, digest
from heatprint.core.errors import MissingExtra, StoreError, UnreadableData
from heatprint.core.protocols import Progress, silent
from heatprint.core.reading import read_json
from heatprint.core.store import Store, read_mark, remove, replacing, write_atomic, write_json, write_mark
from heatprint.core.values import PIECE, PRINT, Batch
from heatprint.data.folder import Skipped
from heatprint.data.sources import Dataset, load_dataset, state_of
from heatprint.study.disk import SPARE, check_disk

log = logging.getLogger("heatprint")
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

    Where there is no source any more, as on another machine, those that were kept are taken.

    Args:
        store: The run folder.
        source: See `load_dataset`, as the rest.
        size: Side in pixels.
        train: At most this many training images.
        test: The same for the test part.
        seed: Of drawn images.
        progress: Told of each image.

    Raises:
        UnreadableData: There is no such source, and nothing was kept that was asked for like this.
        MissingExtra: The same, where the source needs a package that is not installed.
    """
    asked = [size, train, test, seed]
    try:
        key = key_of(source, size=size, train=train, test=test, seed=seed)
    except (UnreadableData, MissingExtra) as gone:
        with suppress(StoreError):
            if _card(store.root).get("asked") == asked:
                kept = _kept(store.root, kept_key(store.root))
                log.warning("%s cannot be read: going on with the images in %s", source, store.root / FOLDER)
                return kept
        raise gone
    try:
        return _kept(store.root, key)
    except StoreError:
        found = load_dataset(source, size=size, train=train, test=test, seed=seed, progress=progress)
        keep(store.root, key, found, asked=asked)
        return _kept(store.root, key)


def kept_images(store: Store, source: str, *, size: int, train: int | None, test: int | None, seed: int) -> Dataset:
    """The images that another process has read into the folder; see `read_images`.

    Raises:
        StoreError: It holds others than those that this process would read.
    """
    return _kept(store.root, key_of(source, size=size, train=train, test=test, seed=seed))


def check_images(root: Path, read: Callable[[int], object] = lambda _: None) -> dict[str, str]:
    """Read every byte of what was kept.

    Args:
        root: The run folder.
        read: Told of bytes that were read.

    Returns:
        Path inside the folder to what is wrong with the file; nothing where all is well.
    """
    wrong = {}
    try:
        card = _card(root)
    except StoreError as error:
        return {_mark(root).relative_to(root).as_posix(): str(error)}
    for split in SPLITS:
        try:
            prints = _listed(root, split, card)["print"]
        except StoreError as error:
            wrong[f"{FOLDER}/{split}.parquet"] = str(error)
            continue
        try:
            _check(root / FOLDER / f"{split}.npy", prints, read)
        except StoreError as error:
            wrong[f"{FOLDER}/{split}.npy"] = str(error)
    return wrong


def kept_key(root: Path) -> str:
    """What the kept images are, and were made from; see `key_of`.

    Raises:
        StoreError: There are none.
    """
    return str(_card(root)["key"])


def is_kept(root: Path, data: Dataset) -> bool:
    """Whether these are the images that were kept, by their ids, labels and prints.

    Raises:
        StoreError: None were kept, or their lists are damaged.
    """
    card = _card(root)
    return all(
        listed["id"].to_pylist() == list(batch.ids)
        and listed["label"].to_pylist() == batch.labels.tolist()
        and bool((_prints(listed["print"]) == batch.prints).all())
        for listed, batch in ((_listed(root, split, card), getattr(data, split)) for split in SPLITS)
    )


def key_of(source: str, *, size: int, train: int | None, test: int | None, seed: int) -> str:
    """What the images of a source would be kept under, as it is now.

    Raises:
        UnreadableData: There is no such source.
        MissingExtra: It needs a package that is not installed.
    """
    return digest(VERSION, state_of(source), size, train, test, seed)


def keep(root: Path, key: str, data: Dataset, *, asked: Sequence[int | None] = ()) -> None:
    """Write images into a run folder, under a key; `asked` are the size and numbers that were asked for."""
    card: dict[str, Any] = {
        "key": key,
        "asked": list(asked),
        "name": data.name,
        "classes": list(data.classes),
        "files": {},
        "skipped": [asdict(one) for one in data.skipped],
    }
    check_disk(root / FOLDER, sum(getattr(data, split).pixels.nbytes for split in SPLITS) + SPARE)
    mark = _mark(root)
    remove(mark)
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
    write_mark(mark, card)


def _write_pixels(path: Path, pixels: np.ndarray) -> None:
    with replacing(path) as stream:
        stream.write(_header(pixels))
        for start in range(0, len(pixels), PIECE):
            stream.write(np.ascontiguousarray(pixels[start : start + PIECE]).data)


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
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:  # numpy parses the header as Python
        raise StoreError(f"study: {path} is damaged ({error}).") from error
    return found


def _check(path: Path, prints: pa.ChunkedArray, read: Callable[[int], object] = lambda _: None) -> None:
    pixels, expected = _pixels(path), _prints(prints)
    if len(pixels) != len(prints) or pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise StoreError(f"study: {path} is damaged: it has other images than its list.")
    header = _header(pixels)
    with path.open("rb") as stream:
        if stream.read(len(header)) != header or path.stat().st_size != len(header) + pixels.nbytes:
            raise StoreError(f"study: {path} is damaged: its head, or its length, is not as it was written.")
    wrong = 0
    for start in range(0, len(pixels), PIECE):
        piece = torch.from_numpy(pixels[start : start + PIECE])
        labels = torch.zeros(len(piece), dtype=torch.long)
        found = Batch(ids=tuple(map(str, range(len(piece)))), pixels=piece, labels=labels).prints
        wrong += int((found != expected[start : start + PIECE]).any(1).sum())
        read(piece.nbytes)
    if wrong:
        raise StoreError(f"study: {path} is damaged: {wrong} of its images are not those that were written.")


def _header(pixels: np.ndarray) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(pixels))
    return head.getvalue()


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
    return pq.read_table(pa.BufferReader(content), use_threads=False)


def _card(root: Path) -> dict[str, Any]:
    try:
        card = read_mark(_mark(root))
    except FileNotFoundError as error:
        raise StoreError(f"study: {root / FOLDER} has no images ({error}).") from error
    if not {"key", "name", "classes", "skipped", "files"} <= card.keys():
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
