"""Can a map be trusted? Measures of explanations; `check` runs them all beside maps that know nothing."""

from heatprint.explainers.ranks import spearman
from heatprint.explainers.trust.bootstrap import Interval, interval, paired_verdict
from heatprint.explainers.trust.check import Checked, Row, check
from heatprint.explainers.trust.pointing import pointing_game, share_inside
from heatprint.explainers.trust.randomisation import Randomisation, randomisation, randomised
from heatprint.explainers.trust.removal import deletion, insertion, pixel_flipping, removal_curve
from heatprint.explainers.trust.rivals import Edges, edge_map, random_map
from heatprint.explainers.trust.road import road
from heatprint.explainers.trust.similarity import ssim
from heatprint.explainers.trust.sparseness import gini, top_share
from heatprint.explainers.trust.stability import Stability, stability

__all__ = [
    "Checked",
    "Edges",
    "Interval",
    "Randomisation",
    "Row",
    "Stability",
    "check",
    "deletion",
    "edge_map",
    "gini",
    "insertion",
    "interval",
    "paired_verdict",
    "pixel_flipping",
    "pointing_game",
    "random_map",
    "randomisation",
    "randomised",
    "removal_curve",
    "road",
    "share_inside",
    "spearman",
    "ssim",
    "stability",
    "top_share",
]
