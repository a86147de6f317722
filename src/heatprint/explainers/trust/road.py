"""ROAD: removal that leaves no trace of where something was removed."""

from __future__ import annotations

from math import inf
from typing import Literal

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.explainers.trust.curves import curve
from heatprint.explainers.trust.heat import Heat, explained_class, removal_ranks

SHARES = tuple(k / 10 for k in range(1, 10))
NOISE = 0.01  # standard deviation, images in [0, 1]
CLOSE = 1e-4  # residual over right-hand side: imputed values are then good to about half an 8-bit level


def road(
    classifier: Classifier,
    batch: Batch,
    heat: Heat,
    *,
    target: Tensor | None = None,
    score: Literal["probability", "kept"] = "probability",
    shares: tuple[float, ...] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
) -> Tensor:
    """How much longer the explained class survives when the least relevant pixels go first, float [N] in [-1, 1].

    Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods": removed pixels are
    imputed from their neighbours (noisy linear imputation), so that the shape of the removed region is not itself
    readable. Returned is the mean over `shares` of score(least relevant first) - score(most relevant first). Higher
    is better, 0 is a random map. The paper reports the accuracy over a data set; ``score="kept"`` gives its
    per-image part, ``"probability"`` tells more of few images. Imputed images are clipped to [0, 1].

    Args:
        classifier: Who is asked.
        batch: The images.
        heat: Their maps.
        target: The class explained, int64 [N]; that of the explanation, or the predicted one.
        score: The class's probability, or 1 where it is the prediction and 0 where not.
        shares: Shares of pixels removed, each in (0, 1).
        noise: Standard deviation of what is added to imputed pixels, images in [0, 1].
        seed: Of the noise, and of the order among pixels of equal relevance.

    Raises:
        InvalidInput: A share outside (0, 1), noise that is negative or not finite, or an unknown score.
    """
    if not shares or not all(0 < s < 1 for s in shares) or not 0 <= noise < inf or score not in ("probability", "kept"):
        raise InvalidInput(
            f"road: shares = {shares} must be in (0, 1), noise = {noise} 0 or more and finite, score = {score!r} "
            "'probability' or 'kept'."
        )
    classes = explained_class(classifier, batch, heat, target)
    device, side = classifier.device, batch.pixels.shape[2:]
    ranks = removal_ranks(batch, heat, seed=seed).to(device)
    images = batch.images.to(device)
    draws = [stream(seed, "trust/road", name).standard_normal((3, *side), dtype="float32") for name in batch.ids]
    grain = noise * torch.stack([torch.from_numpy(d) for d in draws]).to(device)
    pixels = ranks[0].numel()
    counts = (torch.tensor(shares, dtype=torch.float64, device=device) * pixels).round().long().clamp(0, pixels - 1)

    def picture(rows: Tensor, steps: Tensor) -> Tensor:
        """The first half of the steps removes the most relevant pixels, the second half the least relevant ones."""
        least = (steps >= len(shares))[:, None, None]
        order = torch.where(least, pixels - 1 - ranks[rows], ranks[rows])
        gone = order < counts[steps % len(shares)][:, None, None]
        return (impute(images[rows], gone) + grain[rows] * gone[:, None]).clamp(0, 1)

    logits = curve(classifier, len(batch), 2 * len(shares), picture)
    found = classes.view(-1, 1, 1).expand(-1, 2 * len(shares), 1)
    kept = (logits.argmax(2, keepdim=True) == found).to(logits.dtype)
    most, least = (logits.softmax(2).gather(2, found) if score == "probability" else kept).squeeze(2).chunk(2, dim=1)
    return (least - most).mean(1)


def impute(images: Tensor, gone: Tensor) -> Tensor:
    """Images whose missing pixels are the weighted mean of their eight neighbours, missing or not.

    One sparse linear system per image and channel (Rong et al. 2022, equation 4: direct neighbours weigh 1/6,
    diagonal ones 1/12; at the border the weights there are add up to 1). It is symmetric and positive definite, so
    conjugate gradients solve all systems at once, with a 3x3 filter in place of a matrix; each stops when it is
    solved and does not depend on its companions.

    Args:
        images: float [M, 3, H, W].
        gone: bool [M, H, W], what is missing; at least one pixel of each image must be there.
    """
    missing = gone[:, None].to(images.dtype)
    known = images * (1 - missing)
    total = _neighbours(torch.ones_like(missing[:1]))
    right = _neighbours(known) * missing
    # start from the mean of what is known, which is near the answer
    level = known.sum((2, 3), keepdim=True) / (1 - missing).sum((2, 3), keepdim=True)
    found = level * missing
    residual = right - missing * (total * found - _neighbours(found))
    direction, size = residual, (residual**2).sum((2, 3), keepdim=True)
    enough = (CLOSE**2 * (right**2).sum((2, 3), keepdim=True)).clamp_min(1e-24)
    for _ in range(20 * sum(images.shape[2:])):
        open_ = size > enough
        if not bool(open_.any()):
            break
        along = missing * (total * direction - _neighbours(direction))
        step = torch.where(open_, size / (direction * along).sum((2, 3), keepdim=True), 0.0)
        found = found + step * direction
        residual = residual - step * along
        new = (residual**2).sum((2, 3), keepdim=True)
        direction = torch.where(open_, residual + new / size * direction, direction)
        size = torch.where(open_, new, size)
    return known + found


def _neighbours(x: Tensor) -> Tensor:
    """Sum over the eight neighbours, weighed 1/6 and 1/12; nothing lies beyond the border."""
    down = 2 * x
    down[..., 1:, :] += x[..., :-1, :]
    down[..., :-1, :] += x[..., 1:, :]
    both = 2 * down
    both[..., :, 1:] += down[..., :, :-1]
    both[..., :, :-1] += down[..., :, 1:]
    return (both - 4 * x) / 12
