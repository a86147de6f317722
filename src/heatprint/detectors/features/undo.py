"""The undo test: does taking the attack's pattern out of the image make it smoother than putting it in once more?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.detectors.filters import bends, box3, colours, halved
from heatprint.detectors.look import Look

SIGNS, LINEAR = (1, 2, 4), (3, 8)  # strengths in 8-bit levels
HALVINGS = (1, 2)  # means of blocks of 2 and 4 pixels are tested, too
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

    Patterns: sign(c) of 1, 2 and 4 levels, linear in c with 3 and 8 levels at its peak, and the sign of c averaged over
    the channels, sharp and blurred over 3 x 3, which is what an attacker uses who hides from the first. All are tested
    also on means of blocks of 2 and 4 pixels, where what JPEG leaves of an attack is found. Of several rivals the
    largest value counts.

    Our own (docs/results/forensics.md).
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        fine = [f"sign {k} {plane}" for k in SIGNS for plane in ("colour", "light")]
        fine += [f"linear {k} {plane}" for k in LINEAR for plane in ("colour", "light")]
        fine += [f"{kind} {plane}" for kind in ("grey", "smooth") for plane in ("light",)]
        coarse = [f"{kind} coarse {w} {plane}" for w in HALVINGS for kind in ("sign", "linear")
                  for plane in ("colour", "light")]  # fmt: skip
        coarse += [f"{kind} coarse {w} light" for w in HALVINGS for kind in ("grey", "smooth")]
        return (*fine, *coarse, "gain sign 1", "gain linear 8")

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns]."""
        still = Planes(look.images)
        half = halved(look.images)
        coarse = [Planes(half), Planes(halved(half))]
        found = [self._against(look.slopes[:, k], still, coarse) for k in range(look.rivals)]
        return torch.stack(found).amax(0)

    def _against(self, slope: Tensor, still: Planes, coarse: list[Planes]) -> Tensor:
        grey = slope.mean(1, keepdim=True)
        smooth = box3(grey).sign()
        sign = slope.sign()
        linear = slope / slope.abs().amax((1, 2, 3), keepdim=True).clamp_min(TINY)
        fine = {"sign": Planes(sign), "linear": Planes(linear)}
        columns = [still.fit(fine["sign"], k, plane) for k in SIGNS for plane in ("colour", "light")]
        columns += [still.fit(fine["linear"], k, plane) for k in LINEAR for plane in ("colour", "light")]
        patterns, single = [sign, linear * 8], [grey.sign(), smooth]  # one plane for all three channels
        columns += [still.fit(Planes(pattern, colour=False), 1, "light") for pattern in single]
        on_single = []
        for blocks in coarse:
            patterns, single = [halved(p) for p in patterns], [halved(p) for p in single]
            columns += [
                blocks.fit(planes, 1, plane) for planes in map(Planes, patterns) for plane in ("colour", "light")
            ]
            on_single += [blocks.fit(Planes(p, colour=False), 1, "light") for p in single]
        columns += on_single
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
