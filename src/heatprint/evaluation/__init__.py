"""Floor 5: what an attack did and what a defence bought, counted."""

from heatprint.evaluation.arms import Arm, evaluate
from heatprint.evaluation.attacks import attack_summary
from heatprint.evaluation.shares import share

__all__ = ["Arm", "attack_summary", "evaluate", "share"]
