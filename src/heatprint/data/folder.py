"""Class-per-folder image trees: Kaggle's layout, ImageFolder's layout, or a user's own.

    FOLDER/cats/cat.1.jpg, FOLDER/dogs/dog.7.png, ...

Files are untrusted: each is decoded on its own, and one that cannot be is listed and skipped, never fatal.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from heatprint.core.errors import InvalidInput, UnreadableData
from heatprint.core.pictures import square
from heatprint.core.protocols import Progress, silent
from heatprint.core.values import Batch

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
MAX_PIXELS = 64_000_000  # decoded pixels of one file: above any photograph, below a decompression bomb


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An image that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A folder's images: the batch, its class names in label order, and what was left out."""

    batch: Batch
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def load_images(folder: str | Path, *, size: int = 112, limit: int | None = None) -> Batch:
    """The images of a class-per-folder tree; see `load_folder` for what was skipped.

    Args:
        folder: A folder with one sub-folder per class, at least two.
        size: Side in pixels every image is resized to (bilinear, antialiased, aspect not kept).
        limit: At most this many images, the classes taken in equal shares.

    Returns:
        A batch whose ids are paths relative to `folder` with forward slashes, sorted.

    Raises:
        UnreadableData: No such folder, fewer than two classes, or a class without a usable image.
    """
    return load_folder(folder, size=size, limit=limit).batch


def load_folder(
    folder: str | Path, *, size: int = 112, limit: int | None = None, progress: Progress = silent
) -> Loaded:
    """Like `load_images`, with class names and the list of skipped files."""
    root = Path(folder).expanduser()
    if not 8 <= size <= 4096:
        raise InvalidInput(f"load_images: size must be 8 to 4096 pixels, got {size}.")
    folders = _class_folders(root)
    classes = tuple(_text(folder.name) for folder in folders)
    files = [(path, label) for label, folder in enumerate(folders) for path in _files(folder)]
    if limit is not None:
        files = _even(files, len(classes), limit)
    pixels = np.empty((len(files), 3, size, size), dtype=np.uint8)
    skipped: list[Skipped] = []
    kept: list[int] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter lock
        read = pool.map(lambda item: _decode(item[0], size), files)
        for row, ((path, _), image) in enumerate(zip(files, read, strict=True)):
            if isinstance(image, str):
                skipped.append(Skipped(id=_name(path, root), reason=image))
            else:
                pixels[row] = image
                kept.append(row)
            progress(row + 1, len(files), f"{len(skipped)} skipped" if skipped else "")
    labels = np.array([files[row][1] for row in kept], dtype=np.int64)
    _require_every_class(root, classes, labels, skipped)
    batch = Batch(
        ids=tuple(_name(files[row][0], root) for row in kept),
        pixels=torch.from_numpy(pixels if len(kept) == len(files) else pixels[kept]),
        labels=torch.from_numpy(labels),
    )
    return Loaded(batch=batch, classes=classes, skipped=tuple(skipped))


def load_files(
    path: str | Path, *, size: int, classes: Sequence[str], limit: int | None = None, progress: Progress = silent
) -> Loaded:
    """One image file, or every image below a folder however it is laid out, for a classifier that exists already.

    Args:
        path: A file or a folder.
        size: Side in pixels, see `load_images`.
        classes: The classifier's classes. The label of an image is the nearest folder that has the name of one, its
            own folder for a single file; -1 where there is none.
        limit: At most this many images, the folders taken in equal shares.
        progress: Told of each image.

    Returns:
        Images with ids relative to the folder (the file's name for a single file), the classes, and what was left out.

    Raises:
        UnreadableData: There is nothing at this path, or no usable image.
    """
    root = Path(path).expanduser()
    files = [root] if root.is_file() else _files(root)
    if limit is not None:
        folders = sorted({file.parent for file in files})
        files = [file for file, _ in _even([(f, folders.index(f.parent)) for f in files], len(folders), limit)]
    base = root.parent if root.is_file() else root
    known = {_text(name): label for label, name in enumerate(classes)}
    names, labels, pixels, skipped = [], [], [], []
    for row, file in enumerate(files):
        image = _decode(file, size)
        if isinstance(image, str):
            skipped.append(Skipped(id=_name(file, base), reason=image))
        else:
            above = [base.name, *file.relative_to(base).parts[:-1]]
            names.append(_name(file, base))
            labels.append(next((known[_text(p)] for p in reversed(above) if _text(p) in known), -1))
            pixels.append(torch.from_numpy(image.copy()))  # Pillow's bytes are read-only
        progress(row + 1, len(files))
    if not pixels:
        told = "; ".join(f"{s.id}: {s.reason}" for s in skipped[:5]) or "no such file, or a folder without images"
        raise UnreadableData(f"load_files: no usable image at {_text(str(root))} ({told}).")
    batch = Batch(ids=tuple(names), pixels=torch.stack(pixels), labels=torch.tensor(labels))
    return Loaded(batch=batch, classes=tuple(classes), skipped=tuple(skipped))


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise UnreadableData(f"load_images: {root} is not a folder. Name one with a sub-folder per class.")
    folders = sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)
    if len(folders) < 2:
        found = ": " + _text(folders[0].name) if folders else ""
        raise UnreadableData(
            f"load_images: {root} has {len(folders)} class folder(s){found}; "
            "a classifier needs two or more. Name the folder whose sub-folders are the classes."
        )
    return folders


def _files(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")),
        key=lambda p: p.as_posix(),
    )


def _name(path: Path, root: Path) -> str:
    return _text(path.relative_to(root).as_posix())


def _text(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _even(files: list[tuple[Path, int]], classes: int, limit: int) -> list[tuple[Path, int]]:
    """The first files of each class, in equal shares; sorted order is kept."""
    shares = [limit // classes + (label < limit % classes) for label in range(classes)]
    kept = []
    for label, share in enumerate(shares):
        kept += [f for f in files if f[1] == label][:share]
    return kept


def _decode(path: Path, size: int) -> np.ndarray | str:
    """The image as uint8 [3, size, size], or the reason why it cannot be used."""
    try:
        if not path.is_file():
            return "not a file, or a link that leads nowhere"
        if path.stat().st_size == 0:
            return "the file is empty"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and palettes that it then reads well
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}"
                small = square(image, size)
    except UnidentifiedImageError:
        return "not an image that Pillow can read"
    except Image.DecompressionBombError as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:  # what broken files raise
        return f"{type(error).__name__}: {error}"
    return np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)


def _require_every_class(root: Path, classes: tuple[str, ...], labels: np.ndarray, skipped: Sequence[Skipped]) -> None:
    empty = [name for label, name in enumerate(classes) if not (labels == label).any()]
    if empty:
        bad = "".join(f"\n  {s.id}: {s.reason}" for s in skipped[:5])
        raise UnreadableData(
            f"load_images: no usable image in {', '.join(str(root / name) for name in empty)}. "
            f"Put images there ({', '.join(sorted(SUFFIXES))}) or remove the folder.{bad}"
        )
