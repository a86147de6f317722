"""The experiment as one straight line; read it top to bottom.

A defence gives a new classifier, and the same line is walked again for it: no step reaches back.
"""

from __future__ import annotations

from pathlib import Path

from heatprint.core.store import Store
from heatprint.report import report
from heatprint.study.checks import same_study
from heatprint.study.progress import SILENT, Logged, Watch
from heatprint.study.recipe import Recipe
from heatprint.study.results import metrics, run_card
from heatprint.study.steps import Lab


def study(recipe: Recipe, out: str | Path, *, watch: Watch = SILENT) -> Path:
    """Run a recipe, or what is missing of it.

    Args:
        recipe: See `load_recipe`.
        out: The run folder; a rerun computes only what is not there, with equal results. While it runs, the folder is
            not a finished one: ``metrics.json`` is taken away first and written last.
        watch: Shows progress.

    Returns:
        The path of the report. ``events.jsonl`` beside it has the progress for machines to read.

    Raises:
        StoreError: Another process is writing to the folder, or it holds something else.
    """
    store = Store(Path(out))
    with store.writing():
        same_study(store, recipe)
        watch = Logged(watch, store.root / "events.jsonl")
        lab = Lab(recipe, store, watch)
        data = lab.load()
        (store.root / "metrics.json").unlink(missing_ok=True)  # of an earlier finish, perhaps on other images
        clear = lab.train(data)
        for_training = {a.name: lab.attack(clear, data.train, a, "train") for a in recipe.attacks if a.train}
        old = {a.name: lab.attack(clear, data.test, a, "test") for a in recipe.attacks}
        arms = [clear, *lab.defend(clear, data.train, for_training)]
        cards = [lab.evaluate(arm, data.test, old, is_first=arm is clear) for arm in arms]
        plan = lab.figures(arms, data.test, old)
        pairs = lab.pairs(clear, old)
        places = lab.places(clear, data.test, old)
        atlas = lab.atlas(clear, data.test, old, places)
        planted = lab.artefact()
        lab.write("run.json", run_card(recipe, data, arms, plan, lab.device))
        lab.write("metrics.json", metrics(recipe, data, cards, old, for_training, places, pairs) | atlas | planted)
        with watch.step("report"):
            return report(store.root)
