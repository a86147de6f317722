"""What attacks share that see only the label: a picture to start from, and the way from there to the boundary."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heatprint.core.norms import Norm, length
from heatprint.core.protocols import Access
from heatprint.core.streams import Streams

HALVINGS = 30  # float32 has no finer fraction to offer
CHANNEL = 1e-4  # change of a channel, in [0, 1], below which float32 networks answer with their own rounding noise


def find_start(access: Access, images: Tensor, rows: Tensor, streams: Streams, tries: int) -> tuple[Tensor, Tensor]:
    """A picture for each image that reaches the goal, drawn blindly.

    No image of another class is at hand, so pictures of several kinds are tried in turn, see `draw`.

    Args:
        access: Label access is enough.
        images: Originals [M, 3, H, W], on the CPU.
        rows: int64 [M], which attacked image each is.
        streams: Stream 0 of each image is used up here.
        tries: The most pictures asked about for an image.

    Returns:
        The pictures [M, 3, H, W] on the CPU, the nearest of those tried where none reached the goal; and int64 [M],
        which try reached it, -1 for none.
    """
    rngs = [streams.of(int(row)) for row in rows]
    out, found = images.clone(), torch.full((len(rows),), -1)
    nearest = torch.full((len(rows),), torch.inf)
    for number in range(tries):
        open_ = ((found < 0) & ~access.spent(rows)).nonzero().squeeze(1)
        if not len(open_):
            break
        drawn = torch.stack([draw(rngs[i], images[i], number) for i in open_.tolist()])
        fell = access.reached(drawn.to(access.device), rows[open_]).cpu()
        size = length(drawn - images[open_], "l2")
        better = fell | (size < nearest[open_])
        out[open_[better]], nearest[open_[better]] = drawn[better], size[better]
        found[open_[fell]] = number
    return out, found


def draw(rng: np.random.Generator, image: Tensor, number: int) -> Tensor:
    """The picture number `number` to try for an image [3, H, W].

    In turn: uniform noise; channels drawn to be black or white; the same two coarse, enlarged; the image's negative
    with some uniform noise; a flat colour. A network often calls all fine noise by one name, so that noise alone would
    leave the images of that class standing, and black or white reaches farther than any value between.
    """
    shape = tuple(image.shape)
    kind = ("fine", "fine", "coarse", "coarse", "negative", "flat")[number % 6]
    if kind == "flat":
        return _uniform(rng, (3, 1, 1)).expand(shape).clone()
    if kind == "negative":
        share = 0.5 * rng.random()
        return (1 - share) * (1 - image) + share * _uniform(rng, shape)
    cells = shape[1:]
    if kind == "coarse":
        cells = (int(rng.integers(2, max(3, min(shape[1:]) // 2 + 1))),) * 2
    noise = _uniform(rng, (3, *cells))
    noise = noise.round() if number % 2 else noise
    return F.interpolate(noise[None], size=shape[1:], mode="nearest")[0]


def bisect(access: Access, clean: Tensor, far: Tensor, rows: Tensor, norm: Norm, gap: Tensor) -> Tensor:
    """Images closer to the clean ones that still reach the goal, up to `gap` beyond the boundary.

    The search runs along the straight line, or in the maximum norm along clipping to a shrinking box (Chen et al.
    2020, algorithm 1).

    Args:
        access: Label access is enough.
        clean: Originals [M, 3, H, W] on the access's device.
        far: Images that reach the goal, alike.
        rows: int64 [M], which attacked image each is.
        norm: ``"l2"`` or ``"linf"``.
        gap: Distances in `norm` at which to stop, [M], above 0.

    Returns:
        Images [M, 3, H, W]; `far` itself where nothing nearer reached the goal.
    """
    best, change = far.clone(), far - clean
    size = length(change, norm)
    low, high = torch.zeros_like(size), torch.ones_like(size)
    for _ in range(HALVINGS):
        open_ = ((high - low) * size > gap).nonzero().squeeze(1)
        if not len(open_):
            break
        middle = (low[open_] + high[open_]) / 2
        tried = clean[open_] + shrink(change[open_], norm, middle)
        fell = access.reached(tried, rows[open_.cpu()])
        best[open_[fell]] = tried[fell]
        high[open_[fell]], low[open_[~fell]] = middle[fell], middle[~fell]
    return best


def shrink(change: Tensor, norm: Norm, share: Tensor) -> Tensor:
    """Changes [M, 3, H, W] of a share [M] of their former length, scaled in L2 and clipped in the maximum norm."""
    share = share.view(-1, 1, 1, 1)
    if norm == "l2":
        return share * change
    bound = share * length(change, "linf").view(-1, 1, 1, 1)
    return torch.minimum(torch.maximum(change, -bound), bound)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.random(shape, dtype=np.float32))
