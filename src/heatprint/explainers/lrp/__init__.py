"""Layer-wise relevance propagation: one forward pass on a tape, one sweep back over it.

Read in this order: `propagate` (the two passes), `watch` and `operators` (what goes on the tape), `rules` and
`composite` (how kernels share), `sweep` (the way back), `presets` (the named composites).
"""

from heatprint.explainers.lrp.composite import Composite, Line
from heatprint.explainers.lrp.propagate import Propagated, every_class, propagate

__all__ = ["Composite", "Line", "Propagated", "every_class", "propagate"]
