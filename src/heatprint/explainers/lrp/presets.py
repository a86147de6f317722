"""Named composites.

By iNNvestigate's names, with its numbers (Alber et al. 2019): preset A is epsilon on dense layers and alpha 1 beta 0
on convolutions, preset B alpha 2 beta 1 on convolutions; "flat": the kernels that read the input share evenly. The
paper's heat maps are ``lrp.sequential_preset_a_flat``. By zennit's names (Anders et al. 2021): epsilon-plus is preset
A with a small epsilon and the positive bias only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.explainers.lrp.composite import Composite, Kind, Line
from heatprint.explainers.lrp.explainer import LRP
from heatprint.explainers.lrp.rules import AlphaBeta, BiasMode, Epsilon, Flat, Gamma, Rule, WSquare, ZBox

PRESET_EPSILON = 0.1
SMALL_EPSILON = 1e-6
FLAT_FIRST = (Line(rule=Flat(), first=True),)


def _everywhere(rule: Rule) -> Composite:
    return Composite((Line(rule=rule),))


def _check_epsilon(who: object, epsilon: float) -> None:
    if not epsilon > 0:
        raise InvalidInput(f"{type(who).__name__}: epsilon must be positive, got {epsilon}. For none write 'lrp.z'.")


@dataclass(frozen=True, kw_only=True)
class Sequential(LRP):
    """The presets' shape: epsilon on dense layers, one alpha on convolutions.

    Attributes:
        epsilon: Of the dense layers, in the units of their outputs.
        bias: Which part of a convolution's bias stands in its denominator.
    """

    epsilon: float = PRESET_EPSILON
    bias: BiasMode = "innvestigate"
    alpha: ClassVar[float] = 1.0
    first: ClassVar[tuple[Line, ...]] = ()

    def __post_init__(self) -> None:
        _check_epsilon(self, self.epsilon)

    def composite(self, classifier: Classifier) -> Composite:
        """Epsilon on dense layers, alpha-beta elsewhere."""
        dense = Line(rule=Epsilon(epsilon=self.epsilon), kind="dense")
        return Composite((*self.first, dense, Line(rule=AlphaBeta(alpha=self.alpha, bias=self.bias))))


@dataclass(frozen=True, kw_only=True)
class SequentialPresetA(Sequential):
    """``lrp.sequential_preset_a``: alpha 1 beta 0 on convolutions."""


@dataclass(frozen=True, kw_only=True)
class SequentialPresetAFlat(Sequential):
    """``lrp.sequential_preset_a_flat``: the paper's heat maps."""

    first = FLAT_FIRST


@dataclass(frozen=True, kw_only=True)
class SequentialPresetB(Sequential):
    """``lrp.sequential_preset_b``: alpha 2 beta 1 on convolutions."""

    alpha = 2.0


@dataclass(frozen=True, kw_only=True)
class SequentialPresetBFlat(Sequential):
    """``lrp.sequential_preset_b_flat``."""

    alpha = 2.0
    first = FLAT_FIRST


@dataclass(frozen=True, kw_only=True)
class EpsilonPlus(Sequential):
    """``lrp.epsilon_plus``: epsilon on dense layers, z+ with the positive bias on convolutions."""

    epsilon: float = SMALL_EPSILON
    bias: BiasMode = "positive"


@dataclass(frozen=True, kw_only=True)
class EpsilonPlusFlat(EpsilonPlus):
    """``lrp.epsilon_plus_flat``."""

    first = FLAT_FIRST


@dataclass(frozen=True, kw_only=True)
class EpsilonGammaBox(LRP):
    """``lrp.epsilon_gamma_box``: z-box at the input, gamma on convolutions, epsilon on dense layers.

    The box is that of all images the classifier can be fed: 0 to 1, normalised as it does.

    Attributes:
        epsilon: Of the dense layers.
        gamma: Of the convolutions.
    """

    epsilon: float = SMALL_EPSILON
    gamma: float = 0.25

    def __post_init__(self) -> None:
        _check_epsilon(self, self.epsilon)

    def composite(self, classifier: Classifier) -> Composite:
        """Z-box first, then epsilon and gamma."""
        pairs = list(zip(classifier.mean, classifier.std, strict=True))
        box = ZBox(low=tuple(-m / s for m, s in pairs), high=tuple((1 - m) / s for m, s in pairs))
        return Composite(
            (
                Line(rule=box, first=True),
                Line(rule=Epsilon(epsilon=self.epsilon), kind="dense"),
                Line(rule=Gamma(gamma=self.gamma)),
            )
        )


@dataclass(frozen=True, kw_only=True)
class ZEverywhere(LRP):
    """``lrp.z``: LRP-0 on every kernel; input times gradient on networks of ReLU and max-pooling."""

    def composite(self, classifier: Classifier) -> Composite:
        """The z rule."""
        return _everywhere(Epsilon(epsilon=0.0))


@dataclass(frozen=True, kw_only=True)
class EpsilonEverywhere(LRP):
    """``lrp.epsilon``: one epsilon on every kernel.

    Attributes:
        epsilon: In the units of the layers' outputs.
    """

    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        _check_epsilon(self, self.epsilon)

    def composite(self, classifier: Classifier) -> Composite:
        """The epsilon rule."""
        return _everywhere(Epsilon(epsilon=self.epsilon))


@dataclass(frozen=True, kw_only=True)
class GammaEverywhere(LRP):
    """``lrp.gamma``: one gamma on every kernel.

    Attributes:
        gamma: 0 is LRP-0, large is z+.
    """

    gamma: float = 0.25

    def composite(self, classifier: Classifier) -> Composite:
        """The gamma rule."""
        return _everywhere(Gamma(gamma=self.gamma))


@dataclass(frozen=True, kw_only=True)
class Alpha1Beta0(LRP):
    """``lrp.alpha_1_beta_0`` on every kernel: excitation only.

    Attributes:
        bias: Which part of the bias stands in the denominators.
    """

    bias: BiasMode = "innvestigate"
    alpha: ClassVar[float] = 1.0

    def composite(self, classifier: Classifier) -> Composite:
        """The alpha-beta rule."""
        return _everywhere(AlphaBeta(alpha=self.alpha, bias=self.bias))


@dataclass(frozen=True, kw_only=True)
class Alpha2Beta1(Alpha1Beta0):
    """``lrp.alpha_2_beta_1`` on every kernel: twice the excitation less the inhibition."""

    alpha = 2.0


@dataclass(frozen=True, kw_only=True)
class ZPlusEverywhere(LRP):
    """``lrp.z_plus``: alpha 1 beta 0 without any bias, on every kernel (Montavon et al. 2017, eq. 13)."""

    def composite(self, classifier: Classifier) -> Composite:
        """The z+ rule."""
        return _everywhere(AlphaBeta(bias="none"))


@dataclass(frozen=True, kw_only=True)
class FlatEverywhere(LRP):
    """``lrp.flat``: even shares on every kernel; shows the geometry of the network, not of the image."""

    def composite(self, classifier: Classifier) -> Composite:
        """The flat rule."""
        return _everywhere(Flat())


@dataclass(frozen=True, kw_only=True)
class WSquareEverywhere(LRP):
    """``lrp.w_square`` on every kernel."""

    def composite(self, classifier: Classifier) -> Composite:
        """The w-square rule."""
        return _everywhere(WSquare())


RULES: dict[str, type[Rule]] = {
    "alpha_beta": AlphaBeta,
    "epsilon": Epsilon,
    "flat": Flat,
    "gamma": Gamma,
    "w_square": WSquare,
    "z_box": ZBox,
}


@dataclass(frozen=True, kw_only=True)
class Written:
    """A line of a composite as it is written in a recipe.

    Attributes:
        rule: One of `RULES`.
        settings: Of the rule, e.g. ``{"alpha": 2.0}``.
        kind: See `Line`, as for the rest.
        first: See `Line`.
        names: See `Line`.
        depth: See `Line`.
    """

    rule: Literal["alpha_beta", "epsilon", "flat", "gamma", "w_square", "z_box"]
    settings: dict[str, Any] = field(default_factory=dict)
    kind: Kind | None = None
    first: bool | None = None
    names: str = "*"
    depth: tuple[int, int] = (0, 1_000_000)

    def line(self) -> Line:
        """The line."""
        try:
            rule = RULES[self.rule](**self.settings)
        except TypeError as error:
            raise InvalidInput(
                f"lrp.composite: the rule {self.rule!r} cannot take {self.settings}: {error}."
            ) from error
        return Line(rule=rule, kind=self.kind, first=self.first, names=self.names, depth=self.depth)


@dataclass(frozen=True, kw_only=True)
class Composed(LRP):
    """``lrp.composite``: rules of one's own, by layer type, depth or name.

    ``make("lrp.composite", lines=[{"rule": "flat", "first": True}, {"rule": "gamma", "names": "features.*"},
    {"rule": "epsilon", "settings": {"epsilon": 0.1}}])``

    Attributes:
        lines: In order of precedence: the first that matches a kernel gives its rule.
    """

    lines: tuple[Written, ...]

    def __post_init__(self) -> None:
        if not self.lines:
            raise InvalidInput("lrp.composite: give at least one line, such as {'rule': 'epsilon', ...}.")
        for line in self.lines:
            line.line()

    def composite(self, classifier: Classifier) -> Composite:
        """The lines."""
        return Composite(tuple(line.line() for line in self.lines))
