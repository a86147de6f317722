"""Attacks on the detector itself, by one who knows it: what a detector is worth is decided here.

`adaptive` runs them all and puts AUROC before and after beside each other.
"""

from heatprint.evaluation.adaptive.confident import Confident
from heatprint.evaluation.adaptive.explanation import KeepExplanation
from heatprint.evaluation.adaptive.guarded import Guarded, study
from heatprint.evaluation.adaptive.joint import Joint
from heatprint.evaluation.adaptive.orthogonal import Orthogonal
from heatprint.evaluation.adaptive.stand_in import StandIn
from heatprint.evaluation.adaptive.table import adaptive, attacks
from heatprint.evaluation.adaptive.taken_for import TakenFor
from heatprint.evaluation.adaptive.undone import Undone
from heatprint.evaluation.adaptive.walk import Adaptive, Evaded, Walk

__all__ = [
    "Adaptive",
    "Confident",
    "Evaded",
    "Guarded",
    "Joint",
    "KeepExplanation",
    "Orthogonal",
    "StandIn",
    "TakenFor",
    "Undone",
    "Walk",
    "adaptive",
    "attacks",
    "study",
]
