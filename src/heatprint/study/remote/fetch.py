"""A local folder brought up to date with a run on a store: what differs is read, data first, marks after them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from heatprint.core.errors import StoreError
from heatprint.core.inventory import CARD, DONE, WEIGHTS
from heatprint.core.store import LOCK, STAMP, remove, write_atomic
from heatprint.study.remote.mirror import is_sent
from heatprint.study.remote.objects import Objects

READERS = 8  # objects that are read at a time
SMALL = 1 << 20  # bytes of an object that is read to see whether it differs
RECIPE, FINISH, UNFINISHED = "recipe.json", "metrics.json", "unfinished.safetensors"
DATA = re.compile(r"part-\d{5,}\.(parquet|safetensors)")


def bring(objects: Objects, root: Path, *, disposable: bool = False) -> list[str]:
    """Make a folder what the store has; parts and models that only the folder has stay.

    Args:
        objects: The run on the store.
        root: The folder; nobody may be writing to it.
        disposable: Whether a folder that holds another study may be emptied.

    Returns:
        Files that only the folder has, and that belong on the store, data before marks.

    Raises:
        StoreError: The folder holds another study, or the store cannot be read.
    """
    there = {name: size for name, size in objects.names().items() if is_sent(name) and "//" not in name}
    _same(objects, root, there, disposable=disposable)
    top = sorted((name for name in there if _is_top(name)), key=lambda name: name != STAMP)
    for name in top[:1]:  # by which the folder is one of ours from the beginning
        _loose(objects, root, name, there)
    marks = [name for name in there if _is_mark(name)]
    parts: dict[str, list[str]] = {mark: [] for mark in marks}
    folders: dict[str, list[str]] = {}
    for name, mark in _marked(there, marks):
        if mark:
            parts[mark].append(name)
        else:
            folders.setdefault(name.rpartition("/")[0], []).append(name)

    def part(one: tuple[str, bytes]) -> None:
        _part(objects, root, one[0], one[1], parts[one[0]], there)

    def folder(names: list[str]) -> None:
        for name in sorted(names, key=_is_card):
            _loose(objects, root, name, there)

    with ThreadPoolExecutor(READERS) as pool:
        for done in (pool.map(part, objects.read_many(marks)), pool.map(folder, folders.values())):
            list(done)  # raises what went wrong
    for name in sorted(top[1:], key=lambda name: name == FINISH):
        _loose(objects, root, name, there)
    return _only_here(root, there)


def _same(objects: Objects, root: Path, there: Mapping[str, int], *, disposable: bool) -> None:
    if RECIPE not in there or not (root / RECIPE).exists() or objects.read(RECIPE) == (root / RECIPE).read_bytes():
        return
    if not disposable:
        raise StoreError(
            f"remote: {root} holds another study than {objects.address}. Name another folder, or delete this one."
        )
    for path in root.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_top(name: str) -> bool:
    return "/" not in name.removeprefix(f"{DONE}/")


def _is_mark(name: str) -> bool:
    return name.split("/")[-2:-1] == [DONE] and not _is_top(name)


def _is_card(name: str) -> bool:
    return name.endswith(f"/{CARD}")


def _marked(there: Iterable[str], marks: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Files with their mark: that of their part, or the one of all the images; or with none, where they need none."""
    stems = {mark.replace(f"/{DONE}/", "/").removesuffix(".json"): mark for mark in marks}
    for name in there:
        folder, _, last = name.rpartition("/")
        mark = stems.get(f"{folder}/{last.partition('.')[0]}") or stems.get(f"{folder}/images", "")
        if not _is_mark(name) and not _is_top(name) and (mark or not DATA.fullmatch(last)):
            yield name, mark


def _part(
    objects: Objects, root: Path, mark: str, content: bytes, data: Sequence[str], there: Mapping[str, int]
) -> None:
    """The files of a part, unless they are those that are here."""
    path = root / mark
    if not path.is_file() or path.read_bytes() != content:
        remove(path)
        missing = list(data)
    else:
        missing = [name for name in data if _size(root / name) != there[name]]
    for name in missing:
        objects.fetch(name, root / name)
    if not path.exists():
        write_atomic(path, content)


def _loose(objects: Objects, root: Path, name: str, there: Mapping[str, int]) -> None:
    """A file that no part's mark knows."""
    path = root / name
    if there[name] <= SMALL:
        content = objects.read(name)
        if content is not None and (not path.is_file() or path.read_bytes() != content):
            write_atomic(path, content)
    elif not (path.name == WEIGHTS and _size(path) == there[name] and _same_card(objects, path.parent, name)):
        objects.fetch(name, path)


def _same_card(objects: Objects, folder: Path, name: str) -> bool:
    card = folder / CARD
    return card.is_file() and objects.read(name.replace(WEIGHTS, CARD)) == card.read_bytes()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _only_here(root: Path, there: Mapping[str, int]) -> list[str]:
    extra = []
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if name in there or not path.is_file() or not is_sent(name) or _is_top(name):
            continue
        if path.name != UNFINISHED:
            extra.append(name)
        elif path.with_name(CARD).exists():
            path.unlink()  # the store has the finished model
    return sorted(extra, key=lambda name: (_is_mark(name), _is_card(name), name))
