"""Products with one fixed matrix, brought once into the order in which the processor reads it.

oneDNN multiplies by a packed matrix 1.1 to 1.5 times as fast as torch's own product by a plain one (measured on one
and two cores, docs/decisions/0008). torch offers packing through operators that its compiler uses and that carry no
promise; where they are missing, or differ, the plain product takes their place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor], Tensor]
STRIDE = 64
ROWS = 1024  # of one product: more of its results would not stay in the cache
PACK_FROM = 1 << 19  # values of the matrix; for smaller ones torch's own product is as fast


def times(matrix: Tensor) -> Product:
    """The function rows [N, K] -> rows @ matrix, for a matrix float32 [K, M] that never changes."""
    plain = matrix.contiguous()
    packed = _packed(plain)
    if packed is None:
        return lambda rows: rows @ plain
    return packed


def _packed(matrix: Tensor) -> Product | None:
    operators = torch.ops.mkldnn
    if matrix.numel() < PACK_FROM or not hasattr(operators, "_linear_pointwise"):
        return None
    try:
        weight = operators._reorder_linear_weight(matrix.T.contiguous(), ROWS)

        def product(rows: Tensor) -> Tensor:
            # oneDNN compiles code for every number of rows it meets: let it meet few
            padded = F.pad(rows, (0, 0, 0, -len(rows) % STRIDE))
            found: Tensor = operators._linear_pointwise(padded, weight, None, "none", [], "")
            return found[: len(rows)]

        probe = torch.linspace(-1, 1, 2 * len(matrix)).view(2, -1)
        agree = torch.allclose(product(probe), probe @ matrix, atol=1e-4 * float(matrix.abs().sum(0).max()))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return product if agree else None
