"""The closed loop in numbers: was the adviser's choice the best one, and what is routing worth?

Everything here looks at images whose history is known. What remedies are worth is learned from some source images and
judged on others, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatprint.core.streams import stream
from heatprint.detectors.examples import CLEAN, MISTAKEN
from heatprint.evaluation.shares import share

NATURAL = (CLEAN, MISTAKEN)  # kinds that are clean images, right or wrong
DRAWS = 500  # of the bootstrap over source images


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What every remedy said of images of known history.

    Attributes:
        kinds: [N], what was done to each.
        sources: [N], id of the clean image each comes from.
        attacked: bool [N].
        labels: int64 [N], the truth.
        said: Remedy to the classes it names, int64 [N].
    """

    kinds: np.ndarray
    sources: np.ndarray
    attacked: np.ndarray
    labels: np.ndarray
    said: Mapping[str, np.ndarray]

    @property
    def right(self) -> dict[str, np.ndarray]:
        """Remedy to bool [N]."""
        return {name: said == self.labels for name, said in self.said.items()}

    def take(self, rows: np.ndarray) -> Answers:
        """These rows."""
        return Answers(
            kinds=self.kinds[rows], sources=self.sources[rows], attacked=self.attacked[rows], labels=self.labels[rows],
            said={name: said[rows] for name, said in self.said.items()},
        )  # fmt: skip


def evidence(answers: Answers) -> dict[str, dict[str, Any]]:
    """Kind of images to remedy to the share that it answers rightly; clean images are one kind, right or wrong."""
    kinds = np.where(np.isin(answers.kinds, NATURAL), CLEAN, answers.kinds)
    rows = {str(kind): kinds == kind for kind in np.unique(kinds)}
    return {kind: {name: share(right[some].sum(), int(some.sum())) for name, right in answers.right.items()}
            for kind, some in rows.items()}  # fmt: skip


def adviser_cells(answers: Answers, advised: Mapping[str, str], *, prior: float = 0.5) -> list[dict[str, Any]]:
    """For every attack, as if a folder of it had come in: what was advised, and what would have been best.

    Args:
        answers: On the test part.
        advised: Kind of attack to the remedy advised for a folder of it, by what other source images taught.
        prior: Share of attacked images that remedies are judged by.

    Returns:
        One row per kind with ``"advised"``, ``"best"``, ``"hit"`` and ``"regret"``, the share of right answers that
        the advised remedy gives away, all by the test part; ``"hit"`` also where the two are equally good.
    """
    natural = np.isin(answers.kinds, NATURAL)
    told = []
    for kind, remedy in advised.items():
        rows = answers.kinds == kind
        worth = {
            name: prior * right[rows].mean() + (1 - prior) * right[natural].mean()
            for name, right in answers.right.items()
        }
        best = max(worth, key=lambda name: worth[name])
        regret = float(worth[best] - worth[remedy])
        told.append(
            {
                "kind": kind,
                "images": int(rows.sum()),
                "advised": remedy,
                "best": best,
                "hit": regret < 1e-9,
                "regret": round(regret, 6),
                "right": share(answers.right[remedy][rows].sum(), int(rows.sum())),
            }
        )
    return told


def routed_table(answers: Answers, routed: np.ndarray, rejected: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Routing beside every single remedy: on clean images, on each attack, and on all of them at once.

    ``"union"`` counts a source image as right only if it is answered rightly clean and in every attacked copy of it
    that is among the images, all of which fooled the undefended classifier: the worst case per image, not the mean of
    attacks. ``"mean"`` is that mean.

    Args:
        answers: On the test part.
        routed: bool [N], where routing was right; a rejected image is not.
        rejected: bool [N].
        seed: Of the bootstrap.

    Returns:
        ``"systems"``: name (``"routed"`` among them) to ``"clean"``, ``"union"``, ``"mean"`` and ``"kinds"``;
        ``"lead"`` of routing over the best single remedy, by ``"union"`` and by ``"mean"``, with the 95 % interval of
        a bootstrap over source images; ``"rejected"``: clean and attacked images that were turned away.
    """
    natural = np.isin(answers.kinds, NATURAL)
    sources, where = np.unique(answers.sources, return_inverse=True)
    judged_by = natural | answers.attacked  # changes without aim are no attack
    systems, held = {}, {}
    for name, right in {**answers.right, "routed": routed}.items():
        held[name] = np.ones(len(sources), dtype=bool)
        np.logical_and.at(held[name], where[judged_by], right[judged_by])
        systems[name] = _judged(answers, right, natural) | {"union": share(int(held[name].sum()), len(sources))}
    best = max(answers.right, key=lambda name: int(held[name].sum()))
    by_mean = max(answers.right, key=lambda name: float(systems[name]["mean"]))
    gap = held["routed"].astype(float) - held[best]
    rng = stream(seed, "routing")
    drawn = [float(gap[rng.integers(0, len(gap), len(gap))].mean()) for _ in range(DRAWS)]
    return {
        "systems": systems,
        "lead": {
            "union": {"over": best, "lead": round(float(gap.mean()), 6),
                      "low": round(float(np.quantile(drawn, 0.025)), 6),
                      "high": round(float(np.quantile(drawn, 0.975)), 6)},
            "mean": {"over": by_mean, "lead": round(systems["routed"]["mean"] - systems[by_mean]["mean"], 6)},
        },
        "rejected": {
            "clean": share(int(rejected[natural].sum()), int(natural.sum())),
            "attacked": share(int(rejected[answers.attacked].sum()), int(answers.attacked.sum())),
        },
    }  # fmt: skip


def _judged(answers: Answers, right: np.ndarray, natural: np.ndarray) -> dict[str, Any]:
    kinds = {str(kind): answers.kinds == kind for kind in np.unique(answers.kinds[answers.attacked])}
    return {
        "clean": share(int(right[natural].sum()), int(natural.sum())),
        "mean": round(float(np.mean([right[rows].mean() for rows in kinds.values()])), 6),
        "kinds": {kind: share(int(right[rows].sum()), int(rows.sum())) for kind, rows in kinds.items()},
    }
