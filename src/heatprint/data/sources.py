"""Where a study's images come from: the menagerie, a folder, or Kaggle."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from heatprint.core.errors import InvalidInput, MissingExtra, UnreadableData
from heatprint.core.protocols import Progress, silent
from heatprint.core.scratch import room
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.data import menagerie
from heatprint.data.folder import Loaded, Skipped, load_folder
from heatprint.data.splits import sample, split

TRAIN_NAMES = ("training_set", "train", "training")
TEST_NAMES = ("test_set", "test", "val", "validation")


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Training and test images of one source; ids are unique over both."""

    name: str
    classes: tuple[str, ...]
    train: Batch
    test: Batch
    skipped: tuple[Skipped, ...] = ()


def load_dataset(
    source: str,
    *,
    size: int = 112,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Dataset:
    """The images of a study.

    Args:
        source: ``"menagerie"``, a folder, or ``"kaggle:OWNER/NAME"``. A folder either holds
            ``training_set``/``test_set`` (or ``train``/``test``) with a sub-folder per class, or the class
            folders themselves; then a fifth of the images, chosen by hash of id, is the test part.
        size: Side in pixels.
        train: At most this many training images (the menagerie draws exactly so many; default 2400).
        test: The same for the test part (default 600).
        seed: Seed of the drawn images.
        progress: Told of each image.

    Raises:
        UnreadableData: The source does not exist or has no usable images.
        MissingExtra: The source needs a package that is not installed.
    """
    if source == "menagerie":
        return _menagerie(size, train or 2400, test or 600, seed, progress)
    root, name = _fetch(source)
    found = _pair(root)
    if found is None:
        return _one_tree(name, load_folder(root, size=size, progress=progress), train, test)
    read = partial(load_folder, size=size, progress=progress)
    first, second = read(found[0], limit=train), read(found[1], limit=test)
    if first.classes != second.classes:
        raise UnreadableData(
            f"load_dataset: {found[0]} has the classes {', '.join(first.classes)}, "
            f"{found[1]} has {', '.join(second.classes)}. Both need the same class folders."
        )
    return Dataset(
        name=name,
        classes=first.classes,
        train=_prefixed(first.batch, found[0].name),
        test=_prefixed(second.batch, found[1].name),
        skipped=tuple(
            Skipped(id=f"{folder.name}/{s.id}", reason=s.reason)
            for folder, part in zip(found, (first, second), strict=True)
            for s in part.skipped
        ),
    )


def state_of(source: str) -> tuple[object, ...]:
    """What tells whether a source has changed: of a folder names, sizes, times and permissions of its files.

    Raises:
        UnreadableData: The source does not exist.
    """
    if source == "menagerie":
        return (source,)
    root, name = _fetch(source)
    # folders of training, test and classes may be links; those below are not followed
    tops = [root, *(folder for depth in ("*", "*/*", "*/*/*") for folder in root.glob(depth) if _is_link(folder))]
    files = set()
    for folder, _, names in (found for top in tops for found in os.walk(top)):
        for file in names:
            path = os.path.join(folder, file)  # noqa: PTH118 - a million of them
            with suppress(OSError):  # gone since it was listed, or a link that leads nowhere
                seen = os.stat(path)  # noqa: PTH116 - of what a link leads to
                files.add((os.fsencode(os.path.relpath(path, root)), seen.st_size, seen.st_mtime_ns, seen.st_mode))
    return name, sorted(files)


def _is_link(path: Path) -> bool:
    return path.is_symlink() and os.path.isdir(path)  # noqa: PTH112 - Path's raises where links lead in circles


def draw_batch(count: int, part: str, *, size: int, seed: int, progress: Progress = silent) -> Batch:
    """`count` animals, alternately of each species; image i of a part is the same whatever the count."""
    ids, pixels = [], room((count, 3, size, size), np.uint8)
    for i in range(count):
        name, scene = _drawn(part, i, size, seed)
        ids.append(name)
        pixels[i] = scene.image.transpose(2, 0, 1)
        progress(i + 1, count)
    labels = torch.arange(count) % len(menagerie.SPECIES)
    return Batch(ids=tuple(ids), pixels=torch.from_numpy(pixels), labels=labels)


def _drawn(part: str, i: int, size: int, seed: int) -> tuple[str, menagerie.Scene]:
    """Animal i of a part: its id, and the animal; the species alternate."""
    species = menagerie.SPECIES
    kind = species[i % len(species)]
    name = f"{part}/{kind}s/{kind}.{i // len(species)}.png"
    return name, menagerie.draw(kind, rng=stream(seed, "menagerie", name), size=size)


def _menagerie(size: int, train: int, test: int, seed: int, progress: Progress) -> Dataset:
    both = train + test
    return Dataset(
        name="menagerie",
        classes=tuple(f"{kind}s" for kind in menagerie.SPECIES),
        train=draw_batch(
            train, "training_set", size=size, seed=seed, progress=lambda done, _, note="": progress(done, both, note)
        ),
        test=draw_batch(
            test, "test_set", size=size, seed=seed, progress=lambda done, _, note="": progress(train + done, both, note)
        ),
    )


def _fetch(source: str) -> tuple[Path, str]:
    """A local folder for a source, and its name."""
    kind, _, rest = source.partition(":")
    if kind == "kaggle" and rest:
        try:
            import kagglehub
        except ImportError as error:
            raise MissingExtra("kagglehub", "hub", f"load_dataset: the source {source!r}") from error
        return Path(kagglehub.dataset_download(rest)), rest
    root = Path(source).expanduser()
    if not root.is_dir():
        raise UnreadableData(
            f"load_dataset: {source!r} is neither 'menagerie', nor a folder, nor 'kaggle:OWNER/NAME'. Check the path."
        )
    return root, root.resolve().name


def _pair(root: Path) -> tuple[Path, Path] | None:
    """The training and the test folder, also one level down as Kaggle archives have them."""
    try:
        inside = sorted(root.iterdir())
    except OSError as error:
        raise UnreadableData(
            f"load_dataset: {root} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    for folder in (root, *inside):
        train, test = (
            next((folder / name for name in names if os.path.isdir(folder / name)), None)  # noqa: PTH112, where Path's
            for names in (TRAIN_NAMES, TEST_NAMES)  # raises: in a folder that may not be looked into
        )
        if train and test:
            return train, test
    return None


def _one_tree(name: str, loaded: Loaded, train: int | None, test: int | None) -> Dataset:
    rows = split(loaded.batch.ids, {"train": 0.8, "test": 0.2})
    parts = {part: loaded.batch.take(found) for part, found in rows.items()}
    parts = {
        part: whole.take(sample(whole, limit))
        for (part, whole), limit in zip(parts.items(), (train, test), strict=True)
    }
    for part, batch in parts.items():
        lacking = [kind for label, kind in enumerate(loaded.classes) if not bool((batch.labels == label).any())]
        if lacking:
            raise UnreadableData(
                f"load_dataset: the {part} part of {name} has no image of {', '.join(lacking)}. Add images of that "
                "class, raise the limit, or lay the images out as training_set/ and test_set/."
            )
    return Dataset(name=name, classes=loaded.classes, **parts, skipped=loaded.skipped)


def _prefixed(batch: Batch, prefix: str) -> Batch:
    return Batch(ids=tuple(f"{prefix}/{i}" for i in batch.ids), pixels=batch.pixels, labels=batch.labels)


def write_menagerie(
    out: Path, *, train: int, test: int, size: int, seed: int = 0, masks: bool = False, progress: Progress = silent
) -> None:
    """Draw the menagerie into a folder, in Kaggle's layout: training_set/cats/cat.0.png, ...

    Args:
        out: The folder; must be new or empty.
        train: Training images, half of each species.
        test: Test images.
        size: Side in pixels.
        seed: The images are those a study with this seed draws.
        masks: Also write masks/<id>: white where the animal is visible.
        progress: Told of each image.

    Raises:
        InvalidInput: The folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(f"data menagerie: {out} is not an empty folder. Name a new one.")
    jobs = [(part, i) for part, count in (("training_set", train), ("test_set", test)) for i in range(count)]
    for done, (part, i) in enumerate(jobs, start=1):
        name, scene = _drawn(part, i, size, seed)
        for top, picture in [(out, scene.image)] + [(out / "masks", scene.object_mask)] * masks:
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        progress(done, len(jobs))
