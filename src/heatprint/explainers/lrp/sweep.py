"""The sweep: relevance carried backward over a tape."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from heatprint.explainers.lrp.tape import Tape


@dataclass
class Flow:
    """What one sweep found.

    Attributes:
        kept: Relevance of the tensors that were asked for, by number.
        totals: Layer name to the sum of relevance at its output, float [N].
        passed: Layer name to the sum of relevance it handed on, float [N].
    """

    kept: dict[int, Tensor] = field(default_factory=dict)
    totals: dict[str, Tensor] = field(default_factory=dict)
    passed: dict[str, Tensor] = field(default_factory=dict)


def sweep(tape: Tape, output: int, start: Tensor, wanted: Collection[int], *, again: bool = False) -> Flow:
    """Carry relevance from the network's output to its input.

    Args:
        tape: Of the forward pass.
        output: Number of the tensor to start from.
        start: Its relevance.
        wanted: Numbers of the tensors whose relevance is kept.
        again: Whether the tape will be swept again, each time only down to what is wanted; otherwise it is taken
            apart on the way, which frees memory, and layers' sums are noted.

    Returns:
        The relevance; a tensor nothing flows back to is missing.
    """
    flow, count = Flow(), len(start)
    flowing: dict[int, Tensor] = {output: start}
    if output in wanted:
        flow.kept[output] = start
    for place in reversed(range(len(tape.nodes))):
        node = tape.nodes[place] if again else tape.nodes.pop()
        if again and max(node.outputs) <= min(wanted):  # numbers rise along the forward pass
            break
        received = [flowing.pop(number, None) for number in node.outputs]
        if all(r is None for r in received):
            continue
        shares = node.share(*received)
        if not (again or node.keeps):
            flow.totals[node.name] = sum(
                (_per_image(r, count) for r in received if r is not None), start.new_zeros(count)
            )
            flow.passed[node.name] = sum(
                (_per_image(s, count) for s in shares if s is not None), start.new_zeros(count)
            )
        for number, s in zip(node.inputs, shares, strict=True):
            if s is not None:
                flowing[number] = flowing[number] + s if number in flowing else s
                if number in wanted:
                    flow.kept[number] = flowing[number]
    return flow


def _per_image(relevance: Tensor, count: int) -> Tensor:
    """The sum for each image; NaN where it cannot be told which dimension the images lie on.

    They lie on the first, perhaps several rows each (windows, heads), or after the places (transformers that put the
    sequence first).
    """
    relevance, shape = relevance.detach(), relevance.shape
    if len(shape) == 3 and shape[0] != count == shape[1]:
        return relevance.sum((0, 2))
    if shape[0] % count:
        return relevance.new_full((count,), torch.nan)
    total = relevance.sum(tuple(range(1, len(shape)))) if len(shape) > 1 else relevance
    return total if len(total) == count else total.view(count, -1).sum(1)
