"""Partition SHAP: Owen values on a tree of ever smaller rectangles, computed by the package shap."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, MissingExtra
from heatprint.core.values import Explained
from heatprint.explainers.draws import generators, seeded
from heatprint.explainers.fills import Fill, check_fill, filled
from heatprint.explainers.target import refuse_layers, score
from heatprint.models.predict import batch_size


@dataclass(frozen=True, kw_only=True)
class PartitionShap:
    """Owen values of a hierarchy of rectangles (Lundberg's `shap.PartitionExplainer`; Owen 1977), by the package shap.

    The image is cut in two again and again, the longer side first, down to pixels and channels; half by half it is
    decided what showing it adds, where the other half is hidden and where it is shown. The budget goes to the
    rectangles that matter most, and what is not cut further shares its value equally. The values sum to the score of
    the image less that of the fill, up to the rounding of the scores.

    shap breaks ties in its queue by numpy's global generator: it is seeded here from the image and put back
    afterwards, so the same image gives the same map. `facts` has ``"base"``, the score of the fill.

    Costs `samples` forward passes per image. Needs the extra ``explain``.

    Attributes:
        samples: Forward passes, 4 or more; detail grows with it.
        fill: What a hidden rectangle shows: see `heatprint.explainers.fills`.
        seed: Of the tie-breaks.
        at_once: One image at a time is handed over by `explain`, so that progress is seen.
    """

    at_once: ClassVar[int] = 1

    samples: int = 500
    fill: Fill = "blur"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fill("PartitionShap: fill", self.fill)
        if self.samples < 4:
            raise InvalidInput(f"PartitionShap: samples = {self.samples}; write 4 or more.")

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("shap.partition", layers)
        shap, inputs = _shap(), inputs.detach()
        maps, bases = [], []
        for row, rng in enumerate(generators(self.seed, "shap.partition", inputs)):
            image, ask = inputs[row], _asker(classifier, inputs[row], target[row : row + 1])
            hidden = filled(self.fill, classifier, image[None])[0]
            with seeded(rng):
                masker = shap.maskers.Image(_rows(hidden))
                explainer = shap.PartitionExplainer(ask, masker)
                found = explainer(
                    _rows(image)[None], max_evals=self.samples, batch_size=batch_size(classifier), silent=True
                )
            maps.append(torch.from_numpy(found.values[0]).permute(2, 0, 1).to(inputs))
            bases.append(float(found.base_values[0]))
        with torch.no_grad():
            value = score(classifier.network(inputs.clone()), target)
        facts = {"base": inputs.new_tensor(bases)}
        return Explained(ids=(), relevance=torch.stack(maps), target=target, score=value, facts=facts), {}


def _shap() -> ModuleType:
    state = random.getstate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own imports
            return import_module("shap")
    except ImportError as error:
        raise MissingExtra("shap", "explain", "PartitionShap") from error
    finally:
        random.setstate(state)  # one of its imports seeds Python's generator


def _rows(image: Tensor) -> np.ndarray:
    """[3, H, W] as shap has images, [H, W, 3], in float32 or wider: numpy knows no bfloat16."""
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    rows: np.ndarray = wide.permute(1, 2, 0).contiguous().cpu().numpy()
    return rows


def _asker(classifier: Classifier, image: Tensor, target: Tensor) -> Callable[[np.ndarray], np.ndarray]:
    """From images [M, H, W, 3] to scores float64 [M], in the dtype and on the device of `image`."""

    @torch.no_grad()
    def ask(rows: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.asarray(rows)).permute(0, 3, 1, 2)
        parts = [
            classifier.network(part.to(image).contiguous(memory_format=classifier.memory_format))
            for part in torch.split(images, batch_size(classifier))
        ]
        logits = torch.cat(parts)
        scores: np.ndarray = score(logits, target.expand(len(logits), *target.shape[1:])).double().cpu().numpy()
        return scores

    return ask
