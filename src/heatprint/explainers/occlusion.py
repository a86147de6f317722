"""Occlusion: by how much the score falls when a window of the image is covered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers.fills import Fill, check_fill, filled
from heatprint.explainers.target import refuse_layers, score
from heatprint.models.predict import batch_size


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """Score of the image less score with a window covered, for windows all over it (Zeiler & Fergus 2014, section 4.2).

    The fall is spread evenly over the window's pixels and colours; a pixel under several windows gets their mean. With
    windows that do not overlap the relevance adds up to the sum of the falls. The last window of a row ends at the
    border, so that every pixel is covered. Cost: one forward pass per window, (side / stride)**2 about; some 225 as it
    stands, whatever the size of the image; fewer below 32 pixels.

    Attributes:
        window: Side of the square window in pixels, >= 1, no larger than the image; None for an eighth of it,
            4 at least.
        stride: Pixels from one window to the next, 1 to `window`, so that none is skipped; None for half a window.
        fill: What covers it: ``"grey"`` (the paper's), ``"black"``, ``"mean"`` or ``"blur"``; see
            `heatprint.explainers.fills`.
    """

    window: int | None = None
    stride: int | None = None
    fill: Fill = "grey"

    at_once: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_fill("Occlusion: fill", self.fill)
        if self.window is not None and self.window < 1:
            raise InvalidInput(f"Occlusion: window = {self.window} must be 1 pixel or more, e.g. 8.")
        if self.stride is not None and self.stride < 1:
            raise InvalidInput(f"Occlusion: stride = {self.stride} must be 1 pixel or more, e.g. 4.")

    @torch.no_grad()
    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("occlusion", layers)
        height, width = inputs.shape[2:]
        window, stride = self._sizes(min(height, width))
        value = score(classifier.network(inputs.clone()), target)
        rows = _lines(height, window, stride, inputs)
        columns = _lines(width, window, stride, inputs)
        falls = self._falls(classifier, inputs, target, value, rows, columns)
        # how many windows lie over a pixel: a product, since they are placed by row and by column
        times = rows.sum(0)[:, None] * columns.sum(0)
        relevance = (falls / (times * 3 * window**2))[:, None].expand(-1, 3, -1, -1).contiguous()
        return Explained(ids=(), relevance=relevance, target=target, score=value), {}

    def _sizes(self, side: int) -> tuple[int, int]:
        """Window and stride for images whose smaller side is this."""
        window = max(min(4, side), side // 8) if self.window is None else self.window
        stride = max(1, window // 2) if self.stride is None else self.stride
        if window > side:
            raise InvalidInput(f"Occlusion: window = {window} is larger than the image, {side} pixels.")
        if stride > window:
            raise InvalidInput(
                f"Occlusion: stride = {stride} skips pixels between windows of {window}; write at most that."
            )
        return window, stride

    def _falls(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, value: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Sum over the windows of each pixel by how much they lower the score, [N, H, W]."""
        cover = filled(self.fill, classifier, inputs)
        windows = torch.cartesian_prod(*(torch.arange(len(lines), device=inputs.device) for lines in (rows, columns)))
        batch = batch_size(classifier)
        total = inputs.new_zeros((len(inputs), *inputs.shape[2:]))
        for images in torch.split(torch.arange(len(inputs), device=inputs.device), max(1, batch // len(windows))):
            for chosen in torch.split(windows, batch):
                down, across = rows[chosen[:, 0]], columns[chosen[:, 1]]
                mask = (down[:, :, None] * across[:, None, :])[:, None] > 0
                covered = torch.where(mask, cover[images, None], inputs[images, None])
                wanted = target[images].repeat_interleave(len(chosen), 0)
                scores = score(classifier.network(covered.flatten(0, 1)), wanted).view(len(images), len(chosen))
                total[images] += torch.einsum("nw,wi,wj->nij", value[images, None] - scores, down, across)
        return total


def _lines(side: int, window: int, stride: int, like: Tensor) -> Tensor:
    """Which pixels of a line each window covers, [windows, side] of 0 and 1; the last one ends at the border."""
    last = side - window
    starts = torch.tensor([*range(0, last, stride), last], device=like.device)[:, None]
    at = torch.arange(side, device=like.device)
    return ((at >= starts) & (at < starts + window)).to(like)
