"""The adversarial patch: a sticker that works wherever it is put."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.attacks.parts.crossfit import clipped, crossed, fell, minibatches
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.protocols import Access, Progress
from heatprint.core.streams import Streams
from heatprint.core.values import Perturbed, Taxonomy


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One square patch for all images, fitted over images and random places (Brown et al. 2017, section 2).

    The patch maximises the clipped cross-entropy of the goal, expected over images and places, by Adam on gradients
    taken through its placement. Deviations from the paper: places vary, sizes and rotations do not, and the loss is
    clipped, so that images fallen long ago do not outweigh those that stand.

    The images attacked together are dealt into two halves by their ids, and each half gets the patch fitted on the
    other, each image at a place of its own: nobody is judged on what the patch was fitted on. A single image gets a
    patch of random noise, fitted on nothing. An image's result depends on the images attacked with it. The
    step of the result is 0 where the patch reaches the goal, -1 elsewhere: there is one try.

    Attributes:
        side: Side of the patch as a share of the image's side, in (0, 1); at least one pixel.
        epochs: Passes through each half, >= 1; each costs an image one gradient.
        rate: Learning rate of Adam, pixel values in [0, 1], in (0, 1].
        minibatch: Images whose mean gradient is followed in one step, >= 1.
        clip: Cross-entropy in nats up to which an image counts, > 0.

    The trace has ``fold``, the half an image is in, and ``row`` and ``column`` of the patch's top left pixel.
    """

    side: float = 0.2
    epochs: int = 40
    rate: float = 0.05
    minibatch: int = 16
    clip: float = 9.0

    def __post_init__(self) -> None:
        if not 0 < self.side < 1:
            raise InvalidInput(
                f"Patch: side = {self.side} is a share of the image's side, between 0 and 1. Write e.g. 0.2."
            )
        if min(self.epochs, self.minibatch) < 1 or not (0 < self.rate <= 1 and self.clip > 0):
            raise InvalidInput(
                f"Patch: epochs = {self.epochs} and minibatch = {self.minibatch} must be 1 or more, rate = {self.rate} "
                f"above 0 and at most 1, clip = {self.clip} above 0."
            )

    @property
    def taxonomy(self) -> Taxonomy:
        """White box, one patch for a batch."""
        return Taxonomy(
            knowledge="white box",
            specificity="targeted or untargeted",
            frequency="iterative",
            norm="l0",
            paper="Brown, Mané, Roy, Abadi, Gilmer 2017, arXiv:1712.09665",
            scope="batch",
        )

    def perturb(self, access: Access, images: Tensor, goal: Goal, *, streams: Streams, progress: Progress) -> Perturbed:
        """See `heatprint.core.protocols.Attack`."""
        del goal  # known to the access
        out, fold = images.clone(), torch.zeros(len(images), dtype=torch.long)
        place = self._places(images, torch.arange(len(images)), streams, self.epochs)

        def fitted(rows: Tensor, draws: int) -> Tensor:
            return self._fit(access, images, rows, streams, draws)

        for number, rows, patch in crossed(streams, len(images), fitted, progress):
            fold[rows] = number
            out[rows] = pasted(images[rows], patch, place[rows])
        step = fell(access, out).long() - 1
        return Perturbed(images=out, step=step, trace={"fold": fold, "row": place[:, 0], "column": place[:, 1]})

    def pixels(self, size: int) -> int:
        """Side of the patch in pixels on images of this side."""
        return max(1, round(self.side * size))

    def _places(self, images: Tensor, rows: Tensor, streams: Streams, epoch: int) -> Tensor:
        """Top left corners, int64 [M, 2], drawn for each of rows [M]; those of epoch `epochs` are for the result."""
        high = [size - self.pixels(int(images.shape[-1])) + 1 for size in images.shape[2:]]
        drawn = [streams.of(int(row), 2 + 2 * epoch).integers(0, high).tolist() for row in rows]
        return torch.tensor(drawn, dtype=torch.long).view(-1, 2)

    def _fit(self, access: Access, images: Tensor, rows: Tensor, streams: Streams, draws: int) -> Tensor:
        """A patch [3, S, S] of the 8-bit lattice, fitted on `rows`, on the CPU."""
        side, loss = self.pixels(int(images.shape[-1])), clipped(self.clip)
        start = streams.of(draws, 3 + 2 * self.epochs).random((3, side, side))
        patch = torch.from_numpy(start).to(access.device, torch.float32)
        adam = torch.optim.Adam([patch], lr=self.rate, maximize=True)
        for epoch in range(self.epochs):
            for some in minibatches(rows, streams, epoch, self.minibatch):
                total = torch.zeros_like(patch)
                for part in torch.split(some, access.batch):
                    place = self._places(images, part, streams, epoch)
                    tried = pasted(images[part].to(access.device), patch, place)
                    total += cut(access.gradient(tried, part, loss)[0], place, side).sum(0)
                patch.grad = total / len(some)
                adam.step()
                patch.clamp_(0, 1)
        return to_images(to_pixels(patch)).cpu()


def pasted(images: Tensor, patch: Tensor, place: Tensor) -> Tensor:
    """Copies of images [M, 3, H, W] with the patch [3, S, S] at places [M, 2], its top left corners."""
    out = images.clone()
    out.permute(0, 2, 3, 1)[_index(place, patch.shape[-1], images.device)] = patch.permute(1, 2, 0)
    return out


def cut(images: Tensor, place: Tensor, side: int) -> Tensor:
    """The squares [M, 3, S, S] of images [M, 3, H, W] at places [M, 2]."""
    squares: Tensor = images.permute(0, 2, 3, 1)[_index(place, side, images.device)]
    return squares.permute(0, 3, 1, 2)


def _index(place: Tensor, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of every pixel of the squares, each broadcastable to [M, S, S]."""
    place, along = place.to(device), torch.arange(side, device=device)
    image = torch.arange(len(place), device=device)[:, None, None]
    return image, (place[:, 0, None] + along)[:, :, None], (place[:, 1, None] + along)[:, None, :]
