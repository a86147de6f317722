"""The gradient family, Grad-CAM, occlusion and Captum's methods: closed forms, laws, and Captum's numbers."""

from __future__ import annotations

import math
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, MissingExtra, UnknownName, Unsupported
from heatprint.explainers import explain, make
from heatprint.explainers.captum import Captum
from heatprint.explainers.draws import generators, seeded
from heatprint.explainers.fills import filled
from heatprint.explainers.occlusion import Occlusion
from heatprint.explainers.target import score
from heatprint.models import wrap
from heatprint.testing import Linear, labelled_batch, linear_classifier

NAMES = ["deconvnet", "grad_cam", "gradient", "guided_backprop", "input_t_gradient", "integrated_gradients",
         "occlusion", "smoothgrad"]  # fmt: skip
QUICK = {"integrated_gradients": {"steps": 9}, "occlusion": {"window": 4, "stride": 3}, "smoothgrad": {"samples": 9}}
FILLS = ["black", "grey", "mean", "blur"]


def as_classifier(network, size=12, mean=(0.0,) * 3, std=(1.0,) * 3, classes=3) -> Classifier:
    network = network.double().eval().requires_grad_(False)
    names = tuple("abcdefgh"[:classes])
    return Classifier(network=network, trainable=network, classes=names, size=size, mean=mean, std=std, name="net")


def convolutional(seed=0, inplace=False) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(inplace),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 10), nn.ReLU(inplace), nn.Linear(10, 3),
    )  # fmt: skip


def smooth(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(6 * 5 * 5, 3))


def linear_model(size=12) -> Classifier:
    torch.manual_seed(3)
    weight = torch.randn(3, 3 * size * size)
    return as_classifier(Linear(weight, torch.randn(3)), size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


def images(count=3, size=12, seed=0):
    return torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attribute(name, classifier, x, target=None, **settings):
    target = classifier.network(x.clone()).argmax(1) if target is None else target
    return make(name, **settings).attribute(classifier, x, target)[0]


def quick(name, classifier, x, target=None):
    return attribute(name, classifier, x, target, **QUICK.get(name, {}))


def weights_of(classifier, target):
    size = classifier.size
    return classifier.network.dense.weight[target].view(-1, 3, size, size)


def captum_of(kind, classifier, x, target, **settings):
    captum = pytest.importorskip("captum.attr")
    made = {"layer": settings.pop("layer")} if "layer" in settings else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(captum, kind)(classifier.network, **made).attribute(x.clone(), target=target, **settings)


def close(got, want, rtol=1e-9):
    return (got - want).abs().max() <= rtol * want.abs().max()


# ---------------------------------------------------------------- what all of them keep


class Constant(nn.Module):
    """Logits that the image does not reach."""

    def forward(self, x):
        return torch.tensor([[1.0, 2.0, 3.0]]).to(x).expand(len(x), -1)


def dead() -> nn.Sequential:
    network = convolutional()
    network[-1].weight.data.zero_()
    return network


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("network", [dead, Constant], ids=["weights of zero", "no path at all"])
def test_a_constant_classifier_gets_maps_of_zero(name, network):
    if name == "grad_cam" and network is Constant:
        with pytest.raises(Unsupported, match=r"no convolution. Use 'input_t_gradient'"):
            quick(name, as_classifier(Constant()), images())
        return
    classifier = as_classifier(network())
    seen = quick(name, classifier, images())
    assert torch.equal(seen.relevance, torch.zeros_like(images()))
    assert torch.equal(seen.score, classifier.network(images()).amax(1))
    assert all(bool((fact == 0).all()) for fact in seen.facts.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_images_of_one_colour_have_finite_maps(name, level):
    classifier = as_classifier(convolutional(), mean=(0.5,) * 3, std=(0.25,) * 3)
    x = classifier.normalise(torch.full((2, 3, 12, 12), level))
    seen = quick(name, classifier, x)
    assert seen.relevance.isfinite().all()
    nothing = {"input_t_gradient": 0.5, "integrated_gradients": 0.0, "occlusion": 0.5}
    something = bool((seen.relevance.abs() > 1e-15).any())  # equal sums in another order may differ by a rounding
    assert something == (nothing.get(name) != level) or name == "grad_cam"


@pytest.mark.parametrize("name", NAMES)
def test_a_network_in_train_mode_is_explained_in_evaluation_mode_and_left_in_train_mode(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
                            nn.Linear(400, 2)).train()  # fmt: skip
    before = {key: value.clone() for key, value in network.state_dict().items()}
    classifier = wrap(network, classes=["a", "b"], size=12)
    batch = labelled_batch(classifier, 3)
    first, again = (explain(classifier, batch, make(name, **QUICK.get(name, {}))).relevance for _ in range(2))
    calm = explain(
        wrap(network.eval(), classes=["a", "b"], size=12), batch, make(name, **QUICK.get(name, {}))
    ).relevance
    assert torch.equal(first, again)
    assert torch.equal(first, calm)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_both_classes_of_a_one_logit_head_are_explained(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 1))
    classifier = wrap(network, classes=["a", "b"], size=12)
    x, both = images(2).float(), torch.tensor([0, 0])
    a, b = (quick(name, classifier, x, both + which).relevance for which in (0, 1))
    assert b.any()
    if name not in ("deconvnet", "guided_backprop", "grad_cam"):  # these drop one sign on their way
        assert close(a, -b, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_s_type_is_kept_and_nothing_is_left_on_it(name):
    for dtype in (torch.float32, torch.float64):
        classifier = as_classifier(convolutional(inplace=True))
        classifier.network.to(dtype)
        x = images().to(dtype)
        before, copy = classifier.fingerprint(), x.clone()
        seen = quick(name, classifier, x)
        assert seen.relevance.dtype == seen.score.dtype == dtype
        assert not seen.relevance.requires_grad
        assert not seen.score.requires_grad
        assert classifier.fingerprint() == before
        assert torch.equal(x, copy)
        assert torch.equal(seen.score, classifier.network(x.clone()).amax(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_writes_into_its_input_leaves_the_caller_s_alone(name):
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 3))
    classifier, x = as_classifier(network), images()
    seen = quick(name, classifier, x)
    assert torch.equal(x, images())
    assert seen.relevance.any()


@pytest.mark.parametrize("name", ["integrated_gradients", "occlusion", "smoothgrad"])
@pytest.mark.parametrize("batch", [1, 7])
def test_a_map_depends_neither_on_the_batch_nor_on_how_many_passes_fit_at_once(name, batch, monkeypatch):
    classifier, x = as_classifier(convolutional()), images(4)
    want = quick(name, classifier, x).relevance
    monkeypatch.setattr(sys.modules["heatprint.models.predict"], "BATCH", batch)  # the name is also a function's
    assert close(quick(name, classifier, x).relevance, want)
    assert close(quick(name, classifier, x[[3, 0]]).relevance, want[[3, 0]])


@pytest.mark.parametrize("name", ["gradient", "input_t_gradient", "integrated_gradients", "occlusion", "smoothgrad"])
def test_the_map_of_a_difference_is_the_difference_of_maps(name):
    classifier, x = as_classifier(convolutional()), images()
    a, b = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    contrast = (F.one_hot(a, 3) - F.one_hot(b, 3)).double()
    both = quick(name, classifier, x, contrast)
    one, other = (quick(name, classifier, x, target).relevance for target in (a, b))
    assert close(both.relevance, one - other)
    assert torch.allclose(both.score, score(classifier.network(x), contrast))


@pytest.mark.parametrize("name", [*NAMES, "captum"])
def test_relevance_at_a_layer_is_refused(name):
    if name == "captum":
        pytest.importorskip("captum")
    with pytest.raises(InvalidInput, match=rf"{name}: attributes to the input only, not to 3; use an 'lrp.' method"):
        make(name).attribute(as_classifier(convolutional()), images(1), torch.tensor([0]), layers=("3",))


# ---------------------------------------------------------------- draws and fills


def test_draws_belong_to_the_image_the_seed_and_the_purpose():
    x = images(3)

    def first(seed, purpose, inputs):
        return [rng.random() for rng in generators(seed, purpose, inputs)]

    together = first(0, "a", x)
    assert first(0, "a", x[[2]]) == together[2:]
    assert first(0, "a", x.contiguous(memory_format=torch.channels_last)) == together
    assert len({*together, *first(1, "a", x), *first(0, "b", x), *first(0, "a", x + 1)}) == 12
    assert first(0, "a", x.bfloat16()) == first(0, "a", x.bfloat16().float())


def test_seeding_a_library_puts_the_global_generators_back():
    import numpy as np

    torch.manual_seed(5)
    np.random.seed(5)
    want = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)

    def drawn():
        with seeded(generators(0, "a", images(1))[0]):
            return torch.rand(1).item(), np.random.rand()

    assert drawn() == drawn()
    assert (torch.rand(1), np.random.rand()) == want


def test_fills_are_what_they_are_called():
    classifier = linear_model()
    x = images()
    back = {name: filled(name, classifier, x) * torch.tensor(classifier.std).double().view(1, 3, 1, 1)
            + torch.tensor(classifier.mean).double().view(1, 3, 1, 1) for name in FILLS}  # fmt: skip
    assert all(value.shape == x.shape and value.dtype == x.dtype for value in back.values())
    assert torch.allclose(back["black"], torch.zeros_like(x), atol=1e-6)
    assert torch.allclose(back["grey"], torch.full_like(x, 0.5), atol=1e-6)
    assert torch.allclose(filled("mean", classifier, x), x.mean((2, 3), keepdim=True).expand_as(x))
    flat = torch.full_like(x, 0.3)
    assert torch.allclose(filled("blur", classifier, flat), flat)  # also at the border
    spot = torch.zeros((1, 3, 33, 33), dtype=torch.float64)
    spot[..., 16, 16] = 1
    blurred = filled("blur", classifier, spot)[0, 0]
    at = torch.arange(33).double()
    assert math.isclose(blurred.sum(), 1, rel_tol=1e-6)
    assert math.isclose((blurred.sum(0) * (at - 16) ** 2).sum(), (33 / 16) ** 2, rel_tol=0.01)
    with pytest.raises(InvalidInput, match="Occlusion: fill = 'white' must be one of black, grey, mean, blur"):
        Occlusion(fill="white")


# ---------------------------------------------------------------- gradient, SmoothGrad


def test_the_gradient_of_a_linear_classifier_is_its_weights():
    classifier, x, target = linear_model(), images(), torch.tensor([2, 0, 1])
    want = weights_of(classifier, target)
    assert torch.equal(attribute("gradient", classifier, x, target).relevance, want)
    assert torch.equal(attribute("input_t_gradient", classifier, x, target).relevance, x * want)
    assert close(attribute("smoothgrad", classifier, x, target).relevance, want)
    assert close(attribute("smoothgrad", classifier, x, target, square=True).relevance, want**2)


class Cubes(nn.Module):
    """Each logit the sum of one colour's cubes."""

    def forward(self, x):
        return (x**3).sum((2, 3))


def test_smoothgrad_has_the_expected_mean_and_spread():
    """E[3 (x + s e)^2] = 3 x^2 + 3 s^2, and its variance follows from the moments of a Gaussian."""
    std = (0.5, 0.25, 0.125)
    classifier = as_classifier(Cubes(), size=40, mean=(0.5,) * 3, std=std)
    pixels = torch.rand((1, 3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = classifier.normalise(pixels) if classifier.dtype == torch.float64 else (pixels - 0.5) / torch.tensor(
        std, dtype=torch.float64
    ).view(1, 3, 1, 1)  # fmt: skip
    samples, noise = 200, 0.2
    for channel in range(3):
        seen = attribute("smoothgrad", classifier, x, torch.tensor([channel]), samples=samples, noise=noise)
        s = noise * (pixels.max() - pixels.min()) / std[channel]
        expected = 3 * x[0, channel] ** 2 + 3 * s**2
        error = (seen.relevance[0, channel] - expected) / torch.sqrt(
            (36 * x[0, channel] ** 2 * s**2 + 18 * s**4) / samples
        )
        assert abs(error.mean()) < 0.15  # 1600 pixels: six standard errors
        assert 0.85 < error.std() < 1.15
        assert not seen.relevance[0, [c for c in range(3) if c != channel]].any()


def test_smoothgrad_follows_its_seed_and_gives_a_constant_image_the_plain_gradient():
    classifier, x = as_classifier(convolutional()), images()
    first = attribute("smoothgrad", classifier, x, samples=5).relevance
    assert torch.equal(attribute("smoothgrad", classifier, x, samples=5).relevance, first)
    assert not torch.equal(attribute("smoothgrad", classifier, x, samples=5, seed=1).relevance, first)
    flat = torch.zeros_like(x)
    plain = attribute("gradient", classifier, flat).relevance
    assert close(attribute("smoothgrad", classifier, flat, samples=5).relevance, plain)


@pytest.mark.parametrize(
    ("name", "setting", "match"),
    [
        ("smoothgrad", {"noise": 0.0}, r"noise = 0.0 must be a fraction of the range above 0, e.g. 0.15"),
        ("smoothgrad", {"noise": math.inf}, "noise = inf"),
        ("smoothgrad", {"samples": 0}, "samples = 0 must be 1 or more"),
        ("integrated_gradients", {"steps": 0}, "steps = 0 must be 1 or more"),
        ("integrated_gradients", {"baseline": "white"}, "baseline"),
        ("occlusion", {"window": 0}, "window = 0 must be 1 pixel or more"),
        ("occlusion", {"stride": 0}, "stride = 0 must be 1 pixel or more"),
        ("occlusion", {"fill": "white"}, "fill"),
    ],
)
def test_settings_out_of_range_are_refused(name, setting, match):
    with pytest.raises(InvalidInput, match=match):
        make(name, **setting)


# ---------------------------------------------------------------- integrated gradients


@pytest.mark.parametrize("baseline", FILLS)
def test_integrated_gradients_of_a_linear_classifier_are_its_parts(baseline):
    classifier, x, target = linear_model(), images(), torch.tensor([2, 0, 1])
    seen = attribute("integrated_gradients", classifier, x, target, baseline=baseline, steps=3)
    assert close(seen.relevance, (x - filled(baseline, classifier, x)) * weights_of(classifier, target))
    assert seen.facts["completeness"].abs().max() < 1e-9


@given(power=st.integers(1, 9), steps=st.integers(1, 5))
def test_the_quadrature_is_exact_up_to_its_degree_and_no_further(power, steps):
    class Power(nn.Module):
        def forward(self, x):
            return (x**power).sum((2, 3))

    classifier, x = as_classifier(Power(), size=4), images(2, 4).abs() + 0.5
    seen = attribute("integrated_gradients", classifier, x, torch.tensor([0, 1]), steps=steps)
    missed = float(seen.facts["completeness"].abs().max())
    assert (missed < 1e-9) == (power - 1 <= 2 * steps - 1)


@pytest.mark.parametrize("network", [smooth, convolutional])
def test_integrated_gradients_add_up_to_the_change_of_the_score(network):
    classifier, x = as_classifier(network()), images(3)
    steps = 32 if network is smooth else 200  # ReLU networks have kinks, and these scores differ by a hundredth only
    seen = attribute("integrated_gradients", classifier, x, steps=steps)
    start = classifier.network(torch.zeros_like(x)).gather(1, seen.target[:, None]).squeeze(1)
    difference = seen.score - start
    gap = seen.relevance.sum((1, 2, 3)) - difference
    assert torch.allclose(seen.facts["completeness"], gap / difference.abs(), atol=1e-12)
    assert (gap / difference).abs().median() < (1e-10 if network is smooth else 0.05)


def test_an_image_equal_to_its_baseline_has_no_relevance_and_no_gap():
    classifier = as_classifier(convolutional())
    seen = attribute("integrated_gradients", classifier, torch.zeros((1, 3, 12, 12), dtype=torch.float64))
    assert not seen.relevance.any()
    assert seen.facts["completeness"].tolist() == [0]


@pytest.mark.parametrize("network", [smooth, convolutional])
@pytest.mark.parametrize("steps", [5, 20])
def test_integrated_gradients_equal_captum(network, steps):
    classifier, x, target = as_classifier(network()), images(), torch.tensor([0, 1, 2])
    base = filled("mean", classifier, x)
    want = captum_of("IntegratedGradients", classifier, x, target, baselines=base, n_steps=steps)
    got = attribute("integrated_gradients", classifier, x, target, baseline="mean", steps=steps).relevance
    assert close(got, want, 1e-7)  # it steps in float32


# ---------------------------------------------------------------- guided backpropagation, deconvolution


class ByHand(nn.Module):
    """One pixel of three colours, three hidden neurons, two logits: small enough to work out on paper."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)
        self.first.weight.data = torch.tensor([[1.0, -2.0, 0.0], [0.0, 1.0, 1.0], [-1.0, 0.0, -1.0]])
        self.last.weight.data = torch.tensor([[2.0, -1.0, 3.0], [-2.0, 4.0, 5.0]])

    def forward(self, x):
        return self.last(F.relu(self.first(x.flatten(1))))


def test_guided_backprop_and_deconvnet_by_hand():
    """At x = (1, 0, 2) the hidden neurons hold (1, 2, -3): the third is off."""
    classifier = as_classifier(ByHand(), size=1, classes=2)
    x = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64).view(1, 3, 1, 1)

    def seen(name, target):
        return attribute(name, classifier, x, torch.tensor([target])).relevance.flatten().tolist()

    assert seen("gradient", 0) == [2, -5, -1]  # 2 row 1 - 1 row 2
    assert seen("guided_backprop", 0) == [2, -4, 0]  # 2 row 1; the second pulls down, the third is off
    assert seen("deconvnet", 0) == [-1, -4, -3]  # 2 row 1 + 3 row 3; the second pulls down
    assert seen("gradient", 1) == [-2, 8, 4]  # -2 row 1 + 4 row 2
    assert seen("guided_backprop", 1) == [0, 4, 4]
    assert seen("deconvnet", 1) == [-5, 4, -1]


@pytest.mark.parametrize(("name", "kind"), [("guided_backprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")])
@pytest.mark.parametrize("seed", range(3))
def test_the_other_ways_back_equal_captum(name, kind, seed):
    classifier, x, target = as_classifier(convolutional(seed)), images(seed=seed), torch.tensor([0, 1, 2])
    assert close(attribute(name, classifier, x, target).relevance, captum_of(kind, classifier, x, target))


class Written(nn.Module):
    """The same network with its ReLU written in another way."""

    def __init__(self, rectify):
        super().__init__()
        self.layers, self.rectify = convolutional(), rectify

    def forward(self, x):
        for layer in self.layers:
            x = self.rectify(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x


def as_a_statement(x):
    x.relu_()
    return x


def as_a_call(x):
    F.relu(x, True)
    return x


def on_a_part(x):
    x[:, : x.shape[1] // 2].relu_()
    F.relu_(x[:, x.shape[1] // 2 :])
    return x


WAYS = [F.relu, torch.relu, lambda x: x.relu(), lambda x: F.relu(input=x), lambda x: F.relu(x, inplace=True),
        lambda x: F.relu(x, True), lambda x: x.relu_(), torch.relu_, as_a_call, as_a_statement, on_a_part,
        nn.ReLU(inplace=True)]  # fmt: skip


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("way", range(len(WAYS)))
def test_every_way_to_write_a_relu_is_covered(name, way):
    x, target = images(), torch.tensor([0, 1, 2])
    want = attribute(name, as_classifier(convolutional()), x, target)
    assert not close(want.relevance, attribute("gradient", as_classifier(convolutional()), x, target).relevance, 0.1)
    got = attribute(name, as_classifier(Written(WAYS[way])), x, target)
    assert torch.equal(got.score, want.score)  # in place means that x itself is rectified
    assert close(got.relevance, want.relevance)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize(
    ("activation", "called"),
    [(nn.GELU(), "gelu"), (nn.SiLU(), "silu"), (nn.SiLU(inplace=True), "silu"), (nn.ELU(), "elu"), (nn.Tanh(), "tanh"),
     (nn.LeakyReLU(), "leaky_relu"), (nn.ReLU6(), "relu6|hardtanh"), (nn.Hardswish(), "hardswish"),
     (nn.Sigmoid(), "sigmoid"), (nn.Softplus(), "softplus"), (nn.PReLU(), "prelu"), (nn.Mish(), "mish"),
     (nn.LogSigmoid(), "log_?sigmoid"), (torch.tanh_, "tanh"), (lambda x: x.clamp(min=0), "clamp"),
     (lambda x: torch.maximum(torch.zeros_like(x), x), "maximum")],
)  # fmt: skip
def test_other_activations_are_named(name, activation, called):
    classifier = as_classifier(Written(activation))
    with pytest.raises(Unsupported, match=rf"{name}: is defined for networks of ReLU, .*'({called})'.*Use 'gradient'"):
        attribute(name, classifier, images(1), torch.tensor([0]))
    assert attribute("gradient", classifier, images(1)).relevance.any()  # the refusal left nothing behind


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_network_is_refused():
    classifier = as_classifier(nn.Sequential(torch.jit.script(convolutional())))
    with pytest.raises(Unsupported, match="TorchScript, which hides its activations"):
        attribute("guided_backprop", classifier, images(1))


# ---------------------------------------------------------------- Grad-CAM


def test_grad_cam_by_hand():
    """Identity filters: the layer's channels are the colours, and the logit weighs two of them by their means."""
    conv = nn.Conv2d(3, 2, 1, bias=False)
    conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1)
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, -2.0], [-1.0, -1.0]])
    network = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    classifier, x = as_classifier(network, classes=2), images(2)
    seen = attribute("grad_cam", classifier, x, torch.tensor([0, 1]))
    want = torch.stack([x[0, 0] - 2 * x[0, 1], -x[1, 0] - x[1, 1]]) / 144  # the mean's gradient is 1 / 144 everywhere
    assert close(seen.heat, want.relu())
    assert torch.equal(seen.relevance[:, 0], seen.relevance[:, 2])


@pytest.mark.parametrize("layer", ["0", "3"])
@pytest.mark.parametrize("inplace", [False, True])
def test_grad_cam_equals_captum(layer, inplace):
    captum = pytest.importorskip("captum.attr")
    plain = as_classifier(convolutional())
    classifier, x, target = as_classifier(convolutional(inplace=inplace)), images(), torch.tensor([0, 1, 2])
    small = captum_of("LayerGradCam", plain, x, target, layer=plain.network[int(layer)], relu_attributions=True)
    want = captum.LayerAttribution.interpolate(small, (12, 12), "bilinear")
    assert close(attribute("grad_cam", classifier, x, target, layer=layer).heat, want[:, 0])
    if layer == "3":
        assert close(attribute("grad_cam", classifier, x, target).heat, want[:, 0])


class Shared(nn.Module):
    """One convolution used twice, once as a function; another that has no parameter of its own; a residual sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        first = self.stem(x).relu_()
        once = self.body(first)
        twice = F.conv2d(once.relu_(), weight=self.body.weight, padding=1)
        last = F.conv2d(twice, self.body.weight * 2)
        return self.out(F.relu(last).mean((2, 3)) + first.mean((2, 3)))


def test_grad_cam_finds_convolutions_however_they_are_called():
    torch.manual_seed(0)
    classifier, x = as_classifier(Shared()), images()
    with pytest.raises(InvalidInput, match=r"layer = 'features' is no convolution .* stem, body, body#2, conv2d, or"):
        attribute("grad_cam", classifier, x, layer="features")
    maps = [attribute("grad_cam", classifier, x, layer=name).relevance for name in ("stem", "body", "body#2", "conv2d")]
    assert torch.equal(maps[3], attribute("grad_cam", classifier, x).relevance)
    net = classifier.network
    first = net.stem(x).relu()
    once = net.body(first).requires_grad_(True)
    with torch.enable_grad():
        twice = F.conv2d(once.relu(), net.body.weight, padding=1)
        logits = net.out(F.relu(F.conv2d(twice, net.body.weight * 2)).mean((2, 3)) + first.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), once)
    want = (gradient.mean((2, 3), keepdim=True) * once.detach()).sum(1).relu()
    assert want.any()
    assert close(maps[1].sum(1), want)


def test_grad_cam_reads_a_folded_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5),
                            nn.ReLU(), nn.Flatten(), nn.Linear(320, 2))  # fmt: skip
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    classifier = wrap(network, classes=["a", "b"], size=12)
    with pytest.raises(InvalidInput, match=r"Write one of 0, 3, or leave it out"):
        attribute("grad_cam", classifier, images().float(), layer="1")
    seen = attribute("grad_cam", classifier, images().float(), torch.tensor([0, 1, 0]))
    with torch.enable_grad():
        after = network.eval()[:5](images().float()).detach().requires_grad_(True)
        value = network[5:](after).gather(1, torch.tensor([[0], [1], [0]])).sum()
    (gradient,) = torch.autograd.grad(value, after)
    small = (gradient.mean((2, 3), keepdim=True) * after.detach()).sum(1, keepdim=True).relu()
    want = F.interpolate(small, size=(12, 12), mode="bilinear", align_corners=False)[:, 0]
    assert close(seen.heat, want, 1e-4)


# ---------------------------------------------------------------- occlusion


@pytest.mark.parametrize("fill", FILLS)
def test_occlusion_of_a_linear_classifier_is_the_window_s_part(fill):
    classifier, x, target = linear_model(), images(), torch.tensor([2, 0, 1])
    seen = attribute("occlusion", classifier, x, target, window=4, stride=4, fill=fill)
    cover = filled(fill, classifier, x)
    parts = ((x - cover) * weights_of(classifier, target)).sum(1)
    want = F.avg_pool2d(parts[:, None], 4).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, 0]
    assert close(seen.heat, want)
    whole = score(classifier.network(x), target) - score(classifier.network(cover.contiguous()), target)
    assert torch.allclose(seen.heat.sum((1, 2)), whole)


def test_a_pixel_under_several_windows_gets_their_mean_and_the_last_window_ends_at_the_border():
    """One row of windows is enough: 12 columns, windows of 5 begin at 0, 3, 6 and, for the rest, at 7."""
    classifier, x, target = linear_model(), images(1), torch.tensor([1])
    seen = attribute("occlusion", classifier, x, target, window=5, stride=3, fill="black")
    parts = ((x - filled("black", classifier, x)) * weights_of(classifier, target)).sum(1)[0]
    want, times = torch.zeros(12, 12).double(), torch.zeros(12, 12).double()
    for top in (0, 3, 6, 7):
        for left in (0, 3, 6, 7):
            here = slice(top, top + 5), slice(left, left + 5)
            want[here] += parts[here].sum() / 25
            times[here] += 1
    assert times.min() == 1
    assert close(seen.heat[0], want / times)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (6, 3), (9, 1), (12, 12)])
def test_occlusion_equals_captum(window, stride):
    classifier, x, target = as_classifier(convolutional()), images(), torch.tensor([0, 1, 2])
    grey = filled("grey", classifier, x)
    shape = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
    want = captum_of("Occlusion", classifier, x, target, baselines=grey, **shape)
    got = attribute("occlusion", classifier, x, target, window=window, stride=stride)
    assert close(got.relevance * 3 * window**2, want.double(), 1e-5)  # it returns float32


def test_a_window_larger_than_the_image_and_a_stride_larger_than_the_window_are_refused():
    classifier = as_classifier(convolutional())
    with pytest.raises(InvalidInput, match="window = 13 is larger than the image, 12 pixels"):
        attribute("occlusion", classifier, images(1), window=13)
    with pytest.raises(InvalidInput, match="stride = 5 skips pixels between windows of 4"):
        attribute("occlusion", classifier, images(1), window=4, stride=5)


@pytest.mark.parametrize(("side", "window", "stride"), [(48, 6, 3), (16, 4, 2), (3, 3, 1)])
def test_the_windows_follow_the_size_of_the_image(side, window, stride):
    classifier, x = linear_model(size=side), images(1, side)
    want = attribute("occlusion", classifier, x, window=window, stride=stride)
    assert torch.equal(attribute("occlusion", classifier, x).relevance, want.relevance)


# ---------------------------------------------------------------- Captum


def through_captum(classifier, x, target=None, **settings):
    pytest.importorskip("captum")
    return attribute("captum", classifier, x, target, **settings)


@pytest.mark.parametrize(
    ("method", "settings", "ours", "own"),
    [
        ("IntegratedGradients", {"n_steps": 8}, "integrated_gradients", {"steps": 8}),
        ("Saliency", {"abs": False}, "gradient", {}),
        ("InputXGradient", {}, "input_t_gradient", {}),
        ("GuidedBackprop", {}, "guided_backprop", {}),
        ("Deconvolution", {}, "deconvnet", {}),
        ("LayerGradCam", {"layer": "3", "relu_attributions": True}, "grad_cam", {}),
    ],
)
@pytest.mark.parametrize("weighed", [False, True])
def test_captum_behind_the_door_agrees_with_our_own(method, settings, ours, own, weighed):
    classifier, x, target = as_classifier(convolutional()), images(6), torch.tensor([0, 1, 2, 2, 1, 0])
    target = torch.randn((6, 3), generator=torch.Generator().manual_seed(1)).double() if weighed else target
    got = through_captum(classifier, x, target, method=method, settings=settings)
    want = attribute(ours, classifier, x, target, **own)
    assert close(got.relevance, want.relevance, 1e-7 if method == "IntegratedGradients" else 1e-9)  # float32 steps
    assert torch.equal(got.score, want.score)


def test_captum_s_deeplift_adds_up_and_takes_a_contrast():
    network, x = convolutional(), images(6)
    network[2] = nn.AvgPool2d(2)  # its rule for max-pooling does not add up
    classifier = as_classifier(network)
    contrast = torch.tensor([[1.0, -1.0, 0.0]]).double().expand(6, -1)
    seen = through_captum(classifier, x, contrast, baseline="grey")
    start = classifier.network(filled("grey", classifier, x).contiguous())
    assert torch.allclose(seen.relevance.sum((1, 2, 3)), seen.score - score(start, contrast))


@pytest.mark.parametrize("method", ["FeatureAblation", "ShapleyValueSampling", "KernelShap"])
def test_captum_s_perturbations_work_on_squares(method):
    """On a linear classifier without overlap every one of them finds each square's part of the score."""
    classifier, x, target = linear_model(), images(2), torch.tensor([2, 0])
    settings = {} if method == "FeatureAblation" else {"n_samples": 2 if method == "ShapleyValueSampling" else 30}
    seen = through_captum(classifier, x, target, method=method, settings=settings, cells=3)
    parts = ((x - filled("black", classifier, x)) * weights_of(classifier, target)).sum(1, keepdim=True)
    want = (F.avg_pool2d(parts, 4) * 16).repeat_interleave(4, 2).repeat_interleave(4, 3).expand_as(x)
    assert close(seen.relevance, want, 1e-3 if method == "KernelShap" else 1e-5)  # float32 inside


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("GradientShap", {"stdevs": 0.1}),
        ("KernelShap", {"n_samples": 12}),
        ("Lime", {"n_samples": 12}),
        ("ShapleyValueSampling", {"n_samples": 1}),
    ],
)
def test_captum_s_draws_belong_to_the_image(method, settings):
    network, x = convolutional(), images(2)
    network[-1].weight.data *= 100  # or Lime's lasso leaves nothing
    classifier = as_classifier(network)
    made = {"method": method, "settings": settings, "cells": 3}
    first = through_captum(classifier, x, **made).relevance
    assert torch.equal(through_captum(classifier, x, **made).relevance, first)
    assert close(through_captum(classifier, x[[1]], **made).relevance, first[[1]])
    assert not torch.equal(through_captum(classifier, x, seed=1, **made).relevance, first)


def test_captum_s_other_forms():
    classifier, x = as_classifier(convolutional()), images(2)
    window = {"sliding_window_shapes": [3, 4, 4], "strides": [3, 4, 4]}  # lists, as from a recipe
    assert through_captum(classifier, x, method="Occlusion", settings=window).relevance.any()
    guided = through_captum(classifier, x, method="GuidedGradCam", settings={"layer": "3"})
    assert guided.relevance.shape == x.shape
    with pytest.raises(InvalidInput, match=r"no map\. Name a convolution"):
        through_captum(classifier, x, method="LayerConductance", settings={"layer": "6"})


def test_captum_works_on_a_copy_so_that_an_error_leaves_nothing_behind():
    class Fails(nn.Module):
        touched = False

        def forward(self, x):
            if x.requires_grad:
                self.touched = True
                raise RuntimeError("not today")
            return x

    classifier = as_classifier(nn.Sequential(convolutional(), Fails()))
    before = classifier.fingerprint()
    with pytest.raises(Unsupported, match=r"Captum says: not today\. Try our own") as told:
        through_captum(classifier, images(1))
    assert isinstance(told.value.__cause__, RuntimeError)
    assert classifier.fingerprint() == before
    assert not classifier.network[-1].touched


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"method": "DeepLft"}, UnknownName, "Did you mean 'DeepLift'"),
        ({"method": "NoiseTunnel"}, UnknownName, "the method 'NoiseTunnel'"),
        ({"method": "NeuronGradient"}, UnknownName, "the method 'NeuronGradient'"),
        ({"method": "FeaturePermutation"}, UnknownName, "the method 'FeaturePermutation'"),
        ({"settings": {"baseline": 0}}, UnknownName, "Did you mean 'baselines'"),
        ({"settings": {"target": 0}}, UnknownName, "the setting of DeepLift 'target'"),
        ({"method": "LayerGradCam"}, InvalidInput, r"LayerGradCam needs a layer. Write settings=\{'layer'"),
        ({"cells": 0}, InvalidInput, "cells = 0 must be 1 or more"),
    ],
)
def test_captum_s_settings_are_checked_when_it_is_made(settings, error, match):
    pytest.importorskip("captum")
    with pytest.raises(error, match=match):
        Captum(**settings)


def test_a_layer_that_captum_is_to_read_must_exist():
    with pytest.raises(InvalidInput, match=r"there is no layer 'body'\. Layers: 0, 1, 2, 3"):
        through_captum(as_classifier(convolutional()), images(1), method="LayerGradCam", settings={"layer": "body"})


def test_a_missing_captum_is_named_with_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)  # what Python takes for "not there"
    with pytest.raises(MissingExtra, match=r"'captum'.*heatprint\[explain\]"):
        make("captum")


def test_the_door_takes_them_all_with_a_contrast():
    classifier = linear_classifier(classes=3)
    batch = labelled_batch(classifier, 5)
    for name in NAMES:
        if name != "grad_cam":
            seen = explain(classifier, batch, make(name), target="contrast")
            assert seen.relevance.shape == batch.pixels.shape
            assert (seen.score > 0).all()  # the true class leads
