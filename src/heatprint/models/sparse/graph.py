"""A network as a list of operations, each with what the sparse forward has to know about it.

Found by tracing, so that functional calls, residual sums and third-party modules are seen; an operation without a
sparse form is carried out on whole activations, and so is everything after it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from heatprint.core.errors import Unsupported
from heatprint.models.sparse.windows import Pair, Reach

Kind = Literal["input", "conv", "scale", "pointwise", "max", "average", "add", "subtract", "cat", "same", "dense"]

POINTWISE_MODULES = (
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Mish,
)
POINTWISE_FUNCTIONS: tuple[Callable[..., Tensor], ...] = (
    *(torch.relu, torch.sigmoid, torch.tanh),
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.sigmoid, F.tanh),
)
POINTWISE_METHODS = ("relu", "relu_", "sigmoid", "tanh")
POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
SUBTRACTIONS = (operator.sub, operator.isub, torch.sub, "sub", "sub_")


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One node of the traced network.

    Attributes:
        node: The node itself; calls the original operation where it is carried out on whole activations.
        kind: Its sparse form.
        inputs: Names of the activations it reads.
        shape: Of its output, without the batch axis.
        reach: How a convolution or pooling reads its input.
        module: The module behind it, if there is one.
        function: Elementwise function.
    """

    node: fx.Node
    kind: Kind
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    reach: Reach | None = None
    module: nn.Module | None = None
    function: Callable[[Tensor], Tensor] | None = None

    @property
    def side(self) -> Pair:
        """(H, W) of its output map."""
        return self.shape[1], self.shape[2]

    @property
    def cells(self) -> int:
        """Cells of its output map; 1 for a vector."""
        return math.prod(self.shape[1:])

    @property
    def floats(self) -> int:
        """Values of its output for one image."""
        return math.prod(self.shape)


def needed_sides(found: list[Operation]) -> dict[str, Pair]:
    """How much of each map, from its top left, anything reads: pooling often leaves out the last row and column."""
    needed: dict[str, Pair] = {}
    users: dict[str, list[Operation]] = {}
    for operation in found:
        for name in operation.inputs:
            users.setdefault(name, []).append(operation)
    for operation in reversed(found):
        if len(operation.shape) != 3:
            continue
        read = [_read(user, needed, operation.side) for user in users.get(operation.node.name, [])]
        needed[operation.node.name] = (max(r[0] for r in read), max(r[1] for r in read)) if read else operation.side
    return needed


def _read(user: Operation, needed: dict[str, Pair], side: Pair) -> Pair:
    """How much of an input map of `side` an operation reads to make what is needed of its output."""
    if user.kind == "dense" or user.node.name not in needed:
        return side
    high, wide = needed[user.node.name]
    if user.reach is None:
        return min(high, side[0]), min(wide, side[1])
    ends = [
        (n - 1) * s - p + d * (k - 1) + 1
        for n, s, p, d, k in zip(
            (high, wide), user.reach.stride, user.reach.padding, user.reach.dilation, user.reach.kernel, strict=True
        )
    ]
    return min(ends[0], side[0]), min(ends[1], side[1])


def operations(traced: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> list[Operation]:
    """Every operation up to the output, in order.

    Raises:
        Unsupported: The network's graph has several inputs or outputs, or overwrites what it reads again.
    """
    found: list[Operation] = []
    for node in traced.graph.nodes:
        if node.op in ("output", "get_attr"):
            continue
        if node.op == "placeholder" and found:
            raise Unsupported("it has more than one input")
        _refuse_overwriting(node, traced)
        found.append(_operation(node, traced, shapes))
    return found


def _operation(node: fx.Node, traced: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> Operation:
    shape = shapes[node.name]
    module = _module(node, traced)
    read = node.all_input_nodes
    if node.target in (torch.cat, torch.concat):  # in their order, one of them perhaps twice
        read = list(cast("Sequence[fx.Node]", node.args[0] if node.args else node.kwargs["tensors"]))
    inputs = tuple(n.name for n in read)
    known: dict[str, Any] = {"kind": "dense"}
    if len(shape) == 3 and not any(n.op == "get_attr" for n in node.all_input_nodes):
        known = _known(node, module) or known
    if known["kind"] in ("add", "subtract") and any(shapes[name] != shape for name in inputs):
        known = {"kind": "dense"}  # one of them is stretched
    return Operation(node=node, inputs=inputs, shape=shape, module=module, **known)


def _known(node: fx.Node, module: nn.Module | None) -> dict[str, Any] | None:
    """The sparse form of an operation that yields a feature map, if it has one."""
    if node.op == "placeholder":
        return {"kind": "input"}
    if module is not None:
        return _known_module(module)
    one = len(node.all_input_nodes) == 1
    if one and (node.target in POINTWISE_FUNCTIONS or (node.op == "call_method" and node.target in POINTWISE_METHODS)):
        return {"kind": "pointwise", "function": _bound(node)}
    two = len(node.args) == 2 and all(isinstance(a, fx.Node) for a in node.args) and not node.kwargs
    if two and node.target in ADDITIONS:
        return {"kind": "add"}
    if two and node.target in SUBTRACTIONS:
        return {"kind": "subtract"}
    if node.target in (torch.cat, torch.concat) and _dim(node) == 1:
        return {"kind": "cat"}
    if node.target in (F.max_pool2d, torch.max_pool2d):
        settings: dict[str, Any] = dict(zip(POOL, node.args[1:], strict=False)) | dict(node.kwargs)
        return _known_pool(**{k: v for k, v in settings.items() if k != "input"})
    if node.target is F.dropout and not node.kwargs.get("training", True):
        return {"kind": "same"}
    return None


def _known_module(module: nn.Module) -> dict[str, Any] | None:
    if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
        kernel, dilation, padding = _pair(module.kernel_size), _pair(module.dilation), module.padding
        if isinstance(padding, str):  # "valid" or "same"
            spans = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
            if any(span % 2 for span in spans):
                return None  # one more zero on one side than on the other
            padding = (spans[0] // 2, spans[1] // 2)
        reach = Reach(kernel=kernel, stride=_pair(module.stride), padding=_pair(padding), dilation=dilation)
        return {"kind": "conv", "reach": reach}
    if isinstance(module, nn.MaxPool2d):
        return _known_pool(
            *(module.kernel_size, module.stride, module.padding, module.dilation),
            ceil_mode=module.ceil_mode,
            return_indices=module.return_indices,
        )
    if isinstance(module, nn.AvgPool2d) and not module.ceil_mode and module.divisor_override is None:
        reach = Reach(kernel=_pair(module.kernel_size), stride=_pair(module.stride), padding=_pair(module.padding))
        return {"kind": "average", "reach": reach} if module.count_include_pad or reach.padding == (0, 0) else None
    if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
        return {"kind": "scale"}
    if type(module) is nn.ReLU:  # the sparse forward hands it values of its own: overwriting saves a copy
        return {"kind": "pointwise", "function": torch.relu_}
    if type(module) in POINTWISE_MODULES:
        return {"kind": "pointwise", "function": module}
    if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Identity):
        return {"kind": "same"}
    return None


def _known_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    **rest: Any,
) -> dict[str, Any] | None:
    """Max pooling, by module or function; a window that hangs over the edge sees less than a whole one."""
    del ceil_mode  # decides the size of the output alone
    if return_indices or rest:
        return None
    return {
        "kind": "max",
        "reach": Reach(
            kernel=_pair(kernel_size),
            stride=_pair(kernel_size if stride in (None, []) else stride),
            padding=_pair(padding),
            dilation=_pair(dilation),
        ),
    }


def _bound(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """The elementwise function of a node with its constant arguments."""
    target, rest, named = node.target, node.args[1:], dict(node.kwargs)
    if node.op == "call_method":
        return lambda x: getattr(x, str(target))(*rest, **named)
    assert callable(target)
    named.pop("input", None)
    return lambda x: target(x, *rest, **named)


def _dim(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _refuse_overwriting(node: fx.Node, traced: fx.GraphModule) -> None:
    """An operation that overwrites its input is harmless only where nobody else reads that input.

    Dropout, flattening and the like may return their input itself, so what is read through them is followed back.
    """
    module = _module(node, traced)
    overwrites = (
        getattr(module, "inplace", False)
        or node.kwargs.get("inplace", False)
        or (node.target in POINTWISE_FUNCTIONS and node.args[-1] is True)
        or node.target in (operator.iadd, operator.isub)
        or (node.op == "call_method" and str(node.target).endswith("_"))
    )
    if not overwrites or not node.all_input_nodes:
        return
    read = node.all_input_nodes[0]
    while len(read.users) == 1 and _passes_on(read, traced):
        read = read.all_input_nodes[0]
    if len(read.users) > 1:
        raise Unsupported(f"{node.name} overwrites an activation that is read again")


def _passes_on(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether an operation may return its input, or a view of it."""
    if len(node.all_input_nodes) != 1:
        return False
    passing = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)
    views = ("view", "reshape", "flatten", "permute", "transpose", "contiguous", "squeeze", "unsqueeze")
    return (
        isinstance(_module(node, traced), passing)
        or node.target in (F.dropout, torch.flatten, torch.reshape, torch.permute, torch.transpose)
        or (node.op == "call_method" and node.target in views)
        or node.target is operator.getitem
    )


def _module(node: fx.Node, traced: fx.GraphModule) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None
