"""For the author of a method: checks of the contract its room expects, and models whose answers are known.

    from heatprint.testing import check_attack
    check_attack(MyAttack(eps=4 / 255))

Every check raises `BrokenContract` with what was expected and what came.
"""

from heatprint.testing.defences import check_defence
from heatprint.testing.methods import (
    check_attack,
    check_clusterer,
    check_detector,
    check_embedder,
    check_explainer,
    check_signer,
)
from heatprint.testing.victims import (
    Linear,
    Residual,
    labelled_batch,
    linear_classifier,
    small_classifier,
    two_strategies,
)

__all__ = [
    "Linear",
    "Residual",
    "check_attack",
    "check_clusterer",
    "check_defence",
    "check_detector",
    "check_embedder",
    "check_explainer",
    "check_signer",
    "labelled_batch",
    "linear_classifier",
    "small_classifier",
    "two_strategies",
]
