"""Input transforms: the network sees what a filter leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress
from heatprint.core.values import Attacked, Batch
from heatprint.models.compose import fronted
from heatprint.models.parts import PARTS

USUAL = {"median": 3, "bits": 4, "jpeg": 75}


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A fixed filter before the network, of which nothing is trained.

    A median or fewer bits (Xu, Evans and Qi 2018, "Feature Squeezing"), or a JPEG file (Dziugaite, Ghahramani and Roy
    2016, "A study of the effect of JPG compression on adversarial images"). The median takes single pixels out, bits
    and JPEG small noise. Rounding has no gradient, so attacks through bits and JPEG fail for the wrong reason: an
    attacker passes the filter by (Athalye, Carlini and Wagner 2018, section 4.1; `models.compose.Fronted`,
    `straight_through`). Only a number under that attack says what the filter is worth.

    Attributes:
        kind: ``"median"``, ``"bits"`` or ``"jpeg"``.
        strength: Side of the median's square in pixels, 2 or more; bits that are left of eight, 1 to 8; quality of the
            JPEG file, 1 to 100. None for 3, 4 and 75.
    """

    kind: Literal["median", "bits", "jpeg"] = "median"
    strength: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in USUAL:
            raise InvalidInput(f"Transform: kind = {self.kind!r} must be one of {', '.join(USUAL)}.")
        self._made()

    def protect(
        self,
        classifier: Classifier,
        train_batch: Batch,
        attacked: Mapping[str, Attacked],
        *,
        seed: int,
        checkpoint: Path | None,
        progress: Progress,
    ) -> Classifier:
        """See `heatprint.core.protocols.Defence`."""
        del train_batch, attacked, seed, checkpoint  # nothing is learnt or random
        front, spelled = self._made()
        safe = fronted(classifier, front, spelled)
        progress(1, 1)
        return safe

    def _made(self) -> tuple[nn.Module, str]:
        """The filter and how it is spelled; refuses a strength out of range."""
        strength = USUAL[self.kind] if self.strength is None else self.strength
        made: nn.Module = PARTS.load(self.kind)(strength)
        return made, f"{self.kind}:{strength}"
