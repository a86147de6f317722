"""The tape of one forward pass: every operation with the rule by which it shares relevance.

The tape names tensors by numbers and holds them weakly: it keeps alive only what a rule will read, so that one
explanation needs hardly more memory than one gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from heatprint.core.errors import Unsupported
from heatprint.core.values import PlanLine
from heatprint.explainers.lrp.composite import Composite

Share = Callable[..., Sequence[Tensor | None]]
"""Relevance of the outputs (None where there is none) to relevance of the inputs."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operation on the tape.

    Attributes:
        name: The layer's name, unique on the tape.
        inputs: Numbers of the tensors that receive relevance.
        outputs: Numbers of the tensors it comes from.
        share: The rule.
        keeps: Whether relevance passes unchanged in sum by construction, so that it need not be added up.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    share: Share
    keeps: bool = False


class Tape:
    """What a forward pass leaves behind for the sweep.

    Args:
        network: Whose parameters name the layers.
        composite: The rules of the kernels.
        differentiable: Whether relevance shall be differentiable; then everything stays on the autograd graph.
    """

    def __init__(self, network: nn.Module, composite: Composite, differentiable: bool) -> None:
        self.composite = composite
        self.differentiable = differentiable
        self.nodes: list[Node] = []
        self.plan: list[PlanLine] = []
        self.kernels: list[tuple[str, int]] = []  # name, and the number of the input
        self._nonnegative: set[int] = set()
        self._gates: set[int] = set()
        self._layers = {id(p): name.rpartition(".")[0] for name, p in network.named_parameters()}
        self._numbers = WeakTensorKeyDictionary()
        self._instead = WeakTensorKeyDictionary()  # after an operation in place: the tensor that holds the new value
        self._stale = WeakTensorKeyDictionary()
        self._count = 0
        self._names: dict[str, int] = {}
        self._inside = "input"
        self._raw: set[int] = set()

    def start(self, inputs: Tensor) -> int:
        """Put the network's input on the tape."""
        self._raw.add(number := self._number(inputs))
        return number

    def carries(self, value: Any) -> bool:
        """Whether relevance can flow through a value."""
        return isinstance(value, Tensor) and (value in self._numbers or value in self._instead or value in self._stale)

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor on the tape."""
        return int(self._numbers[tensor])

    def is_raw(self, tensor: Tensor) -> bool:
        """Whether a tensor is the network's input, perhaps reshaped."""
        return self.number(tensor) in self._raw

    def is_gate(self, tensor: Tensor) -> bool:
        """Whether a tensor is the value of a gate, perhaps reshaped."""
        return self.number(tensor) in self._gates

    def is_nonnegative(self, tensor: Tensor) -> bool:
        """Whether a tensor is known to have no negative value, without looking at them."""
        return self.number(tensor) in self._nonnegative

    def record(
        self,
        operator: str,
        rule: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        share: Share,
        *,
        weight: Tensor | None = None,
        keeps: bool = False,
        epsilon: float | None = None,
        bias: str = "",
    ) -> Node:
        """Put an operation on the tape.

        Args:
            operator: What it is.
            rule: How it shares.
            inputs: Tensors on the tape.
            outputs: New tensors.
            share: See `Share`.
            weight: The parameter by which the layer is named; without it the operation is named after the last
                layer that was entered.
            keeps: See `Node`.
            epsilon: Of the rule.
            bias: Bias mode of the rule.
        """
        name = self._named(operator, weight)
        numbers = tuple(self.number(t) for t in inputs)
        node = Node(name, numbers, tuple(self._number(t) for t in outputs), share, keeps)
        self.nodes.append(node)
        self.plan.append(PlanLine(layer=name, operator=operator, rule=rule, epsilon=epsilon, bias=bias))
        return node

    def mark(
        self, outputs: Sequence[Tensor], *, raw: bool = False, nonnegative: bool = False, gate: bool = False
    ) -> None:
        """Note what is known of new tensors."""
        numbers = {self.number(t) for t in outputs}
        self._raw |= numbers if raw else set()
        self._nonnegative |= numbers if nonnegative else set()
        self._gates |= numbers if gate else set()

    def layer_of(self, weight: Tensor | None) -> str:
        """The name of the module a parameter belongs to, or nothing."""
        if weight is not None and id(weight) not in self._layers and weight._base is not None:
            weight = weight._base  # attention keeps three projections in one parameter
        return self._layers.get(id(weight), "")

    def replace(self, old: Tensor, new: Tensor) -> None:
        """From now on `old`, which an operation in place has changed, means `new`."""
        if old not in self._numbers and old._is_view():
            raise Unsupported(
                "lrp: an operation in place writes an activation into a part of a constant, which relevance cannot "
                "follow. Write it out of place, with torch.cat or torch.stack."
            )
        place = _storage(old)
        for other in list(self._numbers):
            if other is not old and other is not new and _storage(other) == place:
                self._stale[other] = True
        self._instead[old] = new

    def current(self, value: Any) -> Any:
        """A value, or a structure of values, as it is after operations in place."""
        if isinstance(value, Tensor):
            if value in self._stale:
                raise Unsupported(
                    "lrp: a tensor is read after an operation in place changed it through a view, which relevance "
                    "cannot follow. Write the operation out of place (x = x + y instead of x += y)."
                )
            while value in self._instead:
                value = self._instead[value]
            return value
        if isinstance(value, tuple | list):
            items = [self.current(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            return {key: self.current(item) for key, item in value.items()}
        return value

    def _number(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[tensor] = self._count
        return self._count

    def _named(self, operator: str, weight: Tensor | None) -> str:
        if weight is not None:
            self._inside = name = self.layer_of(weight) or operator
        else:
            name = f"{self._inside}/{operator}"
        self._names[name] = uses = self._names.get(name, 0) + 1
        return f"{name}#{uses}" if uses > 1 else name


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def local(
    tape: Tape, run: Callable[..., Any], inputs: Sequence[Tensor]
) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """Run an operation whose Jacobian does not depend on its inputs' values, except through choices it makes.

    Returns:
        Its ordinary outputs, on the autograd graph where the tape is differentiable, and the map from gradients of
        the outputs to gradients of the inputs (the vector-Jacobian product).
    """
    with torch.enable_grad():
        twins = [t.detach().to(_wide(t.dtype)).requires_grad_() for t in inputs]
        found = run(*twins)
    outputs = [o for o in (found if isinstance(found, tuple | list) else [found]) if o.requires_grad]

    def pull(*gradients: Tensor | None) -> tuple[Tensor, ...]:
        given = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None]
        return torch.autograd.grad(
            [o for o, _ in given], twins, [g for _, g in given],
            create_graph=torch.is_grad_enabled(), retain_graph=True, materialize_grads=True,
        )  # fmt: skip

    if tape.differentiable or any(t.dtype != w.dtype for t, w in zip(inputs, twins, strict=True)):
        return run(*inputs), pull
    return _detached(found), pull


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _detached(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.detach()
    items = [item.detach() for item in found]
    return items if isinstance(found, list) else type(found)(items)
