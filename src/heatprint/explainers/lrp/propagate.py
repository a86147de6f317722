"""Relevance of a network's input, and of any layer, in one forward pass and one sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.values import PlanLine
from heatprint.explainers.lrp.composite import Composite
from heatprint.explainers.lrp.sweep import sweep
from heatprint.explainers.lrp.tape import Tape
from heatprint.explainers.lrp.watch import Watch
from heatprint.explainers.target import weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Propagated:
    """Relevance under a composite.

    Attributes:
        relevance: Of the inputs, in their shape.
        logits: [N, K].
        score: float [N], what the relevance starts from.
        layers: Relevance at the layers asked for.
        plan: The rule of every operation.
        totals: Layer name to the sum of relevance at its output, float [N]; also ``"start"`` and ``"input"``.
        passed: Layer name to the sum it handed on.
    """

    relevance: Tensor
    logits: Tensor
    score: Tensor
    layers: Mapping[str, Tensor]
    plan: tuple[PlanLine, ...]
    totals: Mapping[str, Tensor]
    passed: Mapping[str, Tensor]


def propagate(
    network: nn.Module,
    inputs: Tensor,
    target: Tensor,
    composite: Composite,
    *,
    layers: Sequence[str] = (),
    differentiable: bool = False,
) -> Propagated:
    """Relevance of the inputs; it starts from the logit of each image's target, or from a weighting of its logits.

    Args:
        network: Inputs to logits [N, K]; in evaluation mode.
        inputs: The network's own (normalised) inputs, [N, ...].
        target: Classes, int64 [N], or weights of the logits, float [N, K].
        composite: The rules.
        layers: Names whose outputs' relevance is returned too: as the plan prints them, the name of a block (its
            last layer with the activations and sums that follow it), ``"last"`` for the neurons that the last
            kernel reads, or ``"penultimate"`` for those that the last but one reads.
        differentiable: Keep everything on the autograd graph, so that the result can be differentiated with respect
            to inputs and parameters; costs the memory of the whole graph.

    Returns:
        The relevance, in float32 or better; ``totals`` are NaN where it cannot be told which image a value belongs to.

    Raises:
        InvalidInput: A network in train mode, inputs that are not floating point, a layer that does not exist.
        Unsupported: An operation without a rule; the message names it.
    """
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):  # its tensors cannot be followed
            return propagate(network, inputs, target.clone(), composite, layers=layers, differentiable=differentiable)
    tape, source, logits = _forward(network, inputs, composite, differentiable)
    wanted = {name: _place(tape, name) for name in layers}
    plan = tuple(tape.plan)
    with torch.set_grad_enabled(differentiable):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        start = weights(target, wide) * wide
        flow = sweep(tape, tape.number(logits), start, {source, *wanted.values()}, again=differentiable)
        relevance = flow.kept.get(source, torch.zeros_like(inputs))
    for name, number in wanted.items():
        if number not in flow.kept:
            raise InvalidInput(f"lrp: no relevance reaches layer {name!r}.")
    value = start.sum(1)
    return Propagated(
        relevance=relevance,
        logits=logits,
        score=value,
        layers={name: flow.kept[number] for name, number in wanted.items()},
        plan=plan,
        totals={"start": value.detach(), **flow.totals, "input": relevance.detach().flatten(1).sum(1)},
        passed=dict(reversed(flow.passed.items())),
    )


def every_class(
    network: nn.Module,
    inputs: Tensor,
    composite: Composite,
    *,
    at_once: int = 16,
    layer: str = "input",
    read: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Relevance for every class from one forward pass.

    Args:
        network: Inputs to logits [N, K]; in evaluation mode.
        inputs: The network's own (normalised) inputs, [N, ...].
        composite: The rules.
        at_once: Classes swept together; bounds the memory.
        layer: Where: ``"input"``, or a name as in `propagate`; nothing below it is swept.
        read: What is kept of each class's relevance [N, ...], e.g. a sum over positions, so that K times the whole is
            never held; None for all of it.

    Returns:
        [N, K, ...], the map of each class started from its logit.

    Raises:
        InvalidInput: There is no such layer, or no relevance reaches it.
    """
    tape, source, logits = _forward(network, inputs, composite, False)
    output, wanted = tape.number(logits), source if layer == "input" else _place(tape, layer)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    starts = torch.diag_embed(wide).transpose(0, 1)  # class, image, logit

    def back(start: Tensor) -> Tensor:
        kept = sweep(tape, output, start, {wanted}, again=True).kept
        if wanted not in kept and wanted != source:
            raise InvalidInput(f"lrp: no relevance reaches layer {layer!r}.")
        found = kept.get(wanted, torch.zeros_like(inputs))
        return read(found) if read else found

    with torch.no_grad():
        return torch.vmap(back, out_dims=1, chunk_size=at_once)(starts)


def _forward(
    network: nn.Module, inputs: Tensor, composite: Composite, differentiable: bool
) -> tuple[Tape, int, Tensor]:
    """The tape, the number of the input on it, and the logits."""
    _check(network, inputs)
    tape = Tape(network, composite, differentiable)
    # a tensor of its own, so that the caller's is not on the tape
    leaf = inputs.clone() if inputs.is_inference() else inputs.view_as(inputs)
    source = tape.start(leaf)
    with torch.set_grad_enabled(differentiable), _eager(network), Watch(tape):
        logits = network(leaf)
    logits = tape.current(logits)
    if not tape.carries(logits) or logits.ndim != 2:
        raise Unsupported(
            "lrp: the network must return logits [N, K] computed from its input by PyTorch functions; what came is "
            f"{type(logits).__name__} {list(getattr(logits, 'shape', []))}. A network that returns a tuple or a "
            "dictionary needs a wrapper that picks the logits."
        )
    return tape, source, logits


def _check(network: nn.Module, inputs: Tensor) -> None:
    if not inputs.is_floating_point() or inputs.ndim < 2:
        raise InvalidInput(
            f"lrp: inputs must be floating point, [N, ...], got {inputs.dtype} {list(inputs.shape)}. Feed normalised "
            "images: classifier.normalise(images)."
        )
    for name, module in network.named_modules():
        if module.training:
            raise InvalidInput(
                f"lrp: the network is in train mode ({name or 'the whole of it'}), where a map would be one of many; "
                "call network.eval()."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise Unsupported(
                f"lrp: {name or 'the network'} is scripted. Scripted networks cannot be watched: explain the original."
            )


def _eager(network: nn.Module) -> AbstractContextManager[object]:
    """A compiled network is run as it was written: compiled code cannot be watched."""
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _place(tape: Tape, name: str) -> int:
    """The number of the tensor a layer's name stands for.

    Raises:
        InvalidInput: With the known names.
    """
    if name == "last" and tape.kernels:
        return tape.kernels[-1][1]
    if name == "penultimate" and len(tape.kernels) > 1:
        return tape.kernels[-2][1]
    for node in tape.nodes:
        if node.name == name:
            return node.outputs[0]
    inside = [
        place for place, node in enumerate(tape.nodes) if node.name.startswith(f"{name}.") and "/" not in node.name
    ]
    if not inside:
        known = ", ".join(kernel for kernel, _ in tape.kernels)
        raise InvalidInput(f"lrp: there is no layer {name!r}. Layers: last, {known}, or penultimate.")
    return _end_of_block(tape, inside)


def _end_of_block(tape: Tape, inside: Sequence[int]) -> int:
    """The output of a block: its last layer, and the activations and sums after it that read nothing else."""
    own = {number for place in inside for number in (*tape.nodes[place].inputs, *tape.nodes[place].outputs)}
    end = tape.nodes[inside[-1]].outputs[0]
    for place in range(inside[0], len(tape.nodes)):
        node, line = tape.nodes[place], tape.plan[place]
        behind = place > inside[-1]
        belongs = own.issuperset(node.inputs) and (line.rule == "identity" or line.operator in ("add", "sub", "mul"))
        if behind and not belongs:
            break
        if own.issuperset(node.inputs):
            own |= set(node.outputs)
            end = node.outputs[0] if behind else end
    return end
