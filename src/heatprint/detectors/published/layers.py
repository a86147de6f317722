"""What a network computes at several layers, read in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.models.predict import batch_size

LAST = "last"  # the neurons that the last linear layer reads, as LRP names them, too
POOLINGS = (
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


def check_layers(who: str, layers: Sequence[str]) -> None:
    """Refuse layers named twice, or by something that is no name.

    Raises:
        InvalidInput: With what to write instead.
    """
    if isinstance(layers, str) or not all(isinstance(name, str) and name for name in layers):
        raise InvalidInput(f"{who}: layers = {layers!r}; write a tuple of module names, e.g. ('features.4', 'last').")
    if len(set(layers)) != len(layers):
        raise InvalidInput(f"{who}: layers = {tuple(layers)} names a layer twice; name each once.")


def poolings(network: nn.Module) -> tuple[str, ...]:
    """Names of a network's pooling modules, in the order they are registered; pooling functions have no names."""
    return tuple(name for name, module in network.named_modules() if isinstance(module, POOLINGS))


@contextmanager
def outputs(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While inside, what modules return is written into the mapping that is handed out; no hook stays behind.

    Args:
        network: Whose modules are watched.
        names: Of modules. One that is called several times is written down as ``name``, ``name#2``, ...

    Yields:
        Name to output, in the order of the calls; on the autograd graph where there is one.

    Raises:
        InvalidInput: There is no such module.
    """
    modules = dict(network.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown:
        known = ", ".join(name for name, module in modules.items() if name and not list(module.children()))
        raise InvalidInput(f"layers: the network has no module {', '.join(map(repr, unknown))}. Modules: {known}.")
    seen: dict[str, Tensor] = {}
    hooks = []
    try:
        for name in names:
            hooks.append(modules[name].register_forward_hook(_writer(name, seen)))
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def averaged(
    classifier: Classifier, pixels: Tensor, layers: Sequence[str] = (), *, grid: int = 1, progress: Progress = silent
) -> dict[str, np.ndarray]:
    """Activations averaged over positions, one number or a few per channel, from one forward pass per image.

    Args:
        classifier: Left as it is.
        pixels: uint8 [N, 3, H, W], N 1 or more.
        layers: Names of modules, and ``"last"`` for the neurons that the last linear layer reads. Empty for the
            output of every pooling module and the last neurons.
        grid: Cells per side that maps are averaged over, at most as many as they have positions; 1 for one number per
            channel.
        progress: Told how many images are through.

    Returns:
        Layer to float64 [N, C], in the order they run, the last neurons at the end. Maps [N, C, H, W] are averaged over
        the cells of the grid, and of a grid have C numbers per cell; tokens [N, T, C] are averaged over all of them;
        vectors stay.

    Raises:
        InvalidInput: There is no such module, it does not run, or it returns something else.
        Unsupported: The last neurons are asked for, but the logits are no output of a linear layer on vectors.
    """
    wanted = tuple(layers) or (*poolings(classifier.network), LAST)
    modules = tuple(name for name in wanted if name != LAST)
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    for part in torch.split(pixels, batch_size(classifier)):
        images = to_images(part.to(classifier.device))
        with outputs(classifier.network, modules) as seen, torch.no_grad():
            if LAST in wanted:
                last = last_neurons(classifier, images)[0]  # runs the whole network, and so the hooks
            else:
                classifier(images)
        check_seen(seen, modules)
        found = {**seen, LAST: last} if LAST in wanted else seen
        parts.append({name: _average(name, value, grid) for name, value in found.items()})
        progress(done := done + len(part), len(pixels))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_seen(seen: dict[str, Tensor], names: Sequence[str]) -> None:
    """Refuse modules that did not run: containers of a traced network, or parts it does not use.

    Raises:
        InvalidInput: With their names.
    """
    missing = [name for name in names if name not in seen]
    if missing:
        raise InvalidInput(
            f"layers: {', '.join(map(repr, missing))} did not run or returned no tensor. A traced network runs its "
            "single layers, not the blocks that hold them: name the last layer inside."
        )


def _writer(name: str, seen: dict[str, Tensor]) -> Any:
    def write(module: nn.Module, given: object, out: object) -> None:
        if isinstance(out, Tensor):
            calls = 1
            while (key := name if calls == 1 else f"{name}#{calls}") in seen:
                calls += 1
            seen[key] = out

    return write


def _average(name: str, value: Tensor, grid: int) -> np.ndarray:
    if value.ndim not in (2, 3, 4) or not value.is_floating_point():
        raise InvalidInput(
            f"layers: module {name!r} returns {value.dtype} {list(value.shape)}; name one that returns maps "
            "[N, C, H, W], tokens [N, T, C] or vectors [N, C]."
        )
    if value.ndim == 4 and grid > 1:
        cells = (min(grid, value.shape[2]), min(grid, value.shape[3]))
        return np.asarray(adaptive_avg_pool2d(value.detach().double(), cells).flatten(1).cpu().numpy())
    positions = {2: (), 3: (1,), 4: (2, 3)}[value.ndim]
    means = value.detach().mean(positions, dtype=torch.float64) if positions else value.detach().double()
    return np.asarray(means.cpu().numpy())
