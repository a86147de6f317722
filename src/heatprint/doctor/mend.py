"""Mending a run: what is damaged goes, and what can be computed again is, by the command that computed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heatprint.core.digest import digest
from heatprint.core.errors import HeatprintError, InvalidInput, MissingExtra, StoreError, UnreadableData
from heatprint.core.inventory import IMAGES
from heatprint.core.reading import read_json
from heatprint.core.store import SCHEMA, STAMP, held, remove, sweep, write_json
from heatprint.data.sources import load_dataset
from heatprint.doctor.finding import Examined, Remedy
from heatprint.study import Recipe, study
from heatprint.study.images import is_kept, kept_key, key_of
from heatprint.study.progress import SILENT, Watch

RECIPE, RUN = "recipe.json", "run.json"


def mend(run: str | Path, found: Examined, *, data: str | None = None, watch: Watch = SILENT) -> None:
    """Remove what is damaged, and let the study compute what is missing then.

    What `heatprint detect` and `heatprint defend` computed is only removed: they compute it again.

    Args:
        run: The run folder.
        found: What `examine` found in it.
        data: Where its images are, instead of where they were.
        watch: Shows the study.

    Raises:
        StoreError: Another process is writing to the folder, its recipe is lost, or the images have changed since.
        InvalidInput: Its images are damaged, and nobody knows where they were.
    """
    root = Path(run)
    recipe = _recipe(root, found, data) if found.of(Remedy.STUDY) else None  # before anything is removed
    with held(root):
        sweep(root)
        if found.of(Remedy.REWRITTEN):
            write_json(root / STAMP, {"schema": SCHEMA})
        for finding in found.sick:
            for path in finding.remove:
                remove(root / path)
    if recipe is not None:
        study(recipe, root, watch=watch)


def _recipe(root: Path, found: Examined, data: str | None) -> Recipe:
    """What the study was, and where its images are.

    Two files know the recipe. Of one that is damaged only what can be proven is believed.
    """
    damaged = {one.file for one in found.findings}
    card = _read(root / RUN)
    was: dict[str, Any] = card["recipe"] if isinstance(card.get("recipe"), dict) else {}
    known = [one for name, one in ((RECIPE, _read(root / RECIPE)), (RUN, was)) if name not in damaged]
    recipes = [one for one in (_with(table, was.get("device")) for table in known) if one is not None]
    if not recipes or len({_identity(one) for one in recipes}) > 1:
        told = "two recipes, which differ" if recipes else "no recipe any more"
        raise StoreError(
            f"doctor: {root} has {told}, so that nothing can be computed again. Run the study again: "
            f"heatprint study --recipe ... --out {root}"
        )
    for source in _sources(root, card, data):
        recipe = _from(recipes[0], source)
        same = _is_same(root, recipe, damaged, card)
        if same or (same is None and data is not None):
            return recipe
    raise InvalidInput(
        f"doctor: the images of {root} are needed, and are not where they were, or have changed since. Write --data "
        "and where they are."
    )


def _identity(recipe: Recipe) -> str:
    """What may not differ between a run's two recipes; see `heatprint.study.checks.same_study`."""
    return recipe.model_dump_json(exclude={"device": True, "data": {"source"}, "atlas": True})


def _from(recipe: Recipe, source: str) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": source})})


def _sources(root: Path, card: dict[str, Any], data: str | None) -> Iterator[str]:
    """Where the images may be, the likeliest first."""
    if data is not None:
        yield data
        return
    with suppress(KeyError, TypeError):
        yield str(card["data"]["source"])
    with suppress(KeyError, TypeError, OSError, ValueError):
        name = str(read_json(root / IMAGES)["name"])
        yield from (name, f"kaggle:{name}")


def _with(known: Mapping[str, Any], device: object) -> Recipe | None:
    """A recipe for a device; None where it is none."""
    for extra in ({"device": device}, {}):
        with suppress(ValidationError, HeatprintError):
            return Recipe.model_validate({**known, **extra})
    return None


def _is_same(root: Path, recipe: Recipe, damaged: set[str], card: dict[str, Any]) -> bool | None:
    """Whether a study with these images would be the same study; None where nothing is left that could tell."""
    table, healthy = recipe.data, not any(path.startswith("images/") for path in damaged)
    try:
        key = key_of(table.source, size=table.size, train=table.train, test=table.test, seed=recipe.seed)
    except (UnreadableData, MissingExtra):
        return healthy and RUN not in damaged  # the study takes the images in the folder
    with suppress(StoreError):
        if key == kept_key(root):
            return True
    if RUN in damaged and not healthy:
        return None
    try:
        data = load_dataset(table.source, size=table.size, train=table.train, test=table.test, seed=recipe.seed)
    except UnreadableData:
        return False
    if healthy:
        return is_kept(root, data)
    now = digest(data.train.ids, data.train.pixels, data.test.ids, data.test.pixels)
    return bool(card.get("data", {}).get("fingerprint") == now)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
