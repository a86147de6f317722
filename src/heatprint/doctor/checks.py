"""One file of a run folder, or a few that belong together, held against what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from heatprint.core.digest import SIZE
from heatprint.core.errors import HeatprintError, StoreError
from heatprint.core.inventory import CARD, DONE, IMAGES, LABORATORY, LOOP, MODELS, STUDY, WEIGHTS, path_of
from heatprint.core.reading import read_json, require_regular
from heatprint.core.store import SCHEMA, as_json, read_mark
from heatprint.doctor.finding import Finding, Remedy
from heatprint.doctor.layout import PICTURES, UNFINISHED, Layout

Read = Callable[[int], object]
"""Told of bytes that were read, from any thread."""

Job = Callable[[Read], Sequence[Finding]]
CHUNK = 1 << 20
DAMAGED, MISSING = "is damaged", "is missing"
STAMP = "schema.json"


def jobs(layout: Layout) -> Iterator[Job]:
    """Everything there is to check."""
    yield lambda _: _lists(layout)
    for step, parts in sorted(layout.parts.items()):
        for stem, names in sorted(parts.items()):
            yield lambda read, step=step, stem=stem, names=names: _part(layout, step, stem, names, read)  # type: ignore[misc]
    known = layout.digests
    for path in sorted({*layout.loose, *known} - PICTURES):
        yield lambda read, path=path: _loose(layout, path, known.get(path), read)  # type: ignore[misc]
    if PICTURES & {*layout.loose, *known}:
        yield lambda read: _pictures(layout, read)
    for name, files in sorted(layout.models.items()):
        yield lambda read, name=name, files=files: _model(layout, name, files, read)  # type: ignore[misc]
    for owner, load in ((LABORATORY, _load_laboratory), (LOOP, _load_loop)):
        if owner not in layout.inventories and (layout.root / owner / "fitted").is_dir():
            yield lambda _, owner=owner, load=load: _fitted(layout.root, owner, load)  # type: ignore[misc]


def _lists(layout: Layout) -> list[Finding]:
    """What is there and should not be, or should be and is not, by names alone."""
    found = [Finding(file=path, what="was left by a process that was killed", remedy=Remedy.REMOVED)
             for path in layout.temporary]  # fmt: skip
    found += [Finding(file=path, what="is not of heatprint", remedy=Remedy.NONE) for path in layout.strange]
    for name, result in ((STUDY, "metrics.json"), (LABORATORY, "forensics.json"), (LOOP, "defence.json")):
        path = path_of(Path(), name).as_posix()
        if name in layout.torn:
            found.append(Finding(file=path, what=DAMAGED, remedy=Remedy(name), remove=(path,)))
        elif name not in layout.inventories and result in layout.loose:
            told = f"{MISSING}: what no other mark knows cannot be checked"
            found.append(Finding(file=path, what=told, remedy=Remedy(name)))
    for name, one in layout.inventories.items():
        for step, count in one.steps.items():
            there = layout.parts.get(step, {})
            for stem in (f"part-{number:05d}" for number in range(count)):
                mark = f"{DONE}/{stem}.json"
                if mark not in there.get(stem, ()):
                    found.append(Finding(file=f"{step}/{mark}", what=MISSING, remedy=Remedy(name)))
    return found


def _part(layout: Layout, step: str, stem: str, names: Sequence[str], read: Read) -> list[Finding]:
    folder, mark = layout.root / step, f"{DONE}/{stem}.json"
    data = [name for name in names if name != mark]
    if mark not in names:
        return [Finding(file=f"{step}/{name}", what="is known to no mark", remedy=Remedy.REMOVED,
                        remove=(f"{step}/{name}",)) for name in data]  # fmt: skip
    remedy, remove = Remedy(layout.owner(f"{step}/{mark}")), [f"{step}/{name}" for name in (mark, *data)]
    try:
        files = read_mark(folder / mark).get("files")
        if not isinstance(files, dict) or not all(str(name).startswith(f"{stem}.") for name in files):
            raise StoreError("it names no files of its own")
    except (StoreError, FileNotFoundError):
        return [Finding(file=f"{step}/{mark}", what=DAMAGED, remedy=remedy, remove=remove)]
    found = []
    for name, expected in files.items():
        wrong = _compared(folder / name, expected, read)
        if wrong:
            found.append(Finding(file=f"{step}/{name}", what=wrong, remedy=remedy, remove=remove))
    found += [Finding(file=f"{step}/{name}", what="is known to no mark", remedy=Remedy.REMOVED,
                      remove=(f"{step}/{name}",)) for name in data if name not in files]  # fmt: skip
    return found


def _loose(layout: Layout, path: str, expected: str | None, read: Read) -> list[Finding]:
    file = layout.root / path
    if path == STAMP:
        right = file.is_file() and file.read_bytes() == as_json({"schema": SCHEMA})
        return [] if right else [Finding(file=path, what=DAMAGED, remedy=Remedy.REWRITTEN)]
    remove = [path]
    if path.startswith(f"{MODELS}/"):
        remove = [f"{path.rpartition('/')[0]}/{name}" for name in (CARD, WEIGHTS)]
    wrong = _unread(file) if expected is None else _compared(file, expected, read)
    return [Finding(file=path, what=wrong, remedy=Remedy(layout.owner(path)), remove=remove)] if wrong else []


def _unread(file: Path) -> str:
    """What is wrong with a file of which no digest is known."""
    if file.suffix == ".json":
        try:
            read_json(file)
        except (OSError, ValueError):
            return DAMAGED
    return ""


def _pictures(layout: Layout, read: Read) -> list[Finding]:
    from heatprint.study.images import check_images

    wrong = check_images(layout.root, read)
    expected = layout.digests.get(IMAGES)
    if not wrong and expected and _compared(layout.root / IMAGES, expected, read):
        wrong = {IMAGES: DAMAGED}
    remove = [IMAGES, *sorted(PICTURES - {IMAGES})]
    return [
        Finding(
            file=path, what=DAMAGED if (layout.root / path).exists() else MISSING, remedy=Remedy.STUDY, remove=remove
        )
        for path in wrong
    ]


def _model(layout: Layout, name: str, files: Sequence[str], read: Read) -> list[Finding]:
    """What `_loose` does not see: models that no inventory knows, and what a training left."""
    folder, found = f"{MODELS}/{name}", []
    card, weights = f"{folder}/{CARD}", f"{folder}/{WEIGHTS}"
    if UNFINISHED in files and CARD in files:
        path = f"{folder}/{UNFINISHED}"
        found.append(Finding(file=path, what="is of a finished training", remedy=Remedy.REMOVED, remove=(path,)))
    if card in layout.digests:
        return found
    if CARD not in files and WEIGHTS in files:
        found.append(Finding(file=weights, what="has no card", remedy=Remedy.REMOVED, remove=(weights,)))
    elif CARD in files:
        from heatprint.models import load

        try:
            load(layout.root / folder)
            read(sum((layout.root / path).stat().st_size for path in (card, weights)))
        except HeatprintError:
            found.append(Finding(file=weights, what="is not what its card describes",
                                 remedy=Remedy(layout.owner(card)), remove=(card, weights)))  # fmt: skip
    return found


def _fitted(root: Path, owner: str, load: Callable[[Path], object]) -> list[Finding]:
    folder = f"{owner}/fitted"
    try:
        load(root / folder)
    except HeatprintError:
        remove = sorted(path.relative_to(root).as_posix() for path in (root / folder).iterdir())
        return [Finding(file=folder, what=DAMAGED, remedy=Remedy(owner), remove=remove)]
    return []


def _load_laboratory(folder: Path) -> None:
    from heatprint.detectors import load
    from heatprint.detectors.identifier import FittedIdentifier

    load(folder)
    FittedIdentifier.load(folder)


def _load_loop(folder: Path) -> None:
    from heatprint.defences.worth import Worth

    Worth.load(folder)


def _compared(file: Path, expected: object, read: Read) -> str:
    """What is wrong with a file of a known digest; nothing where it is the one."""
    found = hashlib.blake2b(digest_size=SIZE)
    try:
        require_regular(file)
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                found.update(chunk)
                read(len(chunk))
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if found.hexdigest() == expected else DAMAGED
