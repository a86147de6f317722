"""Which operations are worth carrying out on windows, reckoned before the first candidate."""

from __future__ import annotations

import torch

from heatprint.models.sparse.graph import Operation, needed_sides
from heatprint.models.sparse.windows import Window, of_pixels, reached, union

DENSE_FROM = 0.85  # share of active cells from which a whole map costs no more


class Plan:
    """How far changes reach in a network.

    Args:
        operations: The network's operations.
        size: Side of its images.

    Attributes:
        shares: By operation, the share of its output's cells that one changed pixel, anywhere on the image,
            reaches on average.
        floats: Values a candidate with one changed pixel alters, or that are computed on whole maps.
        multiplications: Of a whole forward pass.
        gain: How many times fewer of them a candidate with one changed pixel costs.
    """

    def __init__(self, operations: list[Operation], size: int) -> None:
        self._operations = operations
        self._by_name = {o.node.name: o for o in operations}
        self._sides = needed_sides(operations)
        self.shares = self._expected_shares(size)
        self._sparse: dict[int, dict[str, bool]] = {}
        sparse = self.sparse(1)
        self.floats = sum(o.floats * (self.shares[o.node.name] if sparse[o.node.name] else 1) for o in operations)
        self.multiplications, spent = self._costs()
        self.gain = self.multiplications / spent if spent else 1.0

    def sparse(self, edits: int) -> dict[str, bool]:
        """Which operations are carried out on windows when `edits` pixels change; the rest see whole maps."""
        if edits not in self._sparse:
            found: dict[str, bool] = {}
            for operation in self._operations:
                able = operation.kind != "dense" and all(found[name] for name in operation.inputs)
                if able and operation.kind == "conv":  # the rest costs next to nothing, and goes with its input
                    share = min(self.shares[name] for name in (operation.node.name, *operation.inputs))
                    able = 1 - (1 - share) ** edits < DENSE_FROM
                found[operation.node.name] = able
            self._sparse[edits] = found
        return self._sparse[edits]

    def window(self, operation: Operation, inputs: list[Window]) -> Window:
        """The cells of an operation's output that can change, from those of its inputs."""
        reach = operation.reach
        if reach is not None and not reach.pointwise:
            return reached(inputs[0], reach, operation.side, self._sides[operation.node.name])
        window = inputs[0]
        for other in inputs[1:]:
            window = union(window, other)
        return window

    def _expected_shares(self, size: int) -> dict[str, float]:
        # a pixel's window is as high as its row decides and as wide as its column does, and both alike: the pixels
        # of the diagonal show every height, and the mean area is the square of the mean height
        diagonal = torch.arange(size)[:, None, None].expand(size, 1, 2)
        windows: dict[str, Window] = {}
        shares = {}
        for operation in self._operations:
            name = operation.node.name
            if operation.kind == "dense" or any(read not in windows for read in operation.inputs):
                shares[name] = 1.0
                continue
            first = operation.kind == "input"
            windows[name] = (
                of_pixels(diagonal, operation.side)
                if first
                else self.window(operation, [windows[read] for read in operation.inputs])
            )
            counts = torch.bincount(windows[name].owner[1:], minlength=size).double()
            shares[name] = float(counts.sqrt().mean().square() / operation.cells)
        return shares

    def _costs(self) -> tuple[float, float]:
        """Multiplications of a whole forward pass, and of a candidate."""
        sparse, whole, spent = self.sparse(1), 0.0, 0.0
        for operation in self._operations:
            weight = getattr(operation.module, "weight", None)
            if weight is None or weight.ndim not in (2, 4):
                continue
            cost = float(weight.numel()) * operation.cells
            before = self._by_name[operation.inputs[0]]
            rows = self.shares[before.node.name] * before.cells / operation.cells  # input rows per output cell
            whole += cost
            spent += cost * min(rows, self.shares[operation.node.name]) if sparse[operation.node.name] else cost
        return whole, spent
