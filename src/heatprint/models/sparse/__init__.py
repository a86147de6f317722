"""The sparse forward: logits of images with a few recoloured pixels at a fraction of a forward pass."""

from heatprint.models.sparse.check import sparse_forward
from heatprint.models.sparse.forward import Session, SparseForward

__all__ = ["Session", "SparseForward", "sparse_forward"]
