"""The first model of a study, trained by itself: by one process, or by as many as torchrun starts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from heatprint.core.scratch import scratch_in
from heatprint.core.store import Store
from heatprint.models.distributed import World, world
from heatprint.study.checks import same_study
from heatprint.study.progress import SILENT, Logged, Watch
from heatprint.study.recipe import Recipe
from heatprint.study.steps import Lab, device


def train_first(recipe: Recipe, out: str | Path, *, watch: Watch = SILENT) -> Path:
    """Train the classifier that a study is about, into its run folder, where `study` then finds it.

    Under torchrun every process calls this, with a GPU each (see `models.distributed`): the first holds the folder,
    reads the images into it and writes; the others read, once it has.

    Args:
        recipe: See `load_recipe`.
        out: The run folder, seen by all processes; a killed training goes on after its last finished epoch.
        watch: Shows progress, of the first process.

    Returns:
        The folder of the model.

    Raises:
        StoreError: Another process is writing to the folder, it holds something else, or the disk has no room for it.
        EngineError: Another of the processes has died.
        Unsupported: Several processes on CPUs, and a network with batch norm.
    """
    root = Path(out)
    with world(device(recipe.device)) as group, ExitStack() as held:
        if not group.leads:
            group.wait()  # until the first process holds the folder, with the images in it
        lab = _opened(recipe, root, watch, group, held)
        data = lab.load()
        fresh = lab.begin(data)
        if group.leads:
            group.wait()
        lab.train(fresh, data)
    return root / "models" / fresh.name


def _opened(recipe: Recipe, root: Path, watch: Watch, group: World, held: ExitStack) -> Lab:
    """The steps of a study; the first process holds the folder for them."""
    store = Store(root)
    if not group.leads:
        return Lab(recipe, store, SILENT, world=group)
    held.enter_context(store.writing())
    held.enter_context(scratch_in(root))
    same_study(store, recipe)
    return Lab(recipe, store, Logged(watch, root / "events.jsonl"), world=group)
