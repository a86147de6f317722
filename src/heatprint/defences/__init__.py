"""Floor 4: defences: Classifier to Classifier."""

from heatprint.core.protocols import Defence
from heatprint.core.registry import Registry
from heatprint.defences.door import defend

DEFENCES: Registry[Defence] = Registry(
    "defences",
    {
        "fast": "heatprint.defences.adversarial.fast:FastTraining",
        "free": "heatprint.defences.adversarial.free:FreeTraining",
        "mart": "heatprint.defences.adversarial.mart:MART",
        "mixed": "heatprint.defences.adversarial.mixed:MixedTraining",
        "pgd": "heatprint.defences.adversarial.pgd:PGDTraining",
        "regenerate": "heatprint.defences.regenerate:Regenerate",
        "retrain": "heatprint.defences.retrain:Retrain",
        "trades": "heatprint.defences.adversarial.trades:TRADES",
    },
)

make, names = DEFENCES.make, DEFENCES.names

__all__ = ["DEFENCES", "defend", "make", "names"]
