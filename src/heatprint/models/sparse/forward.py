"""The sparse forward: logits of images with a few recoloured pixels, computing only what the change reaches.

The clean activations of an image are computed once and held. A recoloured pixel then alters a small window of each
early map, and only that window is pushed through the network, as differences; from the layer on where a change
reaches most of a map, whole activations are computed as usual. Exact up to float rounding, for networks of
convolutions, batch norm, elementwise activations, pooling, sums and concatenations (docs/decisions/0008).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import Unsupported
from heatprint.core.limits import share_threads
from heatprint.models.sparse import steps
from heatprint.models.sparse.graph import Kind, Operation, operations
from heatprint.models.sparse.plan import Plan
from heatprint.models.sparse.record import activations, attribute, last_uses, shapes, trace
from heatprint.models.sparse.steps import Conv, Rows
from heatprint.models.sparse.windows import Reach, Window, of_pixels

HELD_BYTES = 1 << 30  # clean activations kept at one time
HELD_IMAGES = 64
RECORDED = 8  # images of one whole forward pass
CANDIDATE_FLOATS = 1 << 25  # altered values of one chunk of candidates
CANDIDATES = (16, 128)  # least and most of a chunk: the altered values of more do not fit the cache

Step = Callable[[Operation, list[Rows], Window], Tensor]


class SparseForward:
    """A classifier's sparse forward.

    Args:
        classifier: On the CPU, in float32.

    Attributes:
        classifier: The classifier.
        capacity: Images whose clean activations fit in memory.
        multiplications: Of a whole forward pass.
        gain: How many times fewer of them one recoloured pixel costs.

    Raises:
        Unsupported: The network cannot be traced, or too little of it has a sparse form; the message says why.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._traced = trace(classifier)
        self._operations = operations(self._traced, shapes(self._traced, classifier))
        share_threads()
        self._last_use = last_uses([o.node for o in self._operations])
        self._plan = Plan(self._operations, classifier.size)
        sparse = self._plan.sparse(1)
        if sum(sparse[o.node.name] for o in self._operations if o.kind == "conv") < 2:
            raise Unsupported(f"fewer than two of its convolutions have a sparse form{self._blocked(sparse)}")
        self._convs = {
            o.node.name: Conv(cast(nn.Conv2d, o.module).weight, cast(Reach, o.reach))
            for o in self._operations
            if o.kind == "conv"
        }
        self._recorded = {o.node.name for o in self._operations if sparse[o.node.name]}
        size = 4 * sum(o.floats for o in self._operations if o.node.name in self._recorded)
        self.capacity = max(1, min(HELD_IMAGES, HELD_BYTES // size))
        (output,) = next(n for n in self._traced.graph.nodes if n.op == "output").all_input_nodes
        self._output = output.name
        self.gain, self.multiplications = self._plan.gain, self._plan.multiplications
        self._steps: dict[Kind, Step] = {
            "conv": lambda o, read, after: self._convs[o.node.name](read[0].delta, read[0].window, after),
            "average": lambda o, read, after: steps.average_pool(
                read[0].delta, read[0].window, after, cast(Reach, o.reach)
            ),
            "scale": lambda o, read, after: read[0].delta * steps.scale(cast(nn.BatchNorm2d, o.module)),
            "pointwise": lambda o, read, after: steps.pointwise(
                read[0], cast("Callable[[Tensor], Tensor]", o.function)
            ),
            "add": lambda o, read, after: steps.added(read[0], read[-1], after),
            "subtract": lambda o, read, after: steps.added(read[0], read[-1], after, sign=-1.0),
            "cat": lambda o, read, after: steps.concatenated(read, after),
            "same": lambda o, read, after: read[0].delta,
        }

    def __call__(self, images: Tensor, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """Logits [M, K] of attacked images with some pixels recoloured; see `Session`, which remembers the images."""
        return self.session(images)(rows, places, colours)

    def session(self, images: Tensor) -> Session:
        """The sparse forward of these images, float32 [N, 3, H, W] in [0, 1]."""
        return Session(self, images)

    def record(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The clean activations that candidates of these images start from, by name."""
        return activations(self._traced, self.classifier.normalise(images), self._recorded)

    def chunk(self, edits: int) -> int:
        """How many candidates of so many edits to compute at one time."""
        least, most = CANDIDATES
        return max(least, min(most, int(CANDIDATE_FLOATS // (self._plan.floats * edits))))

    def _blocked(self, sparse: dict[str, bool]) -> str:
        """The first operation that has no sparse form although what it reads has one, in words."""
        for operation in self._operations:
            if operation.kind == "dense" and any(sparse[name] for name in operation.inputs):
                module = operation.module
                return (
                    f": {operation.node.name} ({type(module).__name__ if module else operation.node.target}) has none"
                )
        return ""

    @torch.no_grad()
    def run(self, held: dict[str, Tensor], slots: Tensor, places: Tensor, deltas: Tensor) -> Tensor:
        """Logits of one chunk, from the clean activations held.

        Args:
            held: Clean activations by name, [S, H * W, C].
            slots: Which of them each candidate starts from, int64 [M].
            places: int64 [M, d, 2].
            deltas: How each edit moves the network's input, [M, d, 3].
        """
        sparse = self._plan.sparse(places.shape[1])
        values: dict[str, Rows | Tensor] = {}
        for index, operation in enumerate(self._operations):
            name = operation.node.name
            if not sparse[name]:
                values[name] = self._whole(operation, values)
            elif operation.kind == "input":
                window = of_pixels(places, operation.side)
                delta = steps.painted(window, places, deltas)
                values[name] = Rows(delta=delta, window=window, clean=held[name], slots=slots)
            else:
                read = [cast(Rows, values[n]) for n in operation.inputs]
                after = self._plan.window(operation, [r.window for r in read])
                if operation.kind == "max":
                    delta = steps.max_pool(read[0], after, cast(Reach, operation.reach), held[name])
                else:
                    delta = self._steps[operation.kind](operation, read, after)
                values[name] = Rows(delta=delta, window=after, clean=held[name], slots=slots)
            for done in self._last_use[index]:
                values.pop(done, None)
        return cast(Tensor, values[self._output])

    def _whole(self, operation: Operation, values: dict[str, Rows | Tensor]) -> Tensor:
        """One operation on whole activations, as the network itself does it."""

        def ready(argument: fx.Node) -> Any:
            if argument.op == "get_attr":
                return attribute(self._traced, str(argument.target))
            value = values[argument.name]
            if isinstance(value, Rows):
                value = steps.dense(value).contiguous(memory_format=self.classifier.memory_format)
                values[argument.name] = value
            return value

        node = operation.node
        args, kwargs = fx.node.map_arg(node.args, ready), fx.node.map_arg(node.kwargs, ready)
        if operation.module is not None:
            return cast(Tensor, operation.module(*args, **kwargs))
        if node.op == "call_method":
            return cast(Tensor, getattr(args[0], str(node.target))(*args[1:], **kwargs))
        return cast("Callable[..., Tensor]", node.target)(*args, **kwargs)


class Session:
    """A sparse forward with the images it is asked about, and their clean activations as far as memory allows.

    Args:
        forward: The classifier's sparse forward; several sessions may use one.
        images: All attacked images, float32 [N, 3, H, W] in [0, 1]; they must not change while it lives.
    """

    def __init__(self, forward: SparseForward, images: Tensor) -> None:
        self._forward = forward
        self._images = images
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._held: dict[str, Tensor] = {}

    def __call__(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """Logits [M, K] of the images with some pixels recoloured.

        Args:
            rows: Which image each candidate starts from, int64 [M].
            places: int64 [M, d, 2], row and column.
            colours: float32 [M, d, 3] in [0, 1]. Of two edits of one pixel the last counts.
        """
        classifier = self._forward.classifier
        share_threads()
        out = torch.empty((len(rows), len(classifier.classes)))
        for part in torch.split(torch.arange(len(rows)), self._forward.chunk(places.shape[1])) if len(rows) else ():
            for some in self._groups(rows[part]):
                here = part[some]
                slots = self._hold(rows[here])
                old = self._images.permute(0, 2, 3, 1)[rows[here, None], places[here, :, 0], places[here, :, 1]]
                deltas = (colours[here] - old) / torch.tensor(classifier.std)
                out[here] = self._forward.run(self._held, slots, places[here], deltas)
        return out

    def _groups(self, rows: Tensor) -> list[Tensor]:
        """Candidates in groups whose images can be held together."""
        _, number = torch.unique(rows, return_inverse=True)
        groups = int(number.max()) // self._forward.capacity + 1
        return [(number // self._forward.capacity == g).nonzero().squeeze(1) for g in range(groups)]

    def _hold(self, rows: Tensor) -> Tensor:
        """Slots of the clean activations of rows, int64 [M], computed now where they are not held."""
        wanted, capacity = torch.unique(rows).tolist(), self._forward.capacity
        for row in wanted:
            if row in self._slots:
                self._slots.move_to_end(row)
        missing = [row for row in wanted if row not in self._slots]
        for row in missing:
            full = len(self._slots) >= capacity
            self._slots[row] = self._slots.popitem(last=False)[1] if full else len(self._slots)
        for start in range(0, len(missing), RECORDED):
            part = missing[start : start + RECORDED]
            for name, value in self._forward.record(self._images[part]):
                if name not in self._held:
                    self._held[name] = torch.empty((min(capacity, len(self._images)), *value.shape[1:]))
                self._held[name][[self._slots[row] for row in part]] = value
        return torch.tensor([self._slots[row] for row in rows.tolist()])
