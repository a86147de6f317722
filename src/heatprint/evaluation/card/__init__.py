"""The report card: can the usual attacks be believed about this classifier?

`card` is the door; `runs` makes each attack once, the other files hold the checks.
"""

from heatprint.evaluation.card.door import CHECKS, QUICK, Card, card
from heatprint.evaluation.card.findings import Check, Finding, Verdict
from heatprint.evaluation.card.runs import Runs
from heatprint.evaluation.card.settings import Effort, ThreatModel

__all__ = ["CHECKS", "QUICK", "Card", "Check", "Effort", "Finding", "Runs", "ThreatModel", "Verdict", "card"]
