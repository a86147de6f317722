"""LRP against iNNvestigate's numbers, against a slow matrix version, and against laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.explainers import make
from heatprint.explainers.lrp.kernels import Dense, conv, conv_transpose
from heatprint.explainers.lrp.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox
from heatprint.models import wrap

GOLDEN = [Path(__file__).parent / "golden" / f"innvestigate-{name}.npz" for name in ("tiny", "more")]
IN_INNVESTIGATE = [
    "gradient", "input_t_gradient", "lrp.alpha_1_beta_0", "lrp.alpha_2_beta_1", "lrp.epsilon", "lrp.flat",
    "lrp.sequential_preset_a", "lrp.sequential_preset_a_flat", "lrp.sequential_preset_b",
    "lrp.sequential_preset_b_flat", "lrp.w_square", "lrp.z", "lrp.z_plus",
]  # fmt: skip


class ChannelsLastFlatten(nn.Module):
    """Keras flattens height, width, channels."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def keras_network(arrays, net: str) -> nn.Module:
    """The reference networks, weights from Keras' order."""

    def get(key):
        return torch.from_numpy(arrays[f"{net}/{key}"])

    def conv(name, **settings):
        weight = get(f"{name}/weight").permute(3, 2, 0, 1).contiguous()
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], **settings).double()
        layer.weight.data, layer.bias.data = weight, get(f"{name}/bias")
        return layer

    def dense(name):
        weight = get(f"{name}/weight").T.contiguous()
        layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
        layer.weight.data, layer.bias.data = weight, get(f"{name}/bias")
        return layer

    if net == "vgg":
        layers = [conv("c0", padding=1), nn.ReLU(), conv("c1", padding=1), nn.ReLU(), nn.MaxPool2d(2),
                  conv("c2", padding=1), nn.ReLU(), nn.MaxPool2d(2), ChannelsLastFlatten(), dense("d0"), nn.ReLU(),
                  dense("d1")]  # fmt: skip
    else:
        layers = [conv("c0"), nn.ReLU(), nn.AvgPool2d(2), conv("c1", stride=2), nn.ReLU(), ChannelsLastFlatten(),
                  dense("d1")]  # fmt: skip
    return nn.Sequential(*layers).eval().requires_grad_(False)


def as_classifier(network) -> Classifier:
    return Classifier(network=network, trainable=network, classes=("a", "b"), size=8, name="net")


@pytest.mark.parametrize("net", ["vgg", "strided"])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_every_method_equals_innvestigate(path, net):
    arrays = np.load(path)
    network = keras_network(arrays, net)
    x = torch.from_numpy(arrays[f"{net}/x"]).permute(0, 3, 1, 2)
    logits = network(x)
    assert np.allclose(logits.numpy(), arrays[f"{net}/logits"], rtol=1e-12, atol=1e-14)
    cases = [(name, logits.argmax(1), f"{net}/{name}") for name in IN_INNVESTIGATE]
    flat = "lrp.sequential_preset_a_flat"
    cases.append((flat, torch.zeros(len(x)).long(), f"{net}/{flat}@class0"))
    for name, target, key in cases:
        got, _ = make(name).attribute(as_classifier(network), x, target)
        want = arrays[key].transpose(0, 3, 1, 2)
        error = np.abs(got.relevance.numpy() - want).max() / np.abs(want).max()
        assert error < 1e-10, (name, error)


def matrix_of(forward, shape) -> torch.Tensor:
    """A linear map as an explicit matrix [outputs, inputs]: its columns are the images of the unit vectors."""
    return forward(torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)).flatten(1).T


def slow_share(rule, matrix, bias, x, r):
    """The rules as double loops over explicit matrices, straight from the papers."""
    outputs, inputs = matrix.shape
    out = torch.zeros(inputs, dtype=torch.float64)
    safe = lambda v: v if v != 0 else 1e-7  # noqa: E731
    for k in range(outputs):
        parts = matrix[k] * x
        z = parts.sum() + bias[k]
        if isinstance(rule, Epsilon):
            out += parts / safe(z + rule.epsilon * (1.0 if z >= 0 else -1.0)) * r[k]
        elif isinstance(rule, Gamma):
            own = parts.clamp_min(0) if z >= 0 else parts.clamp_max(0)
            own_bias = max(bias[k], 0.0) if z >= 0 else min(bias[k], 0.0)
            bottom = z + rule.gamma * (own.sum() + own_bias)
            out += (parts + rule.gamma * own) / (bottom + rule.epsilon * (1.0 if z >= 0 else -1.0)) * r[k]
        elif isinstance(rule, ZBox):
            parts = parts - rule.low[0] * matrix[k].clamp_min(0) - rule.high[0] * matrix[k].clamp_max(0)
            out += parts / safe(parts.sum()) * r[k]
        elif isinstance(rule, AlphaBeta):
            up, down = parts.clamp_min(0), parts.clamp_max(0)
            both = {"innvestigate": (bias[k], bias[k]), "none": (0.0, 0.0)}
            b_up, b_down = both.get(rule.bias, (max(bias[k], 0.0), min(bias[k], 0.0)))
            out += rule.alpha * up / safe(up.sum() + b_up) * r[k]
            out -= (rule.alpha - 1) * down / safe(down.sum() + b_down) * r[k]
        elif isinstance(rule, Flat):
            taps = (matrix[k] != 0).double()
            out += taps / safe(taps.sum()) * r[k]
        elif isinstance(rule, WSquare):
            out += matrix[k] ** 2 / safe((matrix[k] ** 2).sum()) * r[k]
    return out


RULES = [Epsilon(epsilon=0.0), Epsilon(epsilon=0.25), AlphaBeta(), AlphaBeta(bias="positive"), AlphaBeta(bias="none"),
         AlphaBeta(alpha=2.0), AlphaBeta(alpha=2.0, bias="positive"), Flat(), WSquare(), Gamma(), Gamma(gamma=3.0),
         ZBox(low=(-4.0,), high=(5.0,))]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(
    seed=st.integers(0, 10_000), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]), kernel=st.integers(1, 3), positive=st.booleans(), transposed=st.booleans(),
)  # fmt: skip
@settings(max_examples=settings.default.max_examples // 2)
def test_convolution_rules_equal_their_matrix_form(
    rule, seed, stride, padding, dilation, groups, kernel, positive, transposed
):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((1, 4, 6, 7), generator=g, dtype=torch.float64)
    x = x.abs() if positive else x
    weight = torch.randn((4, 4 // groups, kernel, kernel), generator=g, dtype=torch.float64)
    bias = torch.randn(4, generator=g, dtype=torch.float64)
    if transposed:
        padding = min(padding, dilation * (kernel - 1))
        k, _ = conv_transpose(x, weight, bias, stride, padding, 0, groups, dilation)
        forward = lambda e, b: F.conv_transpose2d(e, weight, b, stride, padding, 0, groups, dilation)  # noqa: E731
    else:
        k, _ = conv(x, weight, bias, stride, padding, dilation, groups)
        forward = lambda e, b: F.conv2d(e, weight, b, stride, padding, dilation, groups)  # noqa: E731
    z = forward(x, bias)
    r = torch.randn(z.shape, generator=g, dtype=torch.float64)
    matrix = matrix_of(lambda e: forward(e, None), x.shape[1:])
    spread = bias.view(-1, 1, 1).expand(z.shape[1:]).flatten()
    want = slow_share(rule, matrix, spread, x.flatten(), r.flatten())
    for known in (False, True)[: 1 + positive]:  # inputs that are known not to be negative take a shorter way
        got = rule.share(k, x, z, r, known).flatten()
        assert torch.allclose(got, want, rtol=1e-8, atol=1e-10 * want.abs().max().item())


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_dense_rules_equal_their_matrix_form(rule):
    g = torch.Generator().manual_seed(1)
    weight, bias = torch.randn((5, 9), generator=g).double(), torch.randn(5, generator=g).double()
    x, r = torch.randn((1, 9), generator=g).double(), torch.randn((1, 5), generator=g).double()
    got = rule.share(Dense(weight, bias), x, F.linear(x, weight, bias), r)
    assert torch.allclose(got[0], slow_share(rule, weight, bias, x[0], r[0]), rtol=1e-9)


def network_of(seed: int, bias: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(5, 6, 3, stride=2, bias=bias),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 8, bias=bias), nn.ReLU(), nn.Linear(8, 3, bias=bias),
    ).double().eval().requires_grad_(False)  # fmt: skip


def attribute(name, network, x, target=None, **settings):
    target = network(x).argmax(1) if target is None else target
    return make(name, **settings).attribute(as_classifier(network), x, target)[0]


@pytest.mark.parametrize("seed", range(5))
def test_lrp_0_is_input_times_gradient_on_relu_networks(seed):
    network, x = network_of(seed), torch.randn((3, 3, 16, 16), dtype=torch.float64)
    zero, ixg = attribute("lrp.z", network, x), attribute("input_t_gradient", network, x)
    assert torch.allclose(zero.relevance, ixg.relevance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["lrp.z", "lrp.sequential_preset_a", "lrp.sequential_preset_b", "lrp.z_plus"])
@pytest.mark.parametrize("seed", range(3))
def test_relevance_is_conserved_in_every_layer_without_bias(name, seed):
    network, x = network_of(seed, bias=False), torch.rand((2, 3, 16, 16), dtype=torch.float64)
    settings_ = {"epsilon": 1e-12} if "preset" in name else {}
    seen = attribute(name, network, x, **settings_)
    assert list(seen.totals)[-1] == "input"
    for layer, total in seen.totals.items():
        assert torch.allclose(total, seen.score, rtol=1e-6), layer


def test_flat_ignores_values_and_weights_and_is_equal_in_all_channels():
    network, x = network_of(0), torch.rand((2, 3, 16, 16), dtype=torch.float64)
    seen = attribute("lrp.sequential_preset_a_flat", network, x)
    assert torch.equal(seen.relevance[:, 0], seen.relevance[:, 1])
    rule, g = Flat(), torch.Generator().manual_seed(0)
    r = torch.rand((1, 4, 6, 6), generator=g)
    shares = [
        rule.share(conv(v, torch.randn((4, 3, 3, 3), generator=g), None, 1, 1)[0], v, r, r)
        for v in (torch.rand((1, 3, 6, 6), generator=g), torch.zeros((1, 3, 6, 6)))
    ]
    assert torch.equal(*shares)


def test_alpha_1_beta_0_is_z_plus_without_bias():
    network, x = network_of(3, bias=False), torch.randn((2, 3, 16, 16), dtype=torch.float64)
    one, other = attribute("lrp.alpha_1_beta_0", network, x), attribute("lrp.z_plus", network, x)
    assert torch.equal(one.relevance, other.relevance)


def test_bias_modes_differ_only_by_negative_biases():
    network, x = network_of(4), torch.rand((2, 3, 16, 16), dtype=torch.float64)
    name = "lrp.sequential_preset_a_flat"
    whole, positive = attribute(name, network, x), attribute(name, network, x, bias="positive")
    assert not torch.allclose(whole.relevance, positive.relevance, rtol=1e-3)
    for p in network.parameters():
        if p.ndim == 1:
            p.abs_()
    whole, positive = attribute(name, network, x), attribute(name, network, x, bias="positive")
    assert torch.equal(whole.relevance, positive.relevance)


def test_normalisation_inside_the_users_network_has_a_rule():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network_of(0)

        def forward(self, x):
            return self.net((x - 0.5) / 0.25)

    x = torch.rand((2, 3, 16, 16), dtype=torch.float64)
    seen = attribute("lrp.z", Inside().eval(), x)
    want = attribute("input_t_gradient", Inside().eval(), x)
    assert torch.allclose(seen.relevance, want.relevance, rtol=1e-8, atol=1e-12)


class Block(nn.Module):
    """Functional calls, an in-place sum, a shared module, a reshape: nothing a hook on modules would see whole."""

    def __init__(self, inplace: bool):
        super().__init__()
        self.inplace = inplace
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.out = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.conv(x)
        if self.inplace:
            y += x
            y = F.relu(y, inplace=True)
        else:
            y = torch.relu(y + x)
        y = F.relu(self.conv(y)) * 2.0
        return self.out(F.avg_pool2d(y, 4).mean((2, 3)).view(len(y), -1))


@pytest.mark.parametrize("inplace", [False, True])
def test_functional_residual_and_shared_layers_conserve(inplace):
    torch.manual_seed(0)
    network = Block(inplace).double().eval().requires_grad_(False)
    x = torch.rand((2, 3, 8, 8), dtype=torch.float64)
    seen = attribute("lrp.z", network, x)
    ixg = attribute("input_t_gradient", network, x)
    assert torch.allclose(seen.relevance, ixg.relevance, rtol=1e-8, atol=1e-12)
    assert torch.allclose(seen.totals["input"], seen.score, rtol=1e-9)
    assert [line.layer for line in seen.plan if line.operator in ("conv", "dense")] == ["stem", "conv", "conv#2", "out"]


def test_torchvision_resnet_conserves_without_a_canonizer():
    import torchvision

    torch.manual_seed(0)
    raw = torchvision.models.resnet18(num_classes=4)
    for module in raw.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    folded = wrap(raw, classes="abcd", size=64).network.double()
    for name, p in folded.named_parameters():
        if name.endswith("bias"):
            p.zero_()
    x = torch.randn((2, 3, 64, 64), dtype=torch.float64)
    seen = attribute("lrp.sequential_preset_a", folded, x, epsilon=1e-12)
    assert torch.allclose(seen.totals["input"], seen.score, rtol=1e-6)


def test_relevance_at_a_layer_and_at_the_last_neurons():
    network, x = network_of(1), torch.rand((2, 3, 16, 16), dtype=torch.float64)
    target = network(x).argmax(1)
    hidden = network[:-1](x)
    method = make("lrp.z")
    seen, kept = method.attribute(as_classifier(network), x, target, layers=("last", "2"))
    last = network[-1]
    logit = network(x).gather(1, target[:, None])
    want = hidden * last.weight[target] * (seen.score[:, None] / logit)
    assert torch.allclose(kept["last"], want, rtol=1e-9)
    assert kept["2"].shape == network[:3](x).shape
    assert torch.allclose(kept["2"].sum((1, 2, 3)), seen.totals["2"])
    with pytest.raises(InvalidInput, match="Layers: last, 0, 2, 6, 8"):
        method.attribute(as_classifier(network), x, target, layers=("features",))


def test_packed_weights_give_the_same_convolution_and_follow_the_weights():
    weight = nn.Parameter(torch.randn(512, 256, 3, 3), requires_grad=False)
    kernel, x = conv(torch.randn(2, 256, 5, 6), weight, torch.randn(512), stride=2, padding=1)
    x = x.contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        with torch.no_grad():
            got = kernel.forward(x, weight, kernel.bias)
            want = F.conv2d(x.double(), weight.double(), kernel.bias.double(), 2, 1)
        assert (got - want).abs().max() < 1e-5 * want.abs().max()
        weight.mul_(torch.rand(512, 1, 1, 1))
    leaf = x.clone().requires_grad_()
    kernel.forward(leaf, weight, kernel.bias).sum().backward()
    assert leaf.grad is not None
