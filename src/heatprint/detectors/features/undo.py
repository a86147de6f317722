"""The undo test: does taking the attack's pattern out of the image make it smoother than putting it in once more?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.detectors.filters import bends, box3, colours, halved
from heatprint.detectors.look import Look

FINE = (
    ("sign", 1, "colour"),
    ("sign", 1, "light"),
    ("sign", 4, "colour"),
    ("linear", 8, "colour"),
    ("linear", 8, "light"),
)
COARSE = tuple((kind, plane) for kind in ("sign", "linear") for plane in ("colour", "light"))
SINGLE = ("grey", "smooth")
TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Undo:
    """A correlation of the image with the pattern an attack on this very network would have left.

    An attack by gradients adds k sign(c) (maximum norm) or something near k c / max |c| (L2), where c is the slope of
    the margin at the attacked image, nearly that at the clean one. Let T be the mean absolute second difference of an
    image. For a pattern W,

        (T(x + W) - T(x - W)) / (T(x + W) + T(x - W) - 2 T(x))

    is near 0 where the image knows nothing of W, and near 1 where W was added once: taking it out makes the image
    smoother than adding it again makes it rough. T is taken of the colour differences R - G and G - B, which are smooth
    in photographs (their colours are stored more coarsely), and of R, G and B.

    Patterns: sign(c) of 1 and 4 levels, linear in c with 8 levels at its peak, and the sign of c averaged over the
    channels, sharp and blurred over 3 x 3, which is what an attacker uses who hides from the first. All are tested
    also on means of blocks of 2 x 2, where what JPEG leaves of an attack is found. Further strengths and larger blocks
    cost as much again and tell nothing more. Of several rivals the largest value counts.

    Our own (docs/results/forensics.md).
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        fine = [f"{kind} {levels} {plane}" for kind, levels, plane in FINE] + [f"{kind} light" for kind in SINGLE]
        coarse = [f"{kind} coarse {plane}" for kind, plane in COARSE] + [f"{kind} coarse light" for kind in SINGLE]
        return (*fine, *coarse, "gain sign 1", "gain linear 8")

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns]."""
        still = Planes(look.images)
        coarse = Planes(halved(look.images))
        found = [self._against(look.slopes[:, k], still, coarse) for k in range(look.rivals)]
        return torch.stack(found).amax(0)

    def _against(self, slope: Tensor, still: Planes, coarse: Planes) -> Tensor:
        grey = slope.mean(1, keepdim=True)
        single = [grey.sign(), box3(grey).sign()]  # one plane for all three channels
        sign = slope.sign()
        linear = slope / slope.abs().amax((1, 2, 3), keepdim=True).clamp_min(TINY)
        fine = {"sign": Planes(sign), "linear": Planes(linear)}
        halves = {"sign": Planes(halved(sign)), "linear": Planes(halved(linear * 8))}
        columns = [still.fit(fine[kind], levels, plane) for kind, levels, plane in FINE]
        columns += [still.fit(Planes(pattern, colour=False), 1, "light") for pattern in single]
        columns += [coarse.fit(halves[kind], 1, plane) for kind, plane in COARSE]
        columns += [coarse.fit(Planes(halved(pattern), colour=False), 1, "light") for pattern in single]
        columns += [still.gain(fine["sign"], 1), still.gain(fine["linear"], 8)]
        return torch.stack(columns, 1)


class Planes:
    """Second differences of an image or a pattern; they are linear, so a pattern's are taken once for all strengths."""

    def __init__(self, images: Tensor, *, colour: bool = True) -> None:
        self.bent = {"light": bends(images)} | ({"colour": bends(colours(images))} if colour else {})
        self._rough: dict[str, Tensor] = {}

    def fit(self, pattern: Planes, levels: float, plane: str) -> Tensor:
        """The undo ratio for a pattern of so many 8-bit levels, [N], -1 to 1 and mostly inside."""
        more, less = self._with(pattern, levels, plane), self._with(pattern, -levels, plane)
        return (more - less) / (more + less - 2 * self.rough(plane)).clamp_min(TINY)

    def gain(self, pattern: Planes, levels: float) -> Tensor:
        """How much rougher adding makes the colour differences than taking out, of their roughness, [N]."""
        more, less = self._with(pattern, levels, "colour"), self._with(pattern, -levels, "colour")
        return (more - less) / (self.rough("colour") + 0.5 / 255)

    def rough(self, plane: str) -> Tensor:
        """Mean absolute second difference, [N]."""
        if plane not in self._rough:
            self._rough[plane] = _mean_size(self.bent[plane])
        return self._rough[plane]

    def _with(self, pattern: Planes, levels: float, plane: str) -> Tensor:
        return _mean_size(torch.add(self.bent[plane], pattern.bent[plane], alpha=levels / 255))


def _mean_size(bent: Tensor) -> Tensor:
    """Mean absolute value, image by image, [N]."""
    return bent.flatten(1).abs().mean(1)
