"""How each PyTorch operation is put on the tape, one file per kind.

A handler is ``handler(tape, watch, func, args, kwargs)``: it runs the operation and records how it shares relevance.
With ``watch`` it can run an operation as several others that are watched themselves. Every table maps PyTorch
functions to handlers; `OPERATORS` is all of them.
"""

from heatprint.explainers.lrp.operators import attention, elementwise, kernels, normalise, routing

IN_PLACE = elementwise.IN_PLACE

OPERATORS = {**routing.TABLE, **elementwise.TABLE, **normalise.TABLE, **attention.TABLE, **kernels.TABLE}

LIKE, LIKE_OTHER = routing.LIKE, routing.LIKE_OTHER

__all__ = ["IN_PLACE", "LIKE", "LIKE_OTHER", "OPERATORS"]
