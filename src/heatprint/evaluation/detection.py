"""How well scores tell attacked images from others: the only way to a number is past the test part's own sources.

A threshold is taken from images that were not attacked, of sources that neither the detector nor the test saw; every
rate comes with its count and a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.detectors.door import at_most, guarded
from heatprint.evaluation.shares import share

RATES = (0.05, 0.01)
GUARDED = "guarded"
PRIORS = (0.01, 0.001)  # shares of the traffic that are attacked
SIDE, CALIPER = 8, 0.3  # neighbours on either side in log margin, and how far they may be
DRAWS = 200  # of the bootstrap over sources


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What is known of each scored image; no pixels.

    Attributes:
        sources: Id of the clean image each comes from.
        kinds: What was done, e.g. ``"pgd @95"``; clean images that are misclassified are a kind of their own.
        attacked: bool [N].
        margins: float [N], margin of the classifier's answer.
    """

    sources: np.ndarray
    kinds: np.ndarray
    attacked: np.ndarray
    margins: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """These rows, in this order."""
        return Rows(sources=self.sources[rows], kinds=self.kinds[rows], attacked=self.attacked[rows],
                    margins=self.margins[rows])  # fmt: skip


def judged(
    scores: np.ndarray, rows: Rows, calibration: np.ndarray, *, kinds: Sequence[str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """AUROC, rates at calibrated thresholds and the equal-margin control, kind by kind.

    Args:
        scores: Of the test images, float [N], higher for attacked.
        rows: What they are.
        calibration: Scores of images that were not attacked, of other sources, from which thresholds are taken.
        kinds: What was done to each of those; then a third threshold is taken, at 5 % of all but of no kind more than
            10 % (`detectors.door.guarded`).
        seed: Of the bootstrap.

    Rates that so few calibration images cannot tell are left out.

    Returns:
        ``"attacks"``: kind to AUROC against all negatives with its interval, the share found at each rate, and the
        AUROC against negatives of equal margin; ``"others"``: kind to the share flagged at each rate;
        ``"pooled"``: AUROC over all kinds; ``"precision"``: share of flagged images that were attacked where one in a
        hundred, or in a thousand, is; ``"thresholds"``.

    Raises:
        InvalidInput: There is nothing attacked or nothing else among the test images.
    """
    attacked = np.asarray(rows.attacked, dtype=bool)
    if attacked.all() or not attacked.any():
        raise InvalidInput("detection: the test images are all attacked or all not; both are needed for a number.")
    thresholds = {_name(rate): at_most(calibration, rate) for rate in RATES if rate * len(calibration) >= 1}
    if kinds is not None and RATES[0] * len(calibration) >= 1:
        thresholds[GUARDED] = guarded(calibration, RATES[0], kinds)
    negatives = rows.take(np.flatnonzero(~attacked))
    usual = scores[~attacked]
    found = {}
    for kind in sorted(set(rows.kinds[attacked])):
        inside = np.flatnonzero(attacked & (rows.kinds == kind))
        own = scores[inside]
        found[kind] = {
            "images": len(inside),
            "auroc": auroc(own, usual),
            "interval": _interval(own, rows.sources[inside], usual, negatives.sources, seed),
            "equal_margin": equal_margin(own, rows.margins[inside], usual, negatives.margins),
            **{name: share(int((own > at).sum()), len(own)) for name, at in thresholds.items()},
        }
    flagged = {name: usual > at for name, at in thresholds.items()}
    others = {
        kind: {name: share(int(hit[inside].sum()), int(inside.sum())) for name, hit in flagged.items()}
        for kind in sorted(set(negatives.kinds))
        for inside in [negatives.kinds == kind]
    }
    realised = {name: share(int(hit.sum()), len(usual)) for name, hit in flagged.items()}
    trusted = {
        f"{prior:.1%} attacked": {
            name: precision(float((scores[attacked] > at).mean()), float((usual > at).mean()), prior=prior)
            for name, at in thresholds.items()
        }
        for prior in PRIORS
    }
    return {"attacks": found, "others": others, "realised": realised, "pooled": auroc(scores[attacked], usual),
            "precision": trusted, "thresholds": thresholds}  # fmt: skip


def auroc(attacked: np.ndarray, usual: np.ndarray) -> float:
    """Chance that an attacked image scores above one that is not, ties counting half."""
    truth = np.r_[np.ones(len(attacked)), np.zeros(len(usual))]
    return float(roc_auc_score(truth, np.r_[attacked, usual]))


def equal_margin(
    attacked: np.ndarray, margins: np.ndarray, usual: np.ndarray, usual_margins: np.ndarray
) -> dict[str, Any]:
    """AUROC of each attacked image against others of nearly its log margin: what is left beyond the margin.

    As many with a smaller margin as with a larger one, the nearest eight at most and within 0.3: a score that is
    the margin in disguise gets exactly 1/2. Images without others on both sides are left out.

    Returns:
        ``"auroc"``, None where no image has such others, and ``"images"``, how many have.
    """
    order = np.argsort(usual_margins, kind="stable")
    scores, at = usual[order], np.log(usual_margins[order] + 0.05)
    wins = []
    for score, own in zip(attacked, np.log(margins + 0.05), strict=True):
        low, here, high = np.searchsorted(at, [own - CALIPER, own, own + CALIPER])
        count = min(here - low, high - here, SIDE)
        if count:
            near = scores[here - count : here + count]
            wins.append(np.mean((score > near) + 0.5 * (score == near)))
    return {"auroc": float(np.mean(wins)) if wins else None, "images": len(wins)}


def precision(tpr: float, fpr: float, *, prior: float) -> float | None:
    """Share of flagged images that were attacked, where a share `prior` of the traffic is; None if none is flagged."""
    flagged = prior * tpr + (1 - prior) * fpr
    return prior * tpr / flagged if flagged > 0 else None


def _interval(
    attacked: np.ndarray, sources: Sequence[str] | np.ndarray, usual: np.ndarray, usual_sources: np.ndarray, seed: int
) -> list[float]:
    """95 % interval of the AUROC, by drawing source images again, copies and all."""
    names, place = np.unique(np.r_[np.asarray(sources), usual_sources], return_inverse=True)
    scores, truth = np.r_[attacked, usual], np.r_[np.ones(len(attacked)), np.zeros(len(usual))]
    order = np.argsort(scores, kind="stable")
    ranked, truth, place = scores[order], truth[order], place[order]
    rng = stream(seed, "evaluation/detection")
    drawn = []
    for _ in range(DRAWS):
        weight = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[place].astype(float)
        drawn.append(_weighted(ranked, truth, weight))
    kept = [value for value in drawn if np.isfinite(value)]
    return [float(q) for q in np.quantile(kept, [0.025, 0.975])] if kept else [0.0, 1.0]


def _weighted(ranked: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """AUROC of weighted rows in ascending order of score; ties count half."""
    positive, negative = weight * truth, weight * (1 - truth)
    edges = np.r_[True, ranked[1:] != ranked[:-1]]
    group = np.cumsum(edges) - 1
    of_positive, of_negative = np.bincount(group, positive), np.bincount(group, negative)
    below = np.cumsum(of_negative) - of_negative
    total = positive.sum() * negative.sum()
    return float((of_positive * (below + of_negative / 2)).sum() / total) if total else float("nan")


def _name(rate: float) -> str:
    return f"at {rate:.0%}"
