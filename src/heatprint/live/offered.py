"""The explainers that are offered: those that answer a click."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heatprint.core.protocols import Explainer
from heatprint.explainers import EXPLAINERS


@dataclass(frozen=True, kw_only=True)
class Offered:
    """An explainer that is offered.

    Attributes:
        name: In the registry.
        title: For people.
        settings: Other than its own.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Explainer:
        """The explainer."""
        return EXPLAINERS.make(self.name, **self.settings)


OFFERED = (
    Offered(name="lrp.sequential_preset_a_flat", title="LRP, preset A flat"),
    Offered(name="lrp.sequential_preset_a", title="LRP, preset A"),
    Offered(name="lrp.sequential_preset_b_flat", title="LRP, preset B flat"),
    Offered(name="lrp.epsilon_plus_flat", title="LRP, epsilon plus flat"),
    Offered(name="lrp.epsilon_gamma_box", title="LRP, epsilon gamma box"),
    Offered(name="lrp.alpha_2_beta_1", title="LRP, alpha 2 beta 1"),
    Offered(name="lrp.z", title="LRP-0"),
    Offered(name="gradient", title="Gradient"),
    Offered(name="input_t_gradient", title="Input times gradient"),
    Offered(name="guided_backprop", title="Guided backpropagation"),
    Offered(name="grad_cam", title="Grad-CAM"),
    Offered(name="integrated_gradients", title="Integrated gradients, 16 steps", settings={"steps": 16}),
    Offered(name="smoothgrad", title="SmoothGrad, 16 samples", settings={"samples": 16}),
    Offered(name="occlusion", title="Occlusion (takes longer)"),
)


def with_own(name: str, settings: Mapping[str, Any]) -> tuple[Offered, ...]:
    """What is offered for a run whose heat maps were made by this explainer: that one first, with its settings."""
    titles = {one.name: one.title for one in OFFERED if not one.settings}
    own = Offered(name=name, title=titles.get(name, name), settings=settings)
    return (replace(own, title=f"{own.title} (this run's)"), *(one for one in OFFERED if one.name != name))
