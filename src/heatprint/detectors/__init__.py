"""Floor 4: detectors. Was this image attacked, by which attack, and at which pixel?

A detector learns what sets attacked images apart; `fit` is the door that checks, calibrates and keeps it. `Identifier`
names the attack, `locate` the pixel.
"""

from pathlib import Path

from heatprint.core.registry import Registry
from heatprint.detectors.door import Detector, Method, fit
from heatprint.detectors.door import load as load_detector
from heatprint.detectors.examples import Examples
from heatprint.detectors.families import FAMILIES
from heatprint.detectors.identifier import Identified, Identifier
from heatprint.detectors.locator import Located, locate

DETECTORS: Registry[Method] = Registry(
    "detectors",
    {
        "auxiliary": "heatprint.detectors.published.auxiliary:Auxiliary",
        "bayesian": "heatprint.detectors.published.bayesian:Bayesian",
        "deep-ensemble": "heatprint.detectors.published.deep_ensemble:DeepEnsemble",
        "heat-print": "heatprint.detectors.heat_print:HeatPrint",
        "heat-print-one-class": "heatprint.detectors.one_class:OneClassPrint",
        "lid": "heatprint.detectors.published.lid:LID",
        "mahalanobis": "heatprint.detectors.published.mahalanobis:Mahalanobis",
        "ml-loo": "heatprint.detectors.published.ml_loo:MLLOO",
        "reconstruction": "heatprint.detectors.published.reconstruction:Reconstruction",
        "shap-signature": "heatprint.detectors.published.shap_signature:SHAPSignatureDetector",
        "squeezing": "heatprint.detectors.published.squeezing:SqueezingDetector",
    },
)

make, names = DETECTORS.make, DETECTORS.names


def load(folder: str | Path) -> Detector:
    """A detector that `Detector.save` wrote.

    Raises:
        StoreError: The folder holds no detector, a damaged one, or one of a newer version.
    """
    return load_detector(folder, DETECTORS)


__all__ = [
    "DETECTORS",
    "FAMILIES",
    "Detector",
    "Examples",
    "Identified",
    "Identifier",
    "Located",
    "Method",
    "fit",
    "load",
    "locate",
    "make",
    "names",
]
