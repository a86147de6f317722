"""Families of features: what is measured of an image to tell whether it was attacked."""

from heatprint.core.registry import Registry
from heatprint.detectors.features.family import Family

FEATURES: Registry[Family] = Registry(
    "features",
    {
        "appearance": "heatprint.detectors.features.appearance:Appearance",
        "compression": "heatprint.detectors.features.compression:Compression",
        "dropout": "heatprint.detectors.features.dropout:Dropout",
        "image": "heatprint.detectors.features.image:Image",
        "key": "heatprint.detectors.features.key:Key",
        "margin": "heatprint.detectors.features.margin:Margin",
        "signature": "heatprint.detectors.features.signature:Signature",
        "squeezing": "heatprint.detectors.features.squeezing:Squeezing",
        "undo": "heatprint.detectors.features.undo:Undo",
    },
)

make, names = FEATURES.make, FEATURES.names

__all__ = ["FEATURES", "Family", "make", "names"]
