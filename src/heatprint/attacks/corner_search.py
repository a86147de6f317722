"""The exhaustive one-pixel search: every pixel in every corner colour, and what that proves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import LEVELS
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class CornerSearch:
    """Tries every pixel in every colour of a grid over the RGB cube, and keeps the one with the largest margin.

    The eight corners (each channel 0 or 255) are the sweep that opens CornerSearch (Croce and Hein 2019, section 3).
    It is deterministic, and its answer is a certificate: where it fails, no single pixel in a colour of the grid
    changes the classifier's decision. It says nothing of colours between the grid's.

    Attributes:
        colours: Levels per channel, 2 for the corners alone; 3 adds the middles, and so on: colours ** 3 per pixel.

    Costs colours ** 3 * H * W forward passes an image (the colours a pixel has already are left out), by the sparse
    forward where the network has one. The step of the result is 0 for a success. Traces: ``certified`` bool [N], no
    pixel in a colour of the grid reaches the goal; ``vulnerability`` float32 [N, H, W], the margin past the goal that
    the worst colour of each pixel leaves (negative: it holds; larger: more vulnerable).
    """

    colours: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.colours <= 17:
            raise InvalidInput(f"CornerSearch: colours = {self.colours} must be between 2 and 17 levels per channel.")

    @property
    def taxonomy(self) -> Taxonomy:
        """Sees class scores only."""
        return Taxonomy(
            knowledge="score",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l0",
            paper="Croce, Hein 2019, arXiv:1909.05040",
        )

    def palette(self) -> Tensor:
        """The grid's colours, 0..255, float32 [colours ** 3, 3]."""
        levels = torch.linspace(0, LEVELS, self.colours).round()
        return torch.cartesian_prod(levels, levels, levels)

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del streams  # nothing is random here
        count, _, high, wide = images.shape
        out, step = images.clone(), torch.full((count,), -1)
        certified = torch.zeros(count, dtype=torch.bool)
        vulnerability = torch.zeros((count, high, wide))
        for row in range(count):
            margin, fell = self._sweep(access, images[row], row, goal)
            worst = margin.amax(1)
            vulnerability[row] = worst.view(high, wide)
            # a search cut short by a budget proves nothing
            certified[row] = not bool(fell.any() | access.spent(torch.tensor([row])).any())
            # a criterion may ask for more than a margin, so what reached the goal goes before what leads most
            best = int((margin.masked_fill(~fell, -torch.inf) if bool(fell.any()) else margin).argmax())
            place, colour = divmod(best, margin.shape[1])
            out[row, :, place // wide, place % wide] = self.palette()[colour] / LEVELS
            step[row] = 0 if bool(fell.any()) else -1
            progress(row + 1, count)
        return Perturbed(images=out, step=step, trace={"certified": certified, "vulnerability": vulnerability})

    def _sweep(self, access: Access, image: Tensor, row: int, goal: Goal) -> tuple[Tensor, Tensor]:
        """Margins [H * W, colours ** 3] past the goal (-inf where nothing would change), and which reach it."""
        palette, wide = self.palette(), image.shape[2]
        own = (image * LEVELS).round().permute(1, 2, 0).flatten(0, 1)
        changes = (palette[None] != own[:, None]).any(2)
        margin, fell = torch.full(changes.shape, -torch.inf), torch.zeros(changes.shape, dtype=torch.bool)
        for pairs in torch.split(changes.nonzero(), 4096):
            place, colour = pairs.unbind(1)
            rows = torch.full((len(pairs),), row)
            places = torch.stack([place // wide, place % wide], 1)[:, None]
            logits = access.recoloured(rows, places, palette[colour][:, None] / LEVELS).cpu()
            aim = goal.take(rows)
            margin[place, colour], fell[place, colour] = aim.margin(logits), aim.reached(logits)
        return margin, fell
