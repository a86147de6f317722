"""What the leaks in the published code of Feinman et al. (2017) are worth: its number beside the honest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.detectors.door import FEWEST
from heatprint.detectors.examples import CLEAN, Examples
from heatprint.detectors.published.bayesian import Bayesian
from heatprint.detectors.published.density import Density
from heatprint.detectors.published.logistic import apply_logistic, fit_logistic, groups
from heatprint.evaluation.detection import auroc
from heatprint.evaluation.forensics import Measured
from heatprint.evaluation.rivals import IMAGES, thinned

STEPS = ("honest", "easy negatives", "attack known", "leaky", "own kernels")
BLOCK = 256  # images measured at a time


def bayesian_leak(
    classifier: Classifier,
    measured: Measured,
    *,
    method: Bayesian | None = None,
    images: int = IMAGES,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """AUROC of kernel density with dropout, honest and with the leaks of its published code, one more at each step.

    The columns are the same throughout, those of `detectors.published.bayesian`. The steps:

    - ``"honest"``: one regression, fitted on the fit part to all attacks that may be learned from; test images of the
      attack against all test images that were not attacked.
    - ``"easy negatives"``: the same scores, but against the clean images that these were made from and that the
      classifier gets right, and against noise of the size that is nearest to the attack's. Mistaken, blurred and
      compressed images are left out; the noise is chosen with the attack of the test in hand.
    - ``"attack known"``: a regression for this attack alone, fitted on the fit part to such images.
    - ``"leaky"``: columns are z-scored over, the regression is fitted to, and the area is taken of the very same test
      images. This is what the published code prints.
    - ``"own kernels"``: besides, the density is that of the very clean images that are judged, their own kernels
      included. Not in the published code, which takes the density from training images, but the easiest leak to add.

    Args:
        classifier: The victim.
        measured: Images of known history with their parts; its tables of features are not read.
        method: Settings of the columns.
        images: At most so many of a kind, see `rivals.thinned`.
        seed: Of the masks and of the kernels.
        progress: Told how many images are measured.

    Returns:
        ``"honest"`` and ``"leaky"``: mean AUROC over attacks; ``"steps"``: the mean at each step; ``"attacks"``: kind
        to step to AUROC. Attacks with twenty images or more in the fit and in the test part, not those saved anew.

    Raises:
        InvalidInput: There is no such attack.
    """
    scene = _Scene.of(classifier, measured, method or Bayesian(), images, seed, progress)
    told = {kind: scene.steps(kind) for kind in scene.attacks()}
    if not told:
        raise InvalidInput(
            f"bayesian_leak: no attack that may be learned from has {FEWEST} images in the fit and in the test part. "
            "Attack more images."
        )
    means = {step: float(np.mean([found[step] for found in told.values()])) for step in STEPS}
    return {"honest": means["honest"], "leaky": means["leaky"], "steps": means, "attacks": told}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """Both columns of every image, with kernels of the fit part and with those of the test part's own clean images."""

    examples: Examples
    kinds: np.ndarray  # as judged: clean images that are misclassified are a kind of their own
    attacked: np.ndarray
    fit: np.ndarray  # rows
    test: np.ndarray
    columns: np.ndarray
    own: np.ndarray

    @classmethod
    def of(
        cls, classifier: Classifier, measured: Measured, method: Bayesian, images: int, seed: int, progress: Progress
    ) -> _Scene:
        """Measure both columns once."""
        rows = thinned(measured.examples, images)
        rows = rows[~measured.unseen[rows] & np.isin(measured.part[rows], ("fit", "test"))]
        examples, kinds = measured.examples.take(rows), measured.rows.kinds[rows]
        source, inside = groups(examples.sources), measured.part[rows] == "fit"

        def kernels(of: np.ndarray) -> Density:
            return method.kernels(classifier, examples.take(np.flatnonzero(of)), source[of], seed)

        honest, own = kernels(inside & (np.asarray(examples.kinds) == CLEAN)), kernels(~inside & (kinds == CLEAN))
        parts: list[np.ndarray] = []
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            pixels = examples.pixels[block]
            parts.append(np.concatenate([
                method.columns(classifier, honest, seed, pixels, source[block]),
                method.columns(classifier, own, seed, pixels),
            ], axis=1))  # fmt: skip
            progress(min(start + BLOCK, len(rows)), len(rows))
        found = np.concatenate(parts)
        return cls(
            examples=examples, kinds=kinds, attacked=np.asarray(examples.attacked, dtype=bool),
            fit=np.flatnonzero(inside), test=np.flatnonzero(~inside), columns=found[:, :2], own=found[:, 2:],
        )  # fmt: skip

    def attacks(self) -> list[str]:
        """Kinds with enough images on both sides."""
        return [
            kind
            for kind in sorted(set(self.kinds[self.attacked]))
            if " @" not in kind and min((self.kinds[part] == kind).sum() for part in (self.fit, self.test)) >= FEWEST
        ]

    def steps(self, kind: str) -> dict[str, float]:
        """AUROC of one attack, with one more leak at each step."""
        learned, chosen = self._learned(self.fit, self.columns), self._chosen(kind, self.test)
        everything = self.test[(self.kinds[self.test] == kind) | ~self.attacked[self.test]]
        alone = self._learned(self._chosen(kind, self.fit), self.columns)
        return {
            "honest": self._auroc(learned, everything, self.columns),
            "easy negatives": self._auroc(learned, chosen, self.columns),
            "attack known": self._auroc(alone, chosen, self.columns),
            "leaky": self._auroc(self._learned(chosen, self.columns), chosen, self.columns),
            "own kernels": self._auroc(self._learned(chosen, self.own), chosen, self.own),
        }

    def _learned(self, rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
        return fit_logistic(columns[rows], self.attacked[rows], [self.examples.sources[row] for row in rows])

    def _auroc(self, learned: dict[str, np.ndarray], rows: np.ndarray, columns: np.ndarray) -> float:
        scores, attacked = apply_logistic(learned, columns[rows]), self.attacked[rows]
        return auroc(scores[attacked], scores[~attacked])

    def _chosen(self, kind: str, part: np.ndarray) -> np.ndarray:
        """An attack's images of a part, the right clean ones they were made from, and the noise nearest in size."""
        own = part[self.kinds[part] == kind]
        made_from = {self.examples.sources[row] for row in own}
        clean = [row for row in part[self.kinds[part] == CLEAN] if self.examples.sources[row] in made_from]
        noisy = part[np.asarray(self.examples.names)[part] == "noise"]
        sizes = {name: self._size(noisy[self.kinds[noisy] == name]) for name in sorted(set(self.kinds[noisy]))}
        if sizes:
            size = self._size(own)
            nearest = min(sizes, key=lambda name: abs(sizes[name] - size))
            noisy = noisy[self.kinds[noisy] == nearest]
        return np.concatenate([own, np.asarray(clean, dtype=np.int64), noisy])

    def _size(self, rows: np.ndarray) -> float:
        """Mean L2 size of what was done, in levels, where the clean image is among the examples."""
        clean = np.flatnonzero(np.asarray(self.examples.kinds) == CLEAN)
        place = {self.examples.sources[row]: row for row in clean}
        pairs = [(row, place[self.examples.sources[row]]) for row in rows if self.examples.sources[row] in place]
        gaps = [(self.examples.pixels[a].double() - self.examples.pixels[b].double()).norm() for a, b in pairs]
        return float(np.mean(gaps)) if gaps else 0.0
