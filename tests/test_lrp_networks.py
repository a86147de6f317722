"""LRP on whole networks: operators, laws, errors, other dtypes, second order, compilation, and the peers' numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput, Unsupported
from heatprint.core.values import Batch
from heatprint.explainers import explain, make
from heatprint.explainers.conservation import ConservationWarning, conservation
from heatprint.explainers.lrp import Composite, Line, every_class, propagate
from heatprint.explainers.lrp.compiled import compiled
from heatprint.explainers.lrp.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox
from heatprint.models import wrap
from heatprint.testing import labelled_batch, small_classifier

LRP_0 = Composite((Line(rule=Epsilon(epsilon=0.0)),))
PRESET_A_FLAT = Composite(
    (Line(rule=Flat(), first=True), Line(rule=Epsilon(epsilon=0.1), kind="dense"), Line(rule=AlphaBeta()))
)
COMPOSITES = {
    "preset a flat": PRESET_A_FLAT,
    "lrp-0": LRP_0,
    "epsilon": Composite((Line(rule=Epsilon(epsilon=0.1)),)),
    "alpha 2": Composite((Line(rule=WSquare(), first=True), Line(rule=AlphaBeta(alpha=2.0, bias="positive")))),
    "gamma box": Composite((Line(rule=ZBox(low=(-0.1,), high=(1.1,)), first=True), Line(rule=Gamma()))),
}


def freeze(network: nn.Module) -> nn.Module:
    return network.double().eval().requires_grad_(False)


def relu_network(seed: int = 0, bias: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    return freeze(nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(5, 6, 3, stride=2, bias=bias),
        nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 8, bias=bias), nn.ReLU(),
        nn.Linear(8, 3, bias=bias),
    ))  # fmt: skip


def images(seed: int = 0, count: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def input_times_gradient(network, x, target):
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf).gather(1, target[:, None]).sum(), leaf)
    return x * gradient


class Through(nn.Module):
    """A stem, one operation in question, and a head that reads whatever comes out of it."""

    def __init__(self, operation, head=None):
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.operation = operation
        with torch.no_grad():
            width = operation(self.stem(torch.rand(1, 3, 8, 8))).flatten(1).shape[1]
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.operation(self.stem(x)).flatten(1))


def constant_in_place(h):
    a = torch.zeros_like(h)
    a.add_(h)  # a constant becomes an activation
    return F.relu(a) + h


def in_place_statement(h):
    h = F.relu(h)
    y = h * 1.0
    y.add_(h)  # the result is not used: what counts is that y has changed
    y.relu_()
    return y


def doubled_by_view(h):
    return torch.cat([h, h[:, :2]], 1)


GRADIENT_LIKE = {
    "residual": lambda h: F.relu(h) + F.max_pool2d(F.relu(h), 3, 1, 1),
    "in place": in_place_statement,
    "in place on a constant": constant_in_place,
    "dtype of another": lambda h: F.relu(h).float().type_as(h) if h.dtype != torch.float64 else F.relu(h).type_as(h),
    "iadd": lambda h: (F.relu(h) * 1.0).__iadd__(F.relu(h)),
    "difference": lambda h: F.relu(h) - 0.5 * F.relu(h.flip(-1)),
    "reversed difference": lambda h: 2.0 - F.relu(h),
    "alpha": lambda h: torch.add(F.relu(h), F.relu(h.roll(1, -1)), alpha=3),
    "constant": lambda h: F.relu(h) + torch.ones(4, 1, 1, dtype=h.dtype),
    "scale": lambda h: -(F.relu(h) * 3 / 2),
    "average": lambda h: F.avg_pool2d(F.relu(h), 2),
    "mean": lambda h: F.relu(h).mean((2, 3)),
    "adaptive": lambda h: F.adaptive_avg_pool2d(F.relu(h), 3),
    "interpolate": lambda h: F.interpolate(F.relu(h), scale_factor=2, mode="bilinear"),
    "concatenate": doubled_by_view,
    "chunks": lambda h: torch.cat(torch.chunk(F.relu(h), 2, 1)[::-1], 1),
    "unbind": lambda h: torch.stack(F.relu(h).unbind(1), 1),
    "max": lambda h: F.relu(h).max(1).values,
    "amax": lambda h: F.relu(h).amax((2, 3)),
    "pad": lambda h: F.pad(F.relu(h), (1, 2, 0, 1)),
    "crop": lambda h: F.relu(h)[:, :, 1:-1, ::2],
    "leaky": lambda h: F.leaky_relu(h, 0.1),
    "prelu": lambda h: F.prelu(h, torch.tensor([0.2], dtype=h.dtype)),
    "unfold": lambda h: F.unfold(F.relu(h), 3),
    "shuffle": lambda h: F.pixel_shuffle(F.relu(h), 2),
    "batch norm": lambda h: F.relu(F.batch_norm(h, torch.zeros(4).to(h), torch.full((4,), 2.0).to(h), eps=1e-3)),
    "transposed": lambda h: F.relu(F.conv_transpose2d(h, torch.ones(4, 2, 3, 3, dtype=h.dtype) / 7, stride=2)),
    "same padding": lambda h: F.conv2d(F.relu(h), torch.ones(2, 4, 2, 2, dtype=h.dtype) / 7, padding="same"),
    "matrix": lambda h: F.relu(h) @ torch.full((8, 5), 0.3, dtype=h.dtype),
}
"""Piecewise linear operations: LRP-0 through them is input times gradient, whatever shape they have."""


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", GRADIENT_LIKE)
def test_lrp_0_through_piecewise_linear_operations_is_input_times_gradient(name):
    network, x = freeze(Through(GRADIENT_LIKE[name])), images(size=8)
    target = network(x).argmax(1)
    found = propagate(network, x, target, LRP_0)
    assert torch.allclose(found.logits, network(x), rtol=1e-12)
    want = input_times_gradient(network, x, target)
    assert (found.relevance - want).abs().max() < 1e-10 * want.abs().max()


CONSERVING = {
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "layer norm": lambda h: F.layer_norm(h, (8,)),
    "group norm": lambda h: F.group_norm(h, 2),
    "instance norm": F.instance_norm,
    "rms norm": lambda h: F.rms_norm(h, (8,)),
    "norm by hand": lambda h: h / h.pow(2).mean(1, keepdim=True).add(1e-6).sqrt(),
    "gate": lambda h: F.relu(h) * torch.sigmoid(h.mean((2, 3), keepdim=True)),
    "product": lambda h: F.relu(h) * F.relu(h.flip(-1)),
    "broadcast product": lambda h: F.relu(h) * h.mean((2, 3), keepdim=True),
    "matrix product": lambda h: h @ h.transpose(-1, -2),
    "einsum": lambda h: torch.einsum("nchw,nchv->ncwv", h, F.relu(h)),
    "expand": lambda h: F.relu(h.mean(1, keepdim=True)).expand(-1, 3, -1, -1),
}


@pytest.mark.parametrize("name", CONSERVING)
def test_other_operations_conserve(name):
    network, x = freeze(Through(CONSERVING[name])), images(size=8)
    for bias in (network.stem.bias, network.head.bias):
        bias.zero_()
    target = network(x).argmax(1)
    found = propagate(network, x, target, LRP_0)
    assert torch.allclose(found.logits, network(x), rtol=1e-9)
    assert torch.allclose(found.totals["input"], found.score, rtol=1e-6), found.totals


def test_the_attention_rules_are_those_of_attnlrp():
    """By hand on one head: half to each factor of a product, softmax by its Taylor expansion."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn((1, 5, 4), generator=g, dtype=torch.float64)
    attention = freeze(nn.MultiheadAttention(4, 1, batch_first=True, bias=False))
    nn.init.xavier_uniform_(attention.in_proj_weight, generator=g)
    head = freeze(nn.Linear(20, 2, bias=False))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention, head

        def forward(self, x):
            return self.head(self.attention(x, x, x, need_weights=False)[0].flatten(1))

    network = Network().eval()
    target = torch.tensor([1])
    found = propagate(network, x, target, LRP_0, layers=("attention",))
    assert torch.allclose(found.logits, network(x), rtol=1e-10)

    wq, wk, wv = attention.in_proj_weight.chunk(3)
    q, k, v = x[0] @ wq.T, x[0] @ wk.T, x[0] @ wv.T
    scores = q @ k.T / 2
    s = scores.softmax(-1)
    mixed = s @ v
    c = head.weight[1].view(5, 4) @ attention.out_proj.weight  # relevance per value of `mixed`
    r_s, r_v = s * (c @ v.T) / 2, v * (s.T @ c) / 2
    r_scores = scores * (r_s - s * r_s.sum(-1, keepdim=True))
    per_score = r_scores / scores / 2
    r_q, r_k = q * (per_score @ k / 2), k * (per_score.T @ q / 2)
    want = sum(x[0] * ((r / y) @ w) for r, y, w in ((r_q, q, wq), (r_k, k, wk), (r_v, v, wv)))
    assert torch.allclose(mixed @ attention.out_proj.weight.T, attention(x, x, x)[0][0])
    assert torch.allclose(found.relevance[0], want, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("same", "copied"), [(lambda h: h @ h, lambda h: h @ (h * 1)), (lambda h: h * h, lambda h: h * (h * 1))]
)
def test_one_tensor_on_both_sides_of_a_product_gets_both_shares(same, copied):
    x, target = images(size=8), torch.tensor([0, 1])
    one, other = (propagate(freeze(Through(operation)), x, target, LRP_0).relevance for operation in (same, copied))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("shape", [lambda s: s, lambda s: s.view(-1, 4, 1, 1), lambda s: s[:, :, None, None]])
def test_a_gate_stays_a_gate_in_another_shape(shape):
    def gated(h):
        s = h.mean((2, 3), keepdim=shape(torch.ones(2, 4)).ndim == 2)
        return F.relu(h) * shape(torch.sigmoid(s))

    found = propagate(freeze(Through(gated)), images(size=8), torch.tensor([0, 1]), LRP_0)
    assert [line.rule for line in found.plan if line.operator == "mul"] == ["signal takes all"]


@pytest.mark.parametrize("masked", ["boolean", "additive", "causal"])
def test_masked_attention_gives_finite_relevance_to_what_is_seen(masked):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = self.embed(x)
            allowed = torch.ones(6, 6, dtype=torch.bool).tril()
            mask = {"boolean": allowed, "additive": torch.zeros(6, 6).masked_fill(~allowed, -torch.inf).to(x)}
            given = {"is_causal": True} if masked == "causal" else {"attn_mask": mask[masked]}
            return self.head(F.scaled_dot_product_attention(h, h, h, **given)[:, 2])

    network, x = freeze(Network()), torch.randn((2, 6, 3), dtype=torch.float64)
    found = propagate(network, x, torch.tensor([0, 1]), LRP_0)
    assert torch.allclose(found.logits, network(x), rtol=1e-9)
    assert found.relevance.isfinite().all()
    assert (found.relevance[:, 3:] == 0).all()
    assert (found.relevance[:, :3] != 0).any()


def transformer(batch_first: bool) -> nn.Module:
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=batch_first)

        def forward(self, x):
            h = self.embed(x if batch_first else x.transpose(0, 1))
            h = self.block(h, src_mask=torch.ones(5, 5, dtype=torch.bool).triu(1))
            return self.head(h.mean(1 if batch_first else 0))

    return freeze(Network())


def test_transformers_with_a_mask_in_both_layouts():
    x, target = torch.randn((2, 5, 3), dtype=torch.float64), torch.tensor([1, 0])
    found = [propagate(transformer(first), x, target, LRP_0) for first in (True, False)]
    assert torch.allclose(found[0].relevance, found[1].relevance, rtol=1e-8, atol=1e-12)
    assert torch.allclose(found[0].totals["block.linear2"], found[1].totals["block.linear2"], rtol=1e-8)
    maps = every_class(transformer(True), x, LRP_0)
    assert torch.allclose(maps[torch.arange(2), target], found[0].relevance, rtol=1e-8, atol=1e-12)

    def map_of(x):
        return propagate(transformer(True), x, target, LRP_0, differentiable=True).relevance

    assert torch.autograd.gradcheck(map_of, (x.requires_grad_(),), eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_padding_masks_of_attention_hide_what_is_padded():
    attention = freeze(nn.MultiheadAttention(4, 2, batch_first=True))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention, nn.Linear(4, 2)

        def forward(self, x):
            hidden = torch.tensor([[False, False, True], [False, True, True]])
            return self.head(self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)[0][:, 0])

    network, x = freeze(Network()), torch.randn((2, 3, 4), dtype=torch.float64)
    found = propagate(network, x, torch.tensor([0, 1]), LRP_0)
    assert torch.allclose(found.logits, network(x), rtol=1e-9)
    assert (found.relevance[0, 2] == 0).all()
    assert (found.relevance[1, 1:] == 0).all()


@pytest.mark.parametrize("pad", [nn.ZeroPad2d(1), nn.ReflectionPad2d(1)])
def test_the_first_layer_is_known_behind_padding(pad):
    network = freeze(nn.Sequential(pad, nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)))
    found = propagate(network, images(size=8), torch.tensor([0, 1]), PRESET_A_FLAT)
    assert [line.rule for line in found.plan if line.layer == "1"] == ["Flat()"]


def test_nothing_of_an_explanation_stays_in_memory():
    import gc
    import weakref

    network, x = relu_network(), images()
    seen = []
    network.register_forward_pre_hook(lambda module, args: seen.append(weakref.ref(args[0])))
    network[6].register_forward_pre_hook(lambda module, args: seen.append(weakref.ref(args[0])))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            propagate(network, x, torch.tensor([0, 1]), PRESET_A_FLAT, layers=("last",))
        assert [ref() for ref in seen if ref() is not None] == []
    finally:
        gc.enable()


def test_relevance_in_inference_mode_is_the_same():
    network, x, target = relu_network(), images(), torch.tensor([0, 1])
    with torch.inference_mode():
        found = propagate(network, x, target, PRESET_A_FLAT).relevance
        again = propagate(network, x + 0, target, PRESET_A_FLAT).relevance
    assert torch.equal(found, propagate(network, x, target, PRESET_A_FLAT).relevance)
    assert torch.equal(found, again)


@pytest.mark.parametrize("name", COMPOSITES)
def test_relevance_can_be_differentiated(name):
    network = relu_network(2)
    x = images(3).requires_grad_()
    target = network(x).argmax(1)

    def map_of(x):
        return propagate(network, x, target, COMPOSITES[name], differentiable=True).relevance

    assert torch.equal(map_of(x).detach(), propagate(network, x.detach(), target, COMPOSITES[name]).relevance)
    assert torch.autograd.gradcheck(map_of, (x,), eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_relevance_can_be_differentiated_by_the_weights_and_twice():
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, 2, 3).double(), nn.Linear(72, 2).double()
    network = nn.Sequential(conv, nn.GELU(), nn.Flatten(), nn.LayerNorm(72).double(), head).eval()
    x, target = images(size=8, count=1).requires_grad_(), torch.tensor([1])

    def map_of(x, weight):
        with torch.no_grad():
            conv.weight.copy_(weight)
        return torch.func.functional_call(_Explained(network, target), {"network.0.weight": weight}, (x,))

    assert torch.autograd.gradcheck(map_of, (x, conv.weight.clone().requires_grad_()), eps=1e-6, fast_mode=True)
    loss = propagate(network, x, target, PRESET_A_FLAT, differentiable=True).relevance.square().sum()
    (once,) = torch.autograd.grad(loss, x, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), x)
    assert twice.isfinite().all()
    assert twice.abs().sum() > 0


class _Explained(nn.Module):
    """The map as a module's output, so that its weights can be handed in."""

    def __init__(self, network, target):
        super().__init__()
        self.network, self.target = network, target

    def forward(self, x):
        return propagate(self.network, x, self.target, LRP_0, differentiable=True).relevance


@pytest.mark.parametrize("name", COMPOSITES)
def test_every_class_from_one_forward_pass(name):
    network, x = relu_network(1), images(1)
    maps = every_class(network, x, COMPOSITES[name], at_once=2)
    assert maps.shape == (2, 3, 3, 16, 16)
    for klass in range(3):
        alone = propagate(network, x, torch.full((2,), klass), COMPOSITES[name]).relevance
        assert torch.allclose(maps[:, klass], alone, rtol=1e-9, atol=1e-14)


def test_a_contrast_is_the_difference_of_two_maps():
    classifier = small_classifier(size=16)
    batch = labelled_batch(classifier)
    labels = (batch.labels + 1) % 3
    wrong = Batch(ids=batch.ids, pixels=batch.pixels, labels=labels)
    method = make("lrp.sequential_preset_a_flat")
    contrast = explain(classifier, wrong, method, target="contrast")
    for_true, for_predicted = explain(classifier, wrong, method, target="true"), explain(classifier, wrong, method)
    assert torch.equal(contrast.target, labels)
    assert torch.equal(contrast.against, batch.labels)  # the predicted class, since the true one is not predicted
    assert torch.allclose(contrast.relevance, for_true.relevance - for_predicted.relevance, atol=1e-6)
    assert torch.allclose(contrast.score, for_true.score - for_predicted.score)
    second = explain(classifier, batch, method, target="runner-up")
    assert not (second.target == batch.labels).any()
    right = explain(classifier, batch, method, target="contrast")
    assert torch.equal(right.against, second.target)
    with pytest.raises(InvalidInput, match="write one of predicted, true, runner-up, contrast"):
        explain(classifier, batch, method, target="second")


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.08)])
@pytest.mark.parametrize("name", ["preset a flat", "epsilon", "lrp-0"])
def test_lower_precision_stays_near_float64(name, dtype, bound):
    network, x = relu_network(0), images(0)
    target = network(x).argmax(1)
    exact = propagate(network, x, target, COMPOSITES[name]).relevance
    low = relu_network(0).to(dtype)
    found = propagate(low, x.to(dtype), target, COMPOSITES[name]).relevance
    assert found.dtype == torch.float32
    assert (found.double() - exact).norm() < bound * exact.norm()


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_compiled_relevance_is_the_same(backend):
    network, x = relu_network(3), images(5)
    target = network(x).argmax(1)
    fast = compiled(network, x, target, PRESET_A_FLAT, backend=backend)
    other = images(6)
    for_other = network(other).argmax(1)
    want = propagate(network, other, for_other, PRESET_A_FLAT).relevance
    assert torch.allclose(fast(other, for_other), want, rtol=1e-9, atol=1e-14)


def test_a_compiled_network_is_watched_as_it_was_written():
    network, x = relu_network(3), images(5)
    target = network(x).argmax(1)
    want = propagate(network, x, target, PRESET_A_FLAT).relevance
    for made in (torch.compile(network, backend="eager"), nn.Sequential(torch.compile(network, backend="eager"))):
        assert torch.equal(propagate(made.eval(), x, target, PRESET_A_FLAT).relevance, want)


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.9"), reason="torch 2.6 to 2.8 fails to compile it: KeyError"
)
def test_lrp_inside_a_compiled_function_is_the_same():
    network, x = relu_network(3), images(5)
    target = network(x).argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler says of the parts it leaves alone
        fast = torch.compile(lambda x: propagate(network, x, target, PRESET_A_FLAT).relevance * 2, backend="eager")
        assert torch.equal(fast(x), 2 * propagate(network, x, target, PRESET_A_FLAT).relevance)


@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10), layer=st.sampled_from([0, 2, 6]))
@settings(max_examples=settings.default.max_examples // 2)
def test_scaling_a_layer_and_unscaling_the_next_changes_nothing(seed, factor, layer):
    network, x = relu_network(seed), images(seed)
    target = network(x).argmax(1)
    composite = Composite((Line(rule=AlphaBeta(), kind="conv"), Line(rule=Epsilon(epsilon=0.0))))
    before = propagate(network, x, target, composite).relevance
    network[layer].weight *= factor
    network[layer].bias *= factor
    network[{0: 2, 2: 6, 6: 8}[layer]].weight /= factor
    after = propagate(network, x, target, composite).relevance
    assert torch.allclose(before, after, rtol=1e-6, atol=1e-9 * before.abs().max().item())


@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(COMPOSITES)))
@settings(max_examples=settings.default.max_examples // 2)
def test_permuting_hidden_channels_changes_nothing_and_images_do_not_see_each_other(seed, name):
    network, x = relu_network(seed), images(seed, count=3)
    target = network(x).argmax(1)
    before = propagate(network, x, target, COMPOSITES[name]).relevance
    scale = before.abs().amax((1, 2, 3), keepdim=True) + 1e-300
    alone = propagate(network, x[1:2], target[1:2], COMPOSITES[name]).relevance
    assert ((alone - before[1:2]) / scale[1:2]).abs().max() < 1e-10
    order = torch.from_numpy(np.random.default_rng(seed).permutation(5))
    first, second = network[0], network[2]
    first.weight.copy_(first.weight[order].clone())
    first.bias.copy_(first.bias[order].clone())
    second.weight.copy_(second.weight[:, order].clone())
    assert ((propagate(network, x, target, COMPOSITES[name]).relevance - before) / scale).abs().max() < 1e-9


def test_weights_changed_between_two_maps_are_seen():
    network, x = relu_network(0), images()
    target = network(x).argmax(1)
    before = propagate(network, x, target, PRESET_A_FLAT).relevance
    network[2].weight.mul_(torch.linspace(0.5, 2, 6).view(-1, 1, 1, 1).double())
    changed = propagate(network, x, target, PRESET_A_FLAT).relevance
    fresh = relu_network(0)
    fresh.load_state_dict(network.state_dict())
    assert not torch.allclose(before, changed)
    assert torch.equal(changed, propagate(fresh, x, target, PRESET_A_FLAT).relevance)


def test_a_fused_optimizer_does_not_leave_old_weights_behind():
    network, x, target = relu_network(0).float(), images().float(), torch.tensor([0, 1])
    propagate(network, x, target, PRESET_A_FLAT)
    network.requires_grad_(True)
    network(x).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.5, fused=True).step()
    network.requires_grad_(False)
    fresh = relu_network(0).float()
    fresh.load_state_dict(network.state_dict())
    want = propagate(fresh, x, target, PRESET_A_FLAT).relevance
    assert torch.equal(propagate(network, x, target, PRESET_A_FLAT).relevance, want)


def test_rules_by_type_depth_and_name():
    lines = [
        {"rule": "z_box", "first": True, "settings": {"low": [-1.0], "high": [2.0]}},
        {"rule": "gamma", "names": "2", "settings": {"gamma": 0.5}},
        {"rule": "w_square", "depth": [2, 3]},
        {"rule": "epsilon", "kind": "dense", "settings": {"epsilon": 0.1}},
    ]
    network, x = relu_network(0), images()
    classifier = Classifier(network=network, trainable=network, classes=("a", "b", "c"), size=16, name="net")
    seen, _ = make("lrp.composite", lines=lines).attribute(classifier, x, network(x).argmax(1))
    plan = {line.layer: line.rule.partition("(")[0] for line in seen.plan if line.operator in ("conv", "dense")}
    assert plan == {"0": "ZBox", "2": "Gamma", "6": "WSquare", "8": "Epsilon"}
    assert [line.epsilon for line in seen.plan if line.layer == "8"] == [0.1]
    with pytest.raises(Unsupported, match="no line of the composite matches layer '2'"):
        make("lrp.composite", lines=lines[:1]).attribute(classifier, x, network(x).argmax(1))
    with pytest.raises(InvalidInput, match=r"'flat' cannot take .*'alpha'"):
        make("lrp.composite", lines=[{"rule": "flat", "settings": {"alpha": 1}}])


def test_a_block_is_known_by_its_prefix():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return F.relu(x + self.two(F.relu(self.one(x))))

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Block(), Block(), nn.Flatten(), nn.Linear(4 * 36, 2))
    network, x = freeze(network), images(size=8)
    target = network(x).argmax(1)
    layers = propagate(network, x, target, LRP_0, layers=("1", "2.one", "last")).layers
    hidden = network[:2](x).requires_grad_()
    (gradient,) = torch.autograd.grad(network[2:](hidden).gather(1, target[:, None]).sum(), hidden)
    assert torch.allclose(layers["1"], hidden.detach() * gradient, rtol=1e-8, atol=1e-12)
    assert layers["last"].shape == (2, 144)
    import torchvision

    resnet = torchvision.models.resnet18(num_classes=2).eval().requires_grad_(False)
    wanted = ("layer4", "layer2.0", "layer2.0.downsample", "layer2.0.conv2")
    found = propagate(resnet, images(size=64).float(), target, LRP_0, layers=wanted).layers
    assert [found[name].shape[1:] for name in wanted] == [(512, 2, 2), *[(128, 8, 8)] * 3]
    branches = found["layer2.0.downsample"] + found["layer2.0.conv2"]
    assert not torch.allclose(found["layer2.0.downsample"], found["layer2.0"])
    assert torch.allclose(branches.sum((1, 2, 3)), found["layer2.0"].sum((1, 2, 3)), rtol=0.05, atol=1e-3)


class _Logits(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.head = function, nn.Linear(3 * 64, 2)

    def forward(self, x):
        return self.head(self.function(x).flatten(1))


def mutated_through_a_view(x):
    y = x * 2
    y[:, 0].add_(x[:, 1])
    return y


def written_into(x):
    out = torch.zeros_like(x)
    out[:, :2] = x[:, :2]
    return out + x


def part_of_a_constant(x):
    out = torch.zeros_like(x)
    out[:, 0].add_(x[:, 0])
    return out + x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.sin, r"no rule for the operation 'sin'.*Rules exist for: .*max_pool2d.*'integrated_gradients'"),
        (lambda x: torch.fft.fft2(x).real, "no rule for the operation 'fft_fft2'"),
        (lambda x: x.detach() + 0 * x, "no rule for the operation 'detach'"),
        (written_into, "no rule for the operation '__setitem__'"),
        (mutated_through_a_view, "changed it through a view"),
        (part_of_a_constant, "into a part of a constant"),
        (lambda x: torch.from_numpy((x * 2).numpy()), "no rule for the operation 'numpy'"),
        (lambda x: torch.mul(x, 2, out=torch.empty_like(x)), "no rule for the operation 'mul'"),
        (lambda x: 1 / (x + 1), "a constant divided by an activation"),
        (lambda x: F.dropout(x, 0.5, training=True), "call network.eval"),
        (lambda x: F.batch_norm(x, None, None, training=True), "call network.eval"),
        (lambda x: F.conv2d(x[:1], x.mean((0,))[None]).expand(2, 3, 8, 8), "depends on the image"),
    ],
)
def test_what_has_no_rule_is_an_error_that_names_it(function, message):
    torch.manual_seed(0)
    network = freeze(_Logits(function))
    with pytest.raises((Unsupported, InvalidInput), match=message):
        propagate(network, images(size=8), torch.tensor([0, 1]), LRP_0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_networks_and_inputs_that_cannot_be_explained():
    x, target = images(size=8), torch.tensor([0, 1])
    network = freeze(_Logits(torch.relu))
    with pytest.raises(Unsupported, match="Scripted networks cannot be watched"):
        propagate(torch.jit.trace(network, x), x, target, LRP_0)
    with pytest.raises(InvalidInput, match=r"inputs must be floating point, \[N, ...\], got torch.uint8"):
        propagate(network, (x * 255).byte(), target, LRP_0)
    training = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    training[1].train()
    with pytest.raises(InvalidInput, match=r"the network is in train mode \(1\)"):
        propagate(training, x, target, LRP_0)
    scripted = nn.Sequential(torch.jit.script(nn.ReLU()), nn.Flatten(), nn.Linear(192, 2)).double().eval()
    with pytest.raises(Unsupported, match="0 is scripted"):
        propagate(scripted, x, target, LRP_0)
    with pytest.raises(Unsupported, match="a wrapper that picks the logits"):
        propagate(freeze(nn.Sequential(nn.Conv2d(3, 2, 3))), x, target, LRP_0)


def of(network, size=16):
    return wrap(network, classes=["a", "b"], size=size)


def test_odd_classifiers_give_an_error_or_a_defined_map():
    pixels = torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 128.0)]).byte()
    batch = Batch(ids=("zero", "grey"), pixels=pixels, labels=torch.tensor([0, 1]))
    method = make("lrp.sequential_preset_a_flat")
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    for name in ("lrp.z", "lrp.sequential_preset_a"):
        seen = explain(of(layers), batch, make(name))
        assert (seen.relevance[0] == 0).all(), "a black image has no contributions"
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    nn.init.zeros_(network[3].weight)
    assert (explain(of(network), batch, method).relevance == 0).all()
    one = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 1)),
               classes=["a", "b"], size=16)  # fmt: skip
    maps = [explain(one, batch, make("lrp.z"), target=torch.full((2,), k)) for k in (0, 1)]
    assert all(m.relevance.isfinite().all() for m in maps)
    damaged = of(layers)
    next(iter(damaged.network.parameters())).data.fill_(float("nan"))
    with pytest.raises(BrokenContract, match=r"logits that are not finite. Look for NaN weights"):
        explain(damaged, batch, method)
    training = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(),
                             nn.Linear(4 * 14 * 14, 2)).train()  # fmt: skip
    assert explain(of(training), batch, method).relevance.isfinite().all()


def test_conservation_is_told_per_layer_and_a_leak_warns_with_the_layers_name():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    with torch.no_grad():
        for p in network.parameters():
            p.abs_() if p.ndim > 1 else p.zero_()
    classifier = wrap(network, classes=["a", "b"], size=16)
    batch = labelled_batch(classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = explain(classifier, batch, make("lrp.sequential_preset_a", epsilon=1e-9))
    told = conservation(seen)
    assert len(told) == 3
    assert all(abs(leak.ratio - 1) < 1e-4 and abs(leak.received - 1) < 1e-4 for leak in told)
    z = network[3](network[:3](classifier.normalise(batch.pixels / 255))).median().item()
    leak = {"rule": "epsilon", "names": told[1].layer, "settings": {"epsilon": 3 * z}}
    leaking = make("lrp.composite", lines=[leak, {"rule": "alpha_beta"}])
    with pytest.warns(ConservationWarning, match=rf"{told[1].layer}: 1 in, 0\.2"):
        explain(classifier, batch, leaking)


def folded_with_positive_biases(architecture):
    """A torchvision network as both libraries can be asked for: positive biases, no residue of calibration."""
    import torchvision

    torch.manual_seed(0)
    raw = getattr(torchvision.models, architecture)(num_classes=4)
    for module in raw.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.eps = 1e-12  # zennit applies it twice, once when it merges and once in what is left of the layer
    return raw.eval()


@pytest.mark.parametrize("architecture", ["vgg11", "vgg11_bn", "resnet18", "resnet50"])
def test_epsilon_plus_flat_equals_zennit_without_a_canonizer_list(architecture):
    pytest.importorskip("zennit")
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    raw = folded_with_positive_biases(architecture).double()
    x = torch.randn((2, 3, 64, 64), dtype=torch.float64)
    classifier = wrap(raw, classes="abcd", size=64)
    network = classifier.network
    target = network(x).argmax(1)
    ours, _ = make("lrp.epsilon_plus_flat", epsilon=1e-6).attribute(classifier, x, target)
    canonizer = ResNetCanonizer() if "resnet" in architecture else SequentialMergeBatchNorm()
    leaf = x.clone().requires_grad_()
    with EpsilonPlusFlat(canonizers=[canonizer]).context(raw) as watched:
        logits = watched(leaf)
        seed = torch.zeros_like(logits).scatter(1, target[:, None], logits.detach().gather(1, target[:, None]))
        (theirs,) = torch.autograd.grad(logits, leaf, seed)
    assert torch.allclose(logits, network(x), rtol=1e-5, atol=1e-7)
    assert (ours.relevance - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_alpha_1_beta_0_equals_captum_where_its_rule_is_valid():
    captum = pytest.importorskip("captum")
    from captum.attr import LRP as CaptumLRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    del captum
    network, x = relu_network(4, bias=False), images(4)
    target = network(x).argmax(1)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.rule = Alpha1_Beta0_Rule()
        elif isinstance(layer, nn.Linear):
            layer.rule = EpsilonRule(epsilon=0.1)
        elif isinstance(layer, nn.Flatten):
            layer.rule = EpsilonRule(epsilon=1e-12)
    theirs = CaptumLRP(nn.Sequential(*network)).attribute(x.clone().requires_grad_(), target=target)
    fresh = relu_network(4, bias=False)
    composite = Composite((Line(rule=Epsilon(epsilon=0.1), kind="dense"), Line(rule=AlphaBeta())))
    ours = propagate(fresh, x, target, composite).relevance
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["vgg11", "vgg16", "resnet18", "resnet50", "densenet121", "mobilenet_v2"])
def test_relevance_is_conserved_in_known_architectures_without_biases(architecture):
    import torchvision

    torch.manual_seed(1)
    raw = getattr(torchvision.models, architecture)(num_classes=10)
    x = torch.randn(2, 3, 112, 112)
    for module in raw.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        raw.train()(torch.randn(8, 3, 112, 112))
    classifier = wrap(raw.eval(), classes=[str(i) for i in range(10)], size=112)
    for module in classifier.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    target = classifier.network(x).argmax(1)
    for name in ("lrp.sequential_preset_a_flat", "lrp.epsilon_plus"):
        seen, _ = make(name, epsilon=1e-9).attribute(classifier, x, target)
        assert ((seen.totals["input"] / seen.score - 1).abs() < 1e-3).all(), (name, seen.totals["input"], seen.score)
