"""Room on the disk: estimated before a study begins, so that a night of work does not end on a full one."""

from __future__ import annotations

import shutil
from pathlib import Path

from heatprint.core.classifier import Classifier
from heatprint.core.errors import StoreError
from heatprint.data.sources import Dataset
from heatprint.study.recipe import Recipe

ROW = 600  # bytes of an attacked image's ids, numbers and logits
OPTIMISER = 3  # times the weights, in the checkpoint of the model being trained
SPARE = 64 << 20  # left for what else happens on the disk
GIB = 2**30


def disk_need(recipe: Recipe, data: Dataset, fresh: Classifier, signature: int) -> int:
    """Bytes a whole study takes, from above: attacked images as PNG files that do not compress, every arm's weights.

    Args:
        recipe: The study.
        data: Its images.
        fresh: Its classifier.
        signature: Numbers of a signature.
    """
    size = data.test.pixels.shape[2] * data.test.pixels.shape[3]
    image, train, test = 3 * size, len(data.train), len(data.test)

    def rows(most: int, wanted: int | None) -> int:
        return most if wanted is None else min(most, wanted)

    arms = 1 + recipe.retraining.control + sum(a.retrain for a in recipe.attacks) + len(recipe.defences)
    on_test = sum(rows(test, a.test) for a in recipe.attacks) + 2 * rows(test, recipe.strong.test)
    attacked = arms * on_test + sum(rows(train, a.train) for a in recipe.attacks if a.train)
    decoded = 2 * sum(rows(test, a.test) for a in recipe.attacks) + rows(test, recipe.strong.test)  # while it runs
    decoded += sum(rows(train, a.train) for a in recipe.attacks if a.train)
    planted = 2 if recipe.artefact else 0
    placed = min(test, recipe.map.images or test) * (1 + len(recipe.attacks))
    mapped = min(test, recipe.atlas.images or test)
    heat = 4 * recipe.atlas.side**2
    weights: int = sum(values.nbytes for values in fresh.trainable.state_dict().values())
    return (
        (train + test) * (image + 64)
        + attacked * (image + ROW)
        + decoded * image
        + 2 * placed * 4 * signature
        + mapped * (image + heat * (3 + len(recipe.attacks)))
        + (arms + planted + OPTIMISER) * weights
        + SPARE
    )


def check_disk(root: Path, need: int) -> None:
    """Refuse to begin what cannot end.

    Args:
        root: The folder.
        need: Bytes that it, with everything below it, will hold in the end.

    Raises:
        StoreError: The disk has less room than that, beyond what the folder holds already.
    """
    more = need - sum(path.lstat().st_size for path in root.rglob("*"))
    free = shutil.disk_usage(next(one for one in (root, *root.parents) if one.exists())).free
    if more > free:
        raise StoreError(
            f"study: {root} would need about {more / GIB:.1f} GiB more, and its disk has {free / GIB:.1f} GiB free. "
            "Name a folder on a larger disk, or attack fewer images (test = ... in the recipe)."
        )
