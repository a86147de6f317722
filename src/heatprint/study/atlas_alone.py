"""An atlas without a study: a classifier, images, and perhaps attacked copies that somebody else made."""

from __future__ import annotations

from typing import Any

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.norms import distances
from heatprint.core.protocols import Explainer
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch
from heatprint.models.predict import predict
from heatprint.signatures.strategies import Clusterer
from heatprint.study.atlas import FEWEST, measure_cards, measure_flows, measure_images, summarised
from heatprint.study.progress import SILENT, Watch


def judged_copies(classifier: Classifier, clean: Batch, copies: Batch) -> Attacked:
    """Attacked copies from elsewhere, of which nothing is known but the images.

    An image with a true class is judged by it: it was skipped if it was wrong before, and the copy is a success if it
    is not called so. An image without one (label -1) is judged by the answer to the clean image, which takes the
    label's place; none of those is skipped. How the copies were made cannot be seen: steps, first hits and the
    questions asked are -1 for all.

    Args:
        classifier: The classifier.
        clean: The originals.
        copies: The attacked copies with the same ids, in the same order.

    Raises:
        InvalidInput: The ids differ.
    """
    if clean.ids != copies.ids:
        raise InvalidInput("judged_copies: clean images and copies must have the same ids in the same order.")
    before, after = predict(classifier, clean.pixels), predict(classifier, copies.pixels)
    answers = before.argmax(1)
    labels = torch.where(clean.labels >= 0, clean.labels, answers)
    unknown, skipped = torch.full_like(labels, -1), answers != labels
    return Attacked(
        clean=Batch(ids=clean.ids, pixels=clean.pixels, labels=labels),
        adversarial=Batch(ids=clean.ids, pixels=copies.pixels, labels=labels),
        success=~skipped & (after.argmax(1) != labels),
        skipped=skipped,
        step=unknown,
        distance=distances(clean.pixels, copies.pixels),
        forwards=unknown,
        backwards=unknown,
        first_hit=unknown,
        clean_logits=before,
        logits=after,
    )


def atlas_alone(
    classifier: Classifier,
    batch: Batch,
    explainer: Explainer,
    method: Clusterer,
    *,
    names: tuple[str, str],
    side: int = 28,
    copies: tuple[str, Attacked] | None = None,
    seed: int = 0,
    watch: Watch = SILENT,
) -> tuple[dict[str, Any], Part]:
    """Strategies of images, their cards, and where attacked copies move them.

    Args:
        classifier: The classifier.
        batch: Images; a label of -1 is one that is not known.
        explainer: Makes the heat maps.
        method: Groups them; see `heatprint.study.atlas.Exploring`.
        names: Of the clustering and of the explainer, as the atlas tells them.
        side: Of the pooled maps.
        copies: Name and attacked copies of some of the images; see `judged_copies`.
        seed: Of the counterfactuals' controls.
        watch: Shows progress.

    Returns:
        The atlas as ``metrics.json`` of a run has it, and what its cards show.

    Raises:
        InvalidInput: There are too few images to tell strategies apart.
    """
    if len(batch) < FEWEST:
        raise InvalidInput(
            f"atlas: {len(batch)} image{'s' * (len(batch) != 1)}; strategies are groups of images, so give at least "
            f"{FEWEST}, better a hundred of each class. For heat maps of a few write: heatprint explain."
        )
    attacked = dict([copies] if copies else [])
    with watch.step("strategies") as progress:
        images = measure_images(classifier, batch, explainer, method, side=side, progress=progress)
    with watch.step("cards of the strategies") as progress:
        found = measure_cards(
            classifier, batch, images, explainer, attacked, units=dict.fromkeys(attacked, ""), seed=seed,
            progress=progress,
        )  # fmt: skip
    moved = {}
    for name, one in attacked.items():
        with watch.step(f"where {name} moves them") as progress:
            moved[name] = measure_flows(classifier, images, one, explainer, method, progress=progress)
    return summarised(images, found, moved, None, method=names[0], explainer=names[1]), found
