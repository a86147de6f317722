"""Inspect adversarial attacks on image classifiers through explainable AI.

Rooms are nouns (`data`, `models`, `attacks`, `explainers`, `signatures`, `defences`, `evaluation`, `atlas`, `study`),
doors are verbs (`attack`, `explain`, `sign`, `embed`, `cluster`, `defend`, `evaluate`, `study`, `report`, `export`).
Importing this package loads neither torch nor anything else that is slow; a room is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
