from . import atlas as atlas
from . import attacks as attacks
from . import core as core
from . import data as data
from . import defences as defences
from . import detectors as detectors
from . import evaluation as evaluation
from . import explainers as explainers
from . import export as export
from . import live as live
from . import models as models
from . import report as report
from . import signatures as signatures
from . import study as study
from .attacks.door import attack as attack
from .core.values import Batch as Batch
from .defences.door import defend as defend
from .evaluation.arms import evaluate as evaluate
from .explainers.door import explain as explain
from .signatures.door import cluster as cluster
from .signatures.door import embed as embed
from .signatures.door import sign as sign

__version__: str
