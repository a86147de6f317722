"""A Clever Hans, made on purpose: does a heat map find an artefact that a model relies on?

Two networks learn to tell drawn cats from dogs. For one the artefact stands on every dog and on no cat, so that it
can look at nothing else and be right; for the other it stands on half of either, and helps nobody. Both then see the
same new images, all with the artefact, and their maps are held against masks that are known to the pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.store import Part
from heatprint.data.planted import Carriers, Planted
from heatprint.evaluation import share
from heatprint.explainers import explain
from heatprint.explainers.trust import interval, share_inside
from heatprint.models.predict import predict

CARRIERS: Mapping[str, Carriers] = {"biased": "dogs", "unbiased": "half"}
"""Model name to the training images that carry the artefact."""


def measured(
    models: Sequence[Classifier],
    held_out: Planted,
    plain: Tensor,
    explainer: Explainer,
    *,
    margin: int = 1,
    pictures: int = 3,
    progress: Progress = silent,
) -> Part:
    """What each model answers and where its map of that answer lies, one row per model and image.

    Args:
        models: The classifiers.
        held_out: New images, each with the artefact.
        plain: The same images without it, uint8 [N, 3, H, W].
        explainer: Explains the predicted class.
        margin: Pixels around the artefact that count as it: a map is no sharper than the first layer's windows.
        pictures: Images to keep with their maps, the first ones.
        progress: Told after each model.
    """
    batch = held_out.batch
    artefact = grown(held_out.artefact, margin)
    animal = held_out.animal & ~artefact
    rows: dict[str, list[Any]] = {}
    heats = []
    for number, model in enumerate(models, start=1):
        seen = explain(model, batch, explainer)
        # a logit below zero turns the whole map round; what the logit is made of has its own sign
        made_of = seen.heat * seen.score.sign()[:, None, None]
        chance = predict(model, batch.pixels).softmax(1)
        columns = {
            "model": [model.name] * len(batch),
            "id": list(batch.ids),
            "label": [model.classes[k] for k in batch.labels],
            "predicted": [model.classes[k] for k in chance.argmax(1)],
            "probability": chance.amax(1).tolist(),
            "predicted_plain": [model.classes[k] for k in predict(model, plain).argmax(1)],
            "on_artefact": share_inside(made_of, artefact).tolist(),
            "on_animal": share_inside(made_of, animal).tolist(),
            "artefact_area": artefact.double().mean((1, 2)).tolist(),
            "animal_area": animal.double().mean((1, 2)).tolist(),
        }
        for name, values in columns.items():
            rows.setdefault(name, []).extend(values)
        heats.append(seen.heat[:pictures].float().numpy())
        progress(number, len(models))
    return Part(rows=rows, arrays={"pixels": batch.pixels[:pictures].numpy(), "heat": np.stack(heats)})


def grown(mask: Tensor, margin: int) -> Tensor:
    """A mask bool [N, H, W] with everything up to `margin` pixels around it."""
    if not margin:
        return mask
    return F.max_pool2d(mask[:, None].float(), 2 * margin + 1, stride=1, padding=margin)[:, 0] > 0


def summarised(part: Part, *, kind: str, margin: int, seed: int) -> dict[str, Any]:
    """What `metrics.json` says: per model accuracy without and with the artefact, and where its relevance lies.

    Relevance is the mean share, with its 95 % bootstrap interval over images, of the relevance that has the sign of
    the explained logit; an image without any has no share and is left out of `images`.
    """
    rows = part.rows
    first = [n for n, name in enumerate(rows["model"]) if name == rows["model"][0]]
    return {
        "kind": kind,
        "margin": margin,
        "area": {
            what: round(float(np.mean([rows[f"{what}_area"][n] for n in first])), 6) for what in ("artefact", "animal")
        },
        "models": [_of_model(part, name, seed) for name in dict.fromkeys(rows["model"])],
    }


def _of_model(part: Part, name: str, seed: int) -> dict[str, Any]:
    own = [n for n, model in enumerate(part.rows["model"]) if model == name]
    column = {key: [values[n] for n in own] for key, values in part.rows.items()}
    artefact, animal = (torch.tensor(column[key], dtype=torch.float64) for key in ("on_artefact", "on_animal"))
    counted = ~artefact.isnan()
    found = {"artefact": artefact, "animal": animal, "elsewhere": 1 - artefact - animal}

    def right(answers: Sequence[str]) -> int:
        return sum(a == b for a, b in zip(answers, column["label"], strict=True))

    return {
        "name": name,
        "carriers": CARRIERS.get(name, ""),
        "without": share(right(column["predicted_plain"]), len(own)),
        "with": share(right(column["predicted"]), len(own)),
        "images": int(counted.sum()),
        "relevance": {what: _rounded(values, seed) for what, values in found.items()},
        "more_on_artefact": share((artefact > animal)[counted].sum(), int(counted.sum())),
    }


def _rounded(values: Tensor, seed: int) -> dict[str, float | None]:
    """Mean and interval to six places, so that equal runs give equal text."""
    return {
        key: None if np.isnan(value) else round(value, 6) for key, value in asdict(interval(values, seed=seed)).items()
    }
