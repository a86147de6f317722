"""Maps that know nothing of the network: what a real one must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.streams import stream
from heatprint.core.values import Batch, Explained
from heatprint.explainers.target import score


def random_map(batch: Batch, *, seed: int = 0) -> Tensor:
    """Normal noise, float64 [N, H, W], drawn for each image's id."""
    side = tuple(batch.pixels.shape[2:])
    return torch.stack(
        [torch.from_numpy(stream(seed, "trust/random", name).standard_normal(side)) for name in batch.ids]
    )


def edge_map(batch: Batch) -> Tensor:
    """How steep the image is: its gradient's magnitude over colours, by central differences, float64 [N, H, W]."""
    return _steepness(batch.images.double())


def _steepness(images: Tensor) -> Tensor:
    down, across = torch.gradient(images, dim=(2, 3))
    return (down**2 + across**2).sum(1).sqrt()


@dataclass(frozen=True, kw_only=True)
class Edges:
    """The edge map as an explainer: it never asks the network, so that every sanity check must catch it."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        with torch.no_grad():
            value = score(classifier.network(inputs), target)
        spread = (_steepness(inputs) / 3)[:, None].expand_as(inputs)
        return Explained(ids=(), relevance=spread, target=target, score=value), {}
