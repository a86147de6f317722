"""Floor 2: explanations. One file per method; `explain` is the door that checks what comes out."""

from heatprint.core.protocols import Explainer
from heatprint.core.registry import Registry
from heatprint.explainers.door import explain

_PRESETS = "heatprint.explainers.presets"

EXPLAINERS: Registry[Explainer] = Registry(
    "explainers",
    {
        "gradient": "heatprint.explainers.gradient:Gradient",
        "input_t_gradient": "heatprint.explainers.gradient:InputTimesGradient",
        "lrp.alpha_1_beta_0": f"{_PRESETS}:Alpha1Beta0",
        "lrp.alpha_2_beta_1": f"{_PRESETS}:Alpha2Beta1",
        "lrp.epsilon": f"{_PRESETS}:EpsilonEverywhere",
        "lrp.flat": f"{_PRESETS}:FlatEverywhere",
        "lrp.sequential_preset_a": f"{_PRESETS}:SequentialPresetA",
        "lrp.sequential_preset_a_flat": f"{_PRESETS}:SequentialPresetAFlat",
        "lrp.sequential_preset_b": f"{_PRESETS}:SequentialPresetB",
        "lrp.sequential_preset_b_flat": f"{_PRESETS}:SequentialPresetBFlat",
        "lrp.w_square": f"{_PRESETS}:WSquareEverywhere",
        "lrp.z": f"{_PRESETS}:ZEverywhere",
        "lrp.z_plus": f"{_PRESETS}:ZPlusEverywhere",
    },
)

make, names = EXPLAINERS.make, EXPLAINERS.names

__all__ = ["EXPLAINERS", "explain", "make", "names"]
