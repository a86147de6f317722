"""Gradient SHAP: gradients averaged between the image and a background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.data import load_files
from heatprint.explainers.draws import generators
from heatprint.explainers.gradients.gradient import gradients_of_copies
from heatprint.explainers.target import refuse_layers, score
from heatprint.models.predict import batch_size

Word = Literal["colours", "black", "grey"]
"""Images of one colour each, drawn uniformly in RGB; or black; or mid-grey."""

FOLDER_IMAGES = 512  # of a background folder at most

Backgrounds = Callable[[Tensor, Tensor], Tensor]
"""From images, int64 [n], and samples, int64 [c], to the backgrounds drawn for them, [n, c, 3, H, W], normalised."""


@dataclass(frozen=True, kw_only=True)
class ExpectedGradients:
    """The mean of (x - b) * gradient at b + a (x - b), over backgrounds b and places a, uniform in [0, 1].

    Erion et al. 2021, equation 3; the package shap calls it gradient SHAP. It is integrated gradients averaged over
    baselines, and an estimate of SHAP values that is exact where the network is linear between b and x. The places a
    are drawn one per equal part of [0, 1] instead of independently: as unbiased, and nearer to the integral.

    `facts` has ``"completeness"``: (sum of relevance - difference) / |difference|, the difference between the score of
    the image and the mean score of the backgrounds drawn. It shrinks as samples grow (a tenth to a quarter is usual
    with 100); infinite says that image and backgrounds have the same score.

    Costs `samples` forward and backward passes per image, and as many forward passes for the fact (one where the
    background is always the same).

    Attributes:
        samples: Pairs of a background and a place, 1 or more.
        background: See `Word`; or a folder of images, the first 512 of which are drawn from with replacement: what SHAP
            values are defined by, and the better choice where images are at hand.
        seed: Of the draws; an image's draws depend on it and on the image alone.
    """

    samples: int = 100
    background: Word | Path = "colours"
    seed: int = 0

    at_once: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InvalidInput(f"ExpectedGradients: samples = {self.samples}; write 1 or more, e.g. 100.")
        if self.background not in get_args(Word) and not Path(self.background).exists():
            raise InvalidInput(
                f"ExpectedGradients: background = {str(self.background)!r} is not a folder; name one with images, or "
                f"write one of {', '.join(get_args(Word))}."
            )

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("shap.gradient", layers)
        inputs = inputs.detach()
        draws = generators(self.seed, "shap.gradient", inputs)
        parts = np.arange(self.samples)
        places = inputs.new_tensor(np.stack([(rng.permutation(parts) + rng.random(self.samples)) for rng in draws]))
        places = (places / self.samples)[..., None, None, None]
        backgrounds = self._backgrounds(classifier, inputs, draws)

        def point(images: Tensor, samples: Tensor) -> Tensor:
            drawn = backgrounds(images, samples)
            return drawn + places[images[:, None], samples] * (inputs[images, None] - drawn)

        relevance = torch.zeros_like(inputs)
        for images, samples, gradients in gradients_of_copies(classifier, inputs, target, self.samples, point):
            way = inputs[images, None] - backgrounds(images, samples)
            relevance[images] += (way * gradients).sum(1) / self.samples
        with torch.no_grad():
            value = score(classifier.network(inputs.clone()), target)
        different = 1 if self.background in ("black", "grey") else self.samples
        gap = value - _mean_score(classifier, backgrounds, target, different)
        left = relevance.sum((1, 2, 3)) - gap
        completeness = torch.where(left == 0, left, left / gap.abs())
        return Explained(
            ids=(), relevance=relevance, target=target, score=value, facts={"completeness": completeness}
        ), {}

    def _backgrounds(self, classifier: Classifier, inputs: Tensor, draws: list[np.random.Generator]) -> Backgrounds:
        """What `draws` choose for each image, drawn at once and made when asked for."""
        if self.background in get_args(Word):
            level = {"black": 0.0, "grey": 0.5}.get(str(self.background))
            drawn = [rng.random((self.samples, 3)) if level is None else np.full((1, 3), level) for rng in draws]
            known = inputs.new_tensor(np.concatenate(drawn))[..., None, None]
            rows = np.arange(len(known)).reshape(len(draws), -1)
        else:
            known = _folder(Path(self.background), inputs.shape[-1])
            rows = np.stack([rng.integers(len(known), size=self.samples) for rng in draws])
        picked = torch.from_numpy(np.broadcast_to(rows, (len(draws), self.samples)).copy()).to(known.device)

        def backgrounds(images: Tensor, samples: Tensor) -> Tensor:
            chosen = picked[images.to(picked.device)[:, None], samples.to(picked.device)]
            colours = known[chosen.flatten()].to(inputs).expand(-1, *inputs.shape[1:])
            return classifier.normalise(colours).view(*chosen.shape, *inputs.shape[1:])

        return backgrounds


@torch.no_grad()
def _mean_score(classifier: Classifier, backgrounds: Backgrounds, target: Tensor, count: int) -> Tensor:
    """The mean score [N] of each image's backgrounds."""
    means = []
    for row in torch.arange(len(target), device=target.device):
        total = torch.zeros((), device=target.device)
        for samples in torch.split(torch.arange(count, device=target.device), batch_size(classifier)):
            logits = classifier.network(backgrounds(row[None], samples).flatten(0, 1))
            total = total + score(logits, target[row].expand(len(logits), *target.shape[1:])).sum()
        means.append(total / count)
    return torch.stack(means)


@lru_cache(maxsize=4)
def _folder(path: Path, size: int) -> Tensor:
    return load_files(path, size=size, classes=(), limit=FOLDER_IMAGES).batch.images
