"""What attacks share that fit one perturbation to many images: two halves, so that nobody meets their own.

A perturbation shared by many images is fitted on one half and judged on the other, and the other way round. Judged on
the images it was fitted on it would look stronger than it is on images to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from heatprint.core.goals import Goal
from heatprint.core.protocols import Access, Loss, Progress
from heatprint.core.streams import Streams

Fit = Callable[[Tensor, int], Tensor]
"""Fits a perturbation on rows [F], drawing what it needs besides from the streams of the row named second."""


def halves(streams: Streams, count: int) -> tuple[Tensor, Tensor]:
    """Rows 0 to count - 1 dealt into two halves of about equal size, int64 each.

    The deal follows a number drawn for each image id, not the order in which the images come. Uses up the streams of
    counter 0.
    """
    drawn = [(streams.of(row).random(), streams.ids[row]) for row in range(count)]
    order = torch.tensor(sorted(range(count), key=drawn.__getitem__), dtype=torch.long)
    return order[0::2], order[1::2]


def crossed(streams: Streams, count: int, fit: Fit, progress: Progress) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each half its number, its rows and the perturbation fitted on the other half.

    A single image has no other half: its perturbation is fitted on no row at all.
    """
    done = 0
    first, second = halves(streams, count)
    for number, (own, other) in enumerate(((first, second), (second, first))):
        if len(own):
            yield number, own, fit(other, int((other if len(other) else own)[0]))
            done += len(own)
            progress(done, count)


def minibatches(rows: Tensor, streams: Streams, epoch: int, size: int) -> tuple[Tensor, ...]:
    """Rows in an order drawn for the epoch, `size` at a time. Uses up the streams of counter 1 + 2 epoch."""
    if not len(rows):
        return ()
    order = streams.of(int(rows[0]), 1 + 2 * epoch).permutation(len(rows))
    return torch.split(rows[torch.from_numpy(order)], size)


def clipped(limit: float) -> Loss:
    """Cross-entropy up to a limit, so that images fallen long ago do not outweigh those that stand."""

    def loss(logits: Tensor, goal: Goal) -> Tensor:
        return goal.cross_entropy(logits).clamp_max(limit)

    return loss


def fell(access: Access, images: Tensor) -> Tensor:
    """Whether each of all images [N, 3, H, W] reaches its goal, bool [N] on the CPU; one query each."""
    parts = [
        access.reached(images[rows].to(access.device), rows).cpu()
        for rows in torch.split(torch.arange(len(images)), access.batch)
    ]
    return torch.cat(parts)
