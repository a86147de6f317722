"""Class-per-folder image trees: Kaggle's layout, ImageFolder's layout, or a user's own.

    FOLDER/cats/cat.1.jpg, FOLDER/dogs/dog.7.png, ...

Files are untrusted: each is decoded on its own, and one that cannot be is listed and skipped, never fatal. Links to
files are followed, links to folders below a class are not: they could lead in circles. Names with a leading dot are
left out, folders too, and so are files without the suffix of an image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from heatprint.core import pictures
from heatprint.core.errors import InvalidInput, UnreadableData
from heatprint.core.protocols import Progress, silent
from heatprint.core.reading import NOT_REGULAR, spelled
from heatprint.core.scratch import room
from heatprint.core.values import Batch

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
PIECE = 256  # files read ahead


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
    """Like `load_images`, with class names and the list of skipped files.

    Only usable images count towards `limit`: one that is skipped leaves its place to the next of its class.
    """
    root = Path(folder).expanduser()
    if not 8 <= size <= 4096:
        raise InvalidInput(f"load_images: size must be 8 to 4096 pixels, got {size}.")
    folders, unopened = _class_folders(root)
    found = [_files(folder) for folder in folders]
    unopened += [one for _, closed in found for one in closed]
    kept, pixels, broken = _decoded([files for files, _ in found], size, limit, progress)
    skipped = tuple(Skipped(id=_name(path, root), reason=reason) for path, reason in unopened + broken)
    classes, labels = tuple(spelled(folder.name) for folder in folders), [label for label, _ in kept]
    _require_every_class(root, classes, labels, skipped)
    batch = Batch(
        ids=tuple(_name(path, root) for _, path in kept),
        pixels=torch.from_numpy(pixels),
        labels=torch.tensor(labels),
    )
    return Loaded(batch=batch, classes=classes, skipped=skipped)


def load_files(
    path: str | Path, *, size: int, classes: Sequence[str], limit: int | None = None, progress: Progress = silent
) -> Loaded:
    """One image file, or every image below a folder however it is laid out, for a classifier that exists already.

    Args:
        path: A file or a folder.
        size: Side in pixels, see `load_images`.
        classes: The classifier's classes. The label of an image is the nearest folder that has the name of one, its
            own folder for a single file; -1 where there is none.
        limit: At most this many usable images, the folders taken in equal shares.
        progress: Told of each image.

    Returns:
        Images with ids relative to the folder (the file's name for a single file), the classes, and what was left out.

    Raises:
        UnreadableData: There is nothing at this path, or no usable image.
    """
    root = Path(path).expanduser()
    base = root.parent if root.is_file() else root
    files, unopened = _files(root) if root.is_dir() else ([root] if root.is_file() else [], [])
    groups: dict[Path, list[Path]] = {}
    for file in files:
        groups.setdefault(base if limit is None else file.parent, []).append(file)
    kept, pixels, broken = _decoded([groups[one] for one in sorted(groups)], size, limit, progress)
    skipped = tuple(Skipped(id=_name(file, base), reason=reason) for file, reason in unopened + broken)
    if not kept:
        told = "; ".join(f"{s.id}: {s.reason}" for s in skipped[:5]) or "no such file, or a folder without images"
        raise UnreadableData(f"load_files: no usable image at {spelled(str(root))} ({told}).")
    order = sorted(range(len(kept)), key=lambda row: kept[row][1].as_posix())
    paths = [kept[row][1] for row in order]
    batch = Batch(
        ids=tuple(_name(file, base) for file in paths),
        pixels=torch.from_numpy(pixels[order]),
        labels=torch.tensor([_label(file, base, classes) for file in paths]),
    )
    return Loaded(batch=batch, classes=tuple(classes), skipped=skipped)


def _class_folders(root: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The folders of the classes, by name; and those that are none, with the reason."""
    if not root.is_dir():
        raise UnreadableData(f"load_images: {root} is not a folder. Name one with a sub-folder per class.")
    try:
        inside = sorted(root.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise UnreadableData(
            f"load_images: {root} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    folders = [p for p in inside if os.path.isdir(p) and not p.name.startswith(".")]  # noqa: PTH112, see below
    circles = [p for p in folders if p.is_symlink() and root.resolve().is_relative_to(p.resolve())]
    folders = [p for p in folders if p not in circles]
    if len(folders) < 2:
        found = ": " + spelled(folders[0].name) if folders else ""
        raise UnreadableData(
            f"load_images: {root} has {len(folders)} class folder(s){found}; "
            "a classifier needs two or more. Name the folder whose sub-folders are the classes."
        )
    return folders, [(p, "a link to a folder that it lies in itself") for p in circles]


def _files(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Everything below a folder with the suffix of an image, by path; and what was not looked into, with the reason."""
    files, closed, waiting = list[Path](), list[tuple[Path, str]](), [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                inside = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            closed.append((here, f"a folder that cannot be read ({error.strerror})"))
            continue
        for entry in inside:
            path, of_image = here / entry.name, Path(entry.name).suffix.lower() in SUFFIXES
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
                closed += [(path, "a folder, though it is called like an image; what is in it was read")] * of_image
            elif entry.is_symlink() and os.path.isdir(path):  # noqa: PTH112, Path's raises where links lead in circles
                closed.append((path, "a link to a folder, which is not followed"))
            elif of_image:
                files.append(path)
    return sorted(files, key=Path.as_posix), sorted(closed)


def _decoded(
    groups: Sequence[Sequence[Path]], size: int, limit: int | None, progress: Progress
) -> tuple[list[tuple[int, Path]], np.ndarray, list[tuple[Path, str]]]:
    """The usable files of each group from the first on, until there are enough.

    Returns:
        Group and path of each image, the images uint8 [N, 3, size, size], and the files left out with the reason.
    """
    count = len(groups)
    shares = [len(files) if limit is None else min(len(files), limit // count + (place < limit % count))
              for place, files in enumerate(groups)]  # fmt: skip
    pixels = room((sum(shares), 3, size, size), np.uint8)
    kept, broken = list[tuple[int, Path]](), list[tuple[Path, str]]()
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter lock
        for group, (files, share) in enumerate(zip(groups, shares, strict=True)):
            waiting, full = iter(files), len(kept) + share
            while piece := list(islice(waiting, min(full - len(kept), PIECE))):  # once more for those that are broken
                for path, image in zip(piece, pool.map(lambda path: _decode(path, size), piece), strict=True):
                    if isinstance(image, str):
                        broken.append((path, image))
                    else:
                        pixels[len(kept)] = image
                        kept.append((group, path))
                    progress(len(kept), len(pixels), f"{len(broken)} skipped" if broken else "")
    return kept, pixels[: len(kept)], broken


def _name(path: Path, root: Path) -> str:
    return spelled(path.relative_to(root).as_posix())


def _label(file: Path, base: Path, classes: Sequence[str]) -> int:
    """The class with the name of the nearest folder above a file; -1 where there is none."""
    known = {name: label for label, name in enumerate(classes)}
    above = [base.name, *file.relative_to(base).parts[:-1]]
    return next((known[spelled(p)] for p in reversed(above) if spelled(p) in known), -1)


def _decode(path: Path, size: int) -> np.ndarray | str:
    """The image as uint8 [3, size, size], or the reason why it cannot be used."""
    try:
        return pictures.read(path, size)
    except FileNotFoundError:
        return "not there: gone, or a link that leads nowhere"
    except OSError as error:
        return "not a file" if error.errno == NOT_REGULAR else f"cannot be read ({error.strerror})"
    except UnreadableData as error:
        return str(error)


def _require_every_class(root: Path, classes: Sequence[str], labels: Sequence[int], skipped: Sequence[Skipped]) -> None:
    empty = [name for label, name in enumerate(classes) if label not in labels]
    if empty:
        bad = "".join(f"\n  {s.id}: {s.reason}" for s in skipped[:5])
        raise UnreadableData(
            f"load_images: no usable image in {', '.join(f'{root}/{name}' for name in empty)}. "
            f"Put images there ({', '.join(sorted(SUFFIXES))}) or remove the folder.{bad}"
        )
