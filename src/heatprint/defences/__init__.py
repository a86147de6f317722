"""Floor 4: defences: Classifier to Classifier."""

from heatprint.core.protocols import Defence
from heatprint.core.registry import Registry
from heatprint.defences.door import defend

DEFENCES: Registry[Defence] = Registry("defences", {"retrain": "heatprint.defences.retrain:Retrain"})

make, names = DEFENCES.make, DEFENCES.names

__all__ = ["DEFENCES", "defend", "make", "names"]
