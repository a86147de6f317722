"""Floor 2: explanations. One file per method; `explain` is the door that checks what comes out."""

from heatprint.core.protocols import Explainer
from heatprint.core.registry import Registry
from heatprint.explainers.door import explain
from heatprint.explainers.pairs import Compared, compare

_PRESETS = "heatprint.explainers.lrp.presets"

EXPLAINERS: Registry[Explainer] = Registry(
    "explainers",
    {
        "anchors": "heatprint.explainers.masks.anchors:Anchors",
        "captum": "heatprint.explainers.captum:Captum",
        "deconvnet": "heatprint.explainers.gradients.deconvnet:DeconvNet",
        "grad_cam": "heatprint.explainers.gradients.grad_cam:GradCAM",
        "gradient": "heatprint.explainers.gradients.gradient:Gradient",
        "guided_backprop": "heatprint.explainers.gradients.guided_backprop:GuidedBackprop",
        "input_t_gradient": "heatprint.explainers.gradients.gradient:InputTimesGradient",
        "integrated_gradients": "heatprint.explainers.gradients.integrated_gradients:IntegratedGradients",
        "lime": "heatprint.explainers.masks.lime:Lime",
        "lrp.alpha_1_beta_0": f"{_PRESETS}:Alpha1Beta0",
        "lrp.alpha_2_beta_1": f"{_PRESETS}:Alpha2Beta1",
        "lrp.composite": f"{_PRESETS}:Composed",
        "lrp.epsilon": f"{_PRESETS}:EpsilonEverywhere",
        "lrp.epsilon_gamma_box": f"{_PRESETS}:EpsilonGammaBox",
        "lrp.epsilon_plus": f"{_PRESETS}:EpsilonPlus",
        "lrp.epsilon_plus_flat": f"{_PRESETS}:EpsilonPlusFlat",
        "lrp.flat": f"{_PRESETS}:FlatEverywhere",
        "lrp.gamma": f"{_PRESETS}:GammaEverywhere",
        "lrp.sequential_preset_a": f"{_PRESETS}:SequentialPresetA",
        "lrp.sequential_preset_a_flat": f"{_PRESETS}:SequentialPresetAFlat",
        "lrp.sequential_preset_b": f"{_PRESETS}:SequentialPresetB",
        "lrp.sequential_preset_b_flat": f"{_PRESETS}:SequentialPresetBFlat",
        "lrp.w_square": f"{_PRESETS}:WSquareEverywhere",
        "lrp.z": f"{_PRESETS}:ZEverywhere",
        "lrp.z_plus": f"{_PRESETS}:ZPlusEverywhere",
        "occlusion": "heatprint.explainers.occlusion:Occlusion",
        "shap.gradient": "heatprint.explainers.gradients.expected_gradients:ExpectedGradients",
        "shap.kernel": "heatprint.explainers.masks.kernel_shap:KernelShap",
        "shap.partition": "heatprint.explainers.masks.partition:PartitionShap",
        "smoothgrad": "heatprint.explainers.gradients.smoothgrad:SmoothGrad",
    },
)

make, names = EXPLAINERS.make, EXPLAINERS.names

__all__ = ["EXPLAINERS", "Compared", "compare", "explain", "make", "names"]
