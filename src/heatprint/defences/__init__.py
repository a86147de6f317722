"""Floor 4: defences: Classifier to Classifier."""

from heatprint.core.protocols import Defence
from heatprint.core.registry import Registry
from heatprint.defences.door import defend

DEFENCES: Registry[Defence] = Registry(
    "defences",
    {
        "contractive": "heatprint.defences.contractive:Contractive",
        "denoise": "heatprint.defences.denoise:Denoise",
        "distil": "heatprint.defences.distil:Distil",
        "dropout": "heatprint.defences.dropout:Dropout",
        "ensemble": "heatprint.defences.ensemble:Ensemble",
        "fast": "heatprint.defences.adversarial.fast:FastTraining",
        "free": "heatprint.defences.adversarial.free:FreeTraining",
        "mart": "heatprint.defences.adversarial.mart:MART",
        "mixed": "heatprint.defences.adversarial.mixed:MixedTraining",
        "pgd": "heatprint.defences.adversarial.pgd:PGDTraining",
        "regenerate": "heatprint.defences.regenerate:Regenerate",
        "retrain": "heatprint.defences.retrain:Retrain",
        "smoothing": "heatprint.defences.smoothing:Smoothing",
        "trades": "heatprint.defences.adversarial.trades:TRADES",
        "transform": "heatprint.defences.transform:Transform",
    },
)

make, names = DEFENCES.make, DEFENCES.names

__all__ = ["DEFENCES", "defend", "make", "names"]
