"""Named composites, by iNNvestigate's names (Alber et al. 2019), with its numbers.

Preset A: epsilon on dense layers, alpha 1 beta 0 on convolutions; preset B: alpha 2 beta 1 on convolutions; "flat":
the kernels that read the input share evenly. The paper's heat maps are ``lrp.sequential_preset_a_flat``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers.lrp import Composite, propagate
from heatprint.explainers.rules import AlphaBeta, BiasMode, Epsilon, Flat, Rule, WSquare, Z

PRESET_EPSILON = 0.1
SMALL_EPSILON = 1e-7


class LRP(ABC):
    """Explains by relevance propagation under a composite."""

    @abstractmethod
    def composite(self) -> Composite:
        """The rules."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        relevance, logits, tape = propagate(classifier.network, inputs, target, self.composite(), layers=layers)
        score = logits.gather(1, target[:, None]).squeeze(1)
        explained = Explained(
            ids=(),
            relevance=relevance,
            target=target,
            score=score,
            plan=tuple(tape.plan),
            totals={"start": score, **tape.totals},
        )
        return explained, tape.kept


def _check_epsilon(who: str, epsilon: float) -> None:
    if not epsilon > 0:
        raise InvalidInput(f"{who}: epsilon must be positive, got {epsilon}. For none write 'lrp.z'.")


@dataclass(frozen=True, kw_only=True)
class _Sequential(LRP):
    """The presets' shape: epsilon on dense layers, one alpha on convolutions.

    Attributes:
        epsilon: Of the dense layers.
        bias: Which part of a convolution's bias stands in its denominator.
    """

    epsilon: float = PRESET_EPSILON
    bias: BiasMode = "innvestigate"

    def __post_init__(self) -> None:
        _check_epsilon(type(self).__name__, self.epsilon)

    def _composite(self, alpha: float, first: Rule | None) -> Composite:
        dense = Epsilon(epsilon=self.epsilon)
        return Composite(conv=AlphaBeta(alpha=alpha, bias=self.bias), dense=dense, first=first)


@dataclass(frozen=True, kw_only=True)
class SequentialPresetA(_Sequential):
    """``lrp.sequential_preset_a``."""

    def composite(self) -> Composite:
        """Alpha 1 beta 0 and epsilon."""
        return self._composite(1.0, None)


@dataclass(frozen=True, kw_only=True)
class SequentialPresetAFlat(_Sequential):
    """``lrp.sequential_preset_a_flat``: the paper's heat maps."""

    def composite(self) -> Composite:
        """Flat, then alpha 1 beta 0 and epsilon."""
        return self._composite(1.0, Flat())


@dataclass(frozen=True, kw_only=True)
class SequentialPresetB(_Sequential):
    """``lrp.sequential_preset_b``."""

    def composite(self) -> Composite:
        """Alpha 2 beta 1 and epsilon."""
        return self._composite(2.0, None)


@dataclass(frozen=True, kw_only=True)
class SequentialPresetBFlat(_Sequential):
    """``lrp.sequential_preset_b_flat``."""

    def composite(self) -> Composite:
        """Flat, then alpha 2 beta 1 and epsilon."""
        return self._composite(2.0, Flat())


@dataclass(frozen=True, kw_only=True)
class ZEverywhere(LRP):
    """``lrp.z``: LRP-0 on every kernel; input times gradient on networks of ReLU and max-pooling."""

    def composite(self) -> Composite:
        """The z rule."""
        return Composite(conv=Z(), dense=Z())


@dataclass(frozen=True, kw_only=True)
class EpsilonEverywhere(LRP):
    """``lrp.epsilon``: one epsilon on every kernel.

    Attributes:
        epsilon: In the units of the layers' outputs.
    """

    epsilon: float = SMALL_EPSILON

    def __post_init__(self) -> None:
        _check_epsilon("EpsilonEverywhere", self.epsilon)

    def composite(self) -> Composite:
        """The epsilon rule."""
        return Composite(conv=Epsilon(epsilon=self.epsilon), dense=Epsilon(epsilon=self.epsilon))


@dataclass(frozen=True, kw_only=True)
class Alpha1Beta0(LRP):
    """``lrp.alpha_1_beta_0`` on every kernel.

    Attributes:
        bias: Which part of the bias stands in the denominator.
    """

    bias: BiasMode = "innvestigate"

    def composite(self) -> Composite:
        """Excitation only."""
        return Composite(conv=AlphaBeta(bias=self.bias), dense=AlphaBeta(bias=self.bias))


@dataclass(frozen=True, kw_only=True)
class Alpha2Beta1(LRP):
    """``lrp.alpha_2_beta_1`` on every kernel.

    Attributes:
        bias: Which part of the bias stands in the denominators.
    """

    bias: BiasMode = "innvestigate"

    def composite(self) -> Composite:
        """Twice the excitation less the inhibition."""
        rule = AlphaBeta(alpha=2.0, bias=self.bias)
        return Composite(conv=rule, dense=rule)


@dataclass(frozen=True, kw_only=True)
class ZPlusEverywhere(LRP):
    """``lrp.z_plus``: alpha 1 beta 0 without any bias, on every kernel (Montavon et al. 2017, eq. 13)."""

    def composite(self) -> Composite:
        """The z+ rule."""
        return Composite(conv=AlphaBeta(bias="none"), dense=AlphaBeta(bias="none"))


@dataclass(frozen=True, kw_only=True)
class FlatEverywhere(LRP):
    """``lrp.flat``: even shares on every kernel; shows the geometry of the network, not of the image."""

    def composite(self) -> Composite:
        """The flat rule."""
        return Composite(conv=Flat(), dense=Flat())


@dataclass(frozen=True, kw_only=True)
class WSquareEverywhere(LRP):
    """``lrp.w_square`` on every kernel."""

    def composite(self) -> Composite:
        """The w-square rule."""
        return Composite(conv=WSquare(), dense=WSquare())
