"""The experiment as one straight line; read it top to bottom.

A defence gives a new classifier, and the same line is walked again for it: no step reaches back.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from heatprint.core.inventory import STUDY, inventoried
from heatprint.core.limits import is_lost_gpu, share_threads
from heatprint.core.scratch import scratch_in
from heatprint.core.store import Store
from heatprint.study.checks import same_study
from heatprint.study.engines import Engine, Local
from heatprint.study.progress import SILENT, Logged, Watch
from heatprint.study.recipe import Recipe
from heatprint.study.remote import worked_in
from heatprint.study.results import metrics, run_card
from heatprint.study.steps import Lab

log = logging.getLogger("heatprint")


def study(
    recipe: Recipe,
    out: str | Path,
    *,
    watch: Watch = SILENT,
    engine: Engine | None = None,
    work: str | Path | None = None,
) -> Path:
    """Run a recipe, or what is missing of it.

    Args:
        recipe: See `load_recipe`.
        out: The run folder; a rerun computes only what is not there, with equal results. While it runs, the folder is
            not a finished one: ``metrics.json`` is taken away first and written last. Or the address of a folder on
            an object store, such as ``"s3://bucket/run"``; see `heatprint.study.remote`.
        watch: Shows progress.
        engine: Computes the parts (`heatprint.study.engines.make`); by default processes on this machine, one a core.
            The results do not depend on it.
        work: Local folder for a run on an object store; by default one in the cache, by the address.

    Returns:
        The local path of the report. ``events.jsonl`` beside it has the progress for machines to read.

    Raises:
        StoreError: Another process is writing to the folder, it holds something else, or the disk has no room for it.
        EngineError: Workers died again and again.
        MissingExtra: An object store needs fsspec.
    """
    engine = engine or Local()
    share_threads()
    with worked_in(out, work) as root, closing(engine):
        store = Store(root)
        with store.writing(), scratch_in(root):
            same_study(store, recipe)
            with inventoried(root, STUDY):
                return _on_a_device(recipe, store, Logged(watch, root / "events.jsonl"), engine)


def _on_a_device(recipe: Recipe, store: Store, watch: Watch, engine: Engine) -> Path:
    """Where the recipe wants it; on the CPU when the GPU is lost."""
    try:
        return _walked(Lab(recipe, store, watch, engine))
    except RuntimeError as error:
        if not is_lost_gpu(error):
            raise
        alone = recipe.resources.model_copy(update={"gpus": 0.0})
        log.warning("the GPU is lost (%s): going on on the CPU", str(error).splitlines()[0])
    return _walked(Lab(recipe.model_copy(update={"device": "cpu", "resources": alone}), store, watch, engine))


def _walked(lab: Lab) -> Path:
    """The line; what the folder has already is read."""
    data = lab.load()
    clear = lab.train(lab.begin(data), data)
    for_training = {a.name: lab.attack(clear, data.train, a, "train") for a in lab.recipe.attacks if a.train}
    old = {a.name: lab.attack(clear, data.test, a, "test") for a in lab.recipe.attacks}
    arms = [clear, *lab.defend(clear, data.train, for_training)]
    cards = [lab.evaluate(arm, data.test, old, is_first=arm is clear) for arm in arms]
    plan = lab.figures(arms, data.test, old)
    pairs = lab.pairs(clear, old)
    places = lab.places(clear, data.test, old)
    atlas = lab.atlas(clear, data.test, old, places)
    planted = lab.artefact()
    lab.write("run.json", run_card(lab.recipe, data, arms, plan, lab.device))
    lab.write("metrics.json", metrics(lab.recipe, data, cards, old, for_training, places, pairs) | atlas | planted)
    return lab.report()
