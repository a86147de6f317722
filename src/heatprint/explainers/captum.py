"""What Captum has beyond our own methods, behind our door."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, MissingExtra, UnknownName, Unsupported
from heatprint.core.values import Explained
from heatprint.explainers.draws import generators, seeded
from heatprint.explainers.fills import Fill, check_fill, filled
from heatprint.explainers.target import refuse_layers, score

DRAWN = frozenset({"GradientShap", "KernelShap", "LayerGradientShap", "Lime", "ShapleyValueSampling"})
OURS = frozenset({"self", "inputs", "target", "additional_forward_args", "return_convergence_delta", "kwargs"})


@dataclass(frozen=True, kw_only=True)
class Captum:
    """A method of Captum (Kokhlikyan et al. 2020, arXiv:2009.07896), e.g. DeepLift, GuidedGradCam, FeatureAblation.

    It works on a copy of the network that returns the score of each image, so targets of every kind are understood
    and hooks that are left behind, or lost in an error, do not reach the classifier. Methods that draw random numbers
    get one image at a time. A layer's attribution is summed over channels, enlarged bilinearly and shared out to the
    colours. Captum's warnings are not shown: DeepLift and the guided methods know activations that are modules only,
    and treat functional ones by their gradient. Cost: the method's, and a copy of the network.

    Attributes:
        method: Class name in `captum.attr`; those that take a model and explain its input or a layer.
        settings: Arguments of the class and of its `attribute`; a ``layer`` is given by the name of its module.
        baseline: For methods with a baseline, unless the settings name ``baselines``; see
            `heatprint.explainers.fills`.
        cells: For methods with a feature mask, unless the settings name one: the image is cut into `cells` times
            `cells` squares, >= 1, each a feature. Every pixel of a square gets the value of the whole.
        seed: Of the methods that draw random numbers.
    """

    method: str = "DeepLift"
    settings: Mapping[str, Any] = field(default_factory=dict)
    baseline: Fill = "black"
    cells: int = 7
    seed: int = 0

    at_once: ClassVar[int] = 4  # many methods make dozens of copies of each image and run them at once

    def __post_init__(self) -> None:
        check_fill("Captum: baseline", self.baseline)
        if self.cells < 1:
            raise InvalidInput(f"Captum: cells = {self.cells} must be 1 or more, e.g. 7.")
        # Captum wants tuples, and a recipe has lists only
        read = {name: tuple(value) if isinstance(value, list) else value for name, value in self.settings.items()}
        object.__setattr__(self, "settings", read)
        kind = self._kind()
        known = sorted({*_arguments(kind)[1:], *_arguments(kind.attribute)} - OURS)
        for name in read:
            if name not in known:
                raise UnknownName(f"Captum: the setting of {self.method}", name, known)
        if "layer" in known and "layer" not in read:
            raise InvalidInput(f"Captum: {self.method} needs a layer. Write settings={{'layer': 'name of a module'}}.")

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        refuse_layers("captum", layers)
        inputs = inputs.detach().contiguous()  # some of its methods take views
        scored = _Scored(copy.deepcopy(classifier.network)).eval()
        chunk = 1 if self.method in DRAWN else self.at_once
        parts = [
            self._part(classifier, scored, inputs[rows], target[rows])
            for rows in torch.split(torch.arange(len(inputs), device=inputs.device), chunk)
        ]
        with torch.no_grad():
            value = score(classifier.network(inputs.clone()), target)
        return Explained(ids=(), relevance=torch.cat(parts), target=target, score=value), {}

    def _part(self, classifier: Classifier, scored: _Scored, inputs: Tensor, target: Tensor) -> Tensor:
        kind = self._kind()
        takes = _arguments(kind.attribute)
        asked = {name: value for name, value in self.settings.items() if name in takes}
        made = {name: value for name, value in self.settings.items() if name not in takes}
        if "layer" in made:
            made["layer"] = _module(scored.network, made["layer"])
        if "baselines" in takes:
            asked.setdefault("baselines", filled(self.baseline, classifier, inputs).contiguous())
        if "feature_mask" in takes:
            asked.setdefault("feature_mask", _squares(self.cells, inputs))
        draws = generators(self.seed, f"captum {self.method}", inputs)[0]
        with warnings.catch_warnings(), seeded(draws), torch.enable_grad():
            warnings.simplefilter("ignore")
            method = kind(scored, **made)
            try:
                found = method.attribute(inputs.clone(), additional_forward_args=(target,), **asked)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, AssertionError, TypeError) as error:
                raise Unsupported(
                    f"Captum: {self.method} cannot explain {classifier.name!r} with these settings. Captum says: "
                    f"{str(error).strip().rstrip('.') or type(error).__name__}. Try our own 'integrated_gradients' or "
                    "'gradient'."
                ) from error
        return self._at_the_input(found, inputs)

    def _at_the_input(self, found: Any, inputs: Tensor) -> Tensor:
        """Attributions [N, 3, H, W], also of a layer."""
        if not isinstance(found, Tensor) or found.ndim != 4:
            raise InvalidInput(f"Captum: {self.method} attributes to something that is no map. Name a convolution.")
        relevance: Tensor = found.detach().to(inputs)
        if relevance.shape == inputs.shape:
            return relevance
        heat = F.interpolate(
            relevance.sum(1, keepdim=True), size=inputs.shape[2:], mode="bilinear", align_corners=False
        )
        return (heat / 3).expand(-1, 3, -1, -1)

    def _kind(self) -> type[Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                captum = import_module("captum.attr")
        except ImportError as error:
            raise MissingExtra("captum", "explain", f"Captum: {self.method}") from error
        known = {name: kind for name, kind in vars(captum).items() if _is_method(name, kind)}
        if self.method not in known:
            raise UnknownName("Captum: the method", self.method, known)
        kind: type[Any] = known[self.method]
        return kind


class _Scored(nn.Module):
    """The network, with the score of each image in place of its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Scores [N]; Captum repeats the targets as it repeats the images."""
        return score(self.network(inputs), target)


def _is_method(name: str, kind: Any) -> bool:
    """Whether it takes a model and explains one image by itself; a permutation mixes those of a batch."""
    if not inspect.isclass(kind) or not hasattr(kind, "attribute") or "Permutation" in name or name == "LimeBase":
        return False
    first = _arguments(kind)[:1]
    takes = _arguments(kind.attribute)
    single = "neuron_selector" not in takes and {"inputs", "target", "additional_forward_args"} <= {*takes}
    return single and first in (["model"], ["forward_func"])


def _arguments(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _module(network: nn.Module, name: str) -> nn.Module:
    named: dict[str, nn.Module] = {key: module for key, module in network.named_modules() if key}
    if name not in named:
        raise InvalidInput(f"Captum: there is no layer {name!r}. Layers: {', '.join(named)}.")
    return named[name]


def _squares(cells: int, inputs: Tensor) -> Tensor:
    """The number of each pixel's cell, int64 [1, 3, H, W]; the same in all colours."""
    rows, columns = (torch.arange(side, device=inputs.device) * cells // side for side in inputs.shape[2:])
    numbers = rows[:, None] * cells + columns
    # without gaps, also where cells are smaller than a pixel
    dense: Tensor = torch.unique(numbers, return_inverse=True)[1]
    return dense.expand(1, 3, -1, -1).contiguous()
