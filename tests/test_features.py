"""The map as a picture, the signature, dropout in the head and the oracle, against slow versions and closed forms."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch import nn

from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.lattice import to_images
from heatprint.core.streams import stream
from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.appearance import Appearance
from heatprint.detectors.features.depths import at_depths
from heatprint.detectors.features.dropout import Dropout, uncertainty
from heatprint.detectors.features.picture import concentration, kurtosis, likeness, overlap, place, positive, texture
from heatprint.detectors.features.signature import Signature
from heatprint.detectors.look import Look
from heatprint.evaluation.oracle import DIFFERENCES, true_difference
from heatprint.explainers.trust.sparseness import gini, top_share
from heatprint.models import load, wrap
from heatprint.models.head import through_head

NEW = ("appearance", "dropout", "signature")


@pytest.fixture(scope="module")
def slim():
    """An untrained network with three dense layers, in float64."""
    return doubled(load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0))


def doubled(classifier):
    return replace(classifier, network=copy.deepcopy(classifier.network).double())


def times(classifier, factor):
    """The same network with its logits multiplied."""
    network = copy.deepcopy(classifier.network)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    last.weight.data *= factor
    last.bias.data *= factor
    return replace(classifier, network=network)


def images(count, size, seed=0):
    """Smooth images with noise, uint8 [count, 3, size, size]; the last two are even."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.zoom(rng.uniform(60, 200, (count, 3, 4, 4)), (1, 1, size / 4, size / 4), order=1)
    pixels = (smooth + rng.normal(0, 3, smooth.shape)).round().clip(0, 255).astype(np.uint8)
    pixels[-2:] = np.array([0, 128], np.uint8).reshape(2, 1, 1, 1)
    return torch.from_numpy(pixels)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# --- what a map looks like --------------------------------------------------------------------------------


def test_concentration_is_that_of_the_slow_versions():
    heat = noise(4, 12, 15).pow(3)
    found = concentration(heat, (0.01, 0.2))
    np.testing.assert_allclose(found[:, 0], top_share(heat, part=0.01))
    np.testing.assert_allclose(found[:, 1], top_share(heat, part=0.2))
    np.testing.assert_allclose(found[:, 2], gini(heat))
    flat = heat.flatten(1).numpy()
    np.testing.assert_allclose(found[:, 3], stats.entropy(np.abs(flat), axis=1) / np.log(180))
    np.testing.assert_allclose(found[:, 4], np.log1p(stats.kurtosis(flat, axis=1, fisher=False)))
    np.testing.assert_allclose(positive(heat), flat.clip(0).sum(1) / np.abs(flat).sum(1))


def test_concentration_in_closed_form():
    heat = torch.zeros(3, 10, 10)
    heat[0] = -4  # even
    heat[1, 3, 3] = 2  # a single pixel; the third is empty
    found = concentration(heat, (0.0, 0.1))
    np.testing.assert_allclose(found[0], [0.01, 0.1, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found[1, :4], [1, 1, 0.99, 0], atol=1e-12)
    np.testing.assert_allclose(found[2], found[0], atol=1e-12)
    assert positive(heat).tolist() == [0, 1, 0.5]
    assert kurtosis(torch.full((1, 1000), 0.1)).item() == 0  # whose mean is not exactly a tenth


def test_place_in_closed_form():
    heat = torch.zeros(4, 17, 17)
    heat[0, 0, 16] = -3
    heat[1].fill_diagonal_(1)
    heat[2] = 1
    heat[3, 4:13, 8] = 5
    found = place(heat)
    np.testing.assert_allclose(found[0], [-1, 1, 0, 1, 1], atol=1e-9)
    np.testing.assert_allclose(found[1, [0, 1, 3]], [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(found[2, [0, 1, 3, 4]], [0, 0, 0, 1 - (13 / 17) ** 2], atol=1e-9)
    np.testing.assert_allclose(found[3, 2:], [np.sqrt(np.mean((np.arange(-4, 5) / 8) ** 2)), 1, 0], atol=1e-9)


def test_texture_in_closed_form():
    rows, columns = np.indices((16, 16))
    heat = torch.from_numpy(np.stack([(-1.0) ** (rows + columns), np.ones((16, 16)), columns + 1.0, 0 * rows]))
    found = texture(heat)
    np.testing.assert_allclose(found[0, :3], [4, -1, 0], atol=1e-9)
    np.testing.assert_allclose(found[1, [0, 2]], [0, 1], atol=1e-9)
    np.testing.assert_allclose(found[2, :3], [0, 1, 1], atol=1e-9)
    assert found[3].isfinite().all()
    square = torch.zeros(1, 14, 14)
    square[0, 4:6, 8:10] = 7
    assert texture(square)[0, 3] == 1


def test_likeness_and_overlap():
    one, other = noise(3, 6, 7), noise(3, 6, 7, seed=1)
    other[0], other[1] = 5 - 2 * one[0], 1
    wanted = [-1, 0, np.corrcoef(one[2].flatten(), other[2].flatten())[0, 1]]
    np.testing.assert_allclose(likeness(one, other), wanted, atol=1e-9)
    top = [set(np.argsort(-np.abs(maps[2].flatten().numpy()))[:8]) for maps in (one, other)]
    assert overlap(one, other, 0.2)[2] == len(top[0] & top[1]) / 8
    assert overlap(one, one, 0.2).tolist() == [1, 1, 1]


@given(st.integers(0, 10**6), st.floats(-12, 12))
def test_a_picture_s_numbers_do_not_know_its_scale(seed, power):
    heat = noise(2, 14, 14, seed=seed)
    scaled = 10.0**power * heat
    for measured in (positive, place, texture, lambda h: concentration(h, (0.01,)), lambda h: likeness(h, heat)):
        np.testing.assert_allclose(measured(scaled), measured(heat), rtol=1e-7, atol=1e-9)


# --- all three families -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_columns_are_the_image_s_own_repeatable_and_finite(name, slim):
    pixels = images(6, 32)
    before = slim.fingerprint()
    family = FEATURES.make(name)
    together = family.measure(Look(slim, pixels))
    assert together.dtype == torch.float32
    assert together.shape == (6, len(set(family.names)))
    assert together.isfinite().all()
    assert torch.equal(family.measure(Look(slim, pixels)), together)
    alone = torch.cat([family.measure(Look(slim, one)) for one in pixels[2:].split(1)])
    np.testing.assert_allclose(alone, together[2:], rtol=1e-5, atol=1e-5)
    assert (together[:4].std(0) > 0).float().mean() > 0.8  # they say something
    assert slim.fingerprint() == before


@pytest.mark.parametrize("name", ["appearance", "signature"])
def test_a_network_with_larger_logits_has_the_same_columns_but_those_that_follow_the_margin(name, slim):
    pixels, family = images(6, 32), FEATURES.make(name)
    assert set(family.follows_margin) < set(family.names)
    kept = [place for place, column in enumerate(family.names) if column not in family.follows_margin]
    found = [family.measure(Look(one, pixels))[:, kept] for one in (slim, times(slim, 30.0))]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


# --- appearance -------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Two dense layers without biases between functional activations, the first of them in place."""

    def __init__(self, classes=3):
        super().__init__()
        rng = stream(0, "plain")
        self.first, self.second, self.third = (
            nn.Parameter(torch.from_numpy(rng.standard_normal(shape)).float() / 8)
            for shape in ((20, 192), (12, 20), (classes, 12))
        )

    def forward(self, x):
        x = torch.nn.functional.linear(x.flatten(1), self.first)
        x = torch.nn.functional.linear(x.relu_(), self.second)
        return torch.nn.functional.linear(torch.nn.functional.gelu(x), self.third)


@pytest.fixture(scope="module")
def plain():
    return wrap(Plain(), classes=("a", "b", "c"), size=8)


def test_activation_times_slope_at_depths_is_the_formula(plain, linear):
    pixels = to_images(images(5, 8))
    first, *middle, last = at_depths(plain, pixels, 4)
    assert [values.shape[1] for values in (first, *middle, last)] == [20, 20, 12, 12]
    network = plain.network
    a = (pixels.flatten(1) @ network.first.T).clamp_min(0)
    hidden = torch.nn.functional.gelu(a @ network.second.T)
    logits = hidden @ network.third.T
    own, rival = logits.topk(2, dim=1).indices.T
    torch.testing.assert_close(last, hidden * (network.third[own] - network.third[rival]))
    top = logits.topk(2, dim=1).values
    torch.testing.assert_close(last.sum(1), top[:, 0] - top[:, 1])
    grey = to_images(images(5, 12))
    (source, again) = at_depths(linear, grey, 2)  # no activation: the input itself
    weight = linear.network.dense.weight
    sign = torch.where(linear(grey)[:, 0] > linear(grey)[:, 1], 1, -1)
    wanted = grey * (sign[:, None] * (weight[0] - weight[1])).view_as(grey)
    torch.testing.assert_close(source, wanted)
    assert torch.equal(source, again)


def test_a_linear_network_s_slope_looks_like_its_weights(linear):
    pixels, names = images(6, 12), Appearance().names
    found = Appearance().measure(Look(linear, pixels)).double()[:4]  # the others are of one colour
    weight = linear.network.dense.weight
    size = (weight[0] - weight[1]).view(1, 3, 12, 12).abs().sum(1)
    start = names.index("slope top 0.1 %")
    wanted = concentration(size, (0.001, 0.01, 0.05)).expand(4, -1)
    np.testing.assert_allclose(found[:, start : start + 6], wanted, rtol=1e-5)
    assert found[:, names.index("rival size")].min() > 0


def test_appearance_wants_relevance():
    with pytest.raises(InvalidInput, match=r"write an 'lrp\.' one"):
        Appearance(method="gradient")


# --- signature --------------------------------------------------------------------------------------------


def test_the_signature_is_made_of_contributions(plain):
    pixels = images(5, 8)
    found = dict(zip(Signature().names, Signature().measure(Look(plain, pixels)).T.numpy(), strict=True))
    network = plain.network
    hidden = torch.nn.functional.gelu(
        (to_images(pixels).flatten(1) @ network.first.T).clamp_min(0) @ network.second.T
    ).numpy()
    weight = network.third.numpy()
    for row in (0, 1, 2, 4):  # the other is black, of which nothing is left
        logits = weight @ hidden[row]
        own, rival = np.argsort(-logits)[:2]
        c, r = hidden[row] * weight[own], hidden[row] * weight[rival]
        d, sizes = c - r, np.sort(np.abs(c))[::-1]
        at = {name: float(values[row]) for name, values in found.items()}
        assert at["own positive"] == pytest.approx(c.clip(0).sum() / sizes.sum(), rel=1e-4)
        assert at["own first"] == pytest.approx(sizes[0] / sizes.sum(), rel=1e-4)
        assert at["own top 20 %"] == pytest.approx(sizes[:2].sum() / sizes.sum(), rel=1e-4)
        # what its docstring calls following the margin
        assert at["contrast positive"] == pytest.approx((1 + (logits[own] - logits[rival]) / np.abs(d).sum()) / 2)
        assert at["classes alike"] == pytest.approx(c @ r / np.linalg.norm(c) / np.linalg.norm(r), rel=1e-4)
        assert at["rival size"] == pytest.approx(np.abs(r).sum() / (np.abs(r).sum() + np.abs(c).sum()), rel=1e-4)
        towards = weight[own] - weight[rival]
        cosine = d.sum() / np.linalg.norm(hidden[row]) / np.linalg.norm(towards)
        assert at["towards the margin"] == pytest.approx(cosine, rel=1e-4)


class Pooled(nn.Module):
    """Squeeze and excitation, a convolution, and the mean of its maps: no dense layer behind the convolutions."""

    def __init__(self, *, head=None):
        super().__init__()
        self.first, self.squeeze = nn.Conv2d(3, 6, 3), nn.Linear(6, 6)
        self.second = nn.Conv2d(6, 4 if head else 2, 3)
        self.head = head or nn.Identity()

    def forward(self, x):
        x = self.first(x).relu()
        x = x * self.squeeze(x.mean((2, 3))).sigmoid()[..., None, None]
        return self.head(self.second(x).mean((2, 3)))


class Tokens(nn.Module):
    """A convolution, a dense layer of every place, and one of their mean."""

    def __init__(self):
        super().__init__()
        self.patches, self.mixed, self.last = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        places = self.patches(x).flatten(2).transpose(1, 2)
        return self.last(self.mixed(places).relu().mean(1))


class Counting(nn.Module):
    """A dense layer whose rows are dealt out anew."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 2)

    def forward(self, x):
        return self.dense(x).reshape(len(x), -1)


class Added(nn.Module):
    """A dense layer and what it reads, added up."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)

    def forward(self, x):
        return (self.dense(x) + x)[:, :2]


def pooled(head=None):
    torch.manual_seed(0)
    return wrap(Pooled(head=head), classes=("a", "b"), size=12)


def test_networks_without_a_head_are_refused_clearly():
    pixels = images(3, 12)
    with pytest.raises(InvalidInput, match="no linear layer of vectors behind its last convolution"):
        Dropout().measure(Look(pooled(), pixels))
    with pytest.raises(Unsupported, match="leave 'signature' out"):
        Signature().measure(Look(pooled(), pixels))
    for head in (Counting(), Added()):
        with pytest.raises(Unsupported, match="leave 'dropout' out"):
            Dropout().measure(Look(pooled(head), pixels))


# --- dropout ----------------------------------------------------------------------------------------------


def test_dropout_is_that_of_the_slow_loop(slim):
    pixels, method = to_images(images(4, 32)).double(), Dropout(passes=5, rate=0.4, seed=3)
    found = method.logits(slim, pixels)
    network, seen = slim.network, []
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    hook = dense[0].register_forward_hook(lambda module, given, out: seen.append(given[0]))
    base = slim(pixels)
    hook.remove()
    masks = [method.mask(layer, module.in_features) for layer, module in enumerate(dense)]
    assert [mask.shape for mask in masks] == [(5, 576), (5, 128), (5, 128)]
    for number in range(5):
        x = seen[0]
        for module, mask in zip(dense, masks, strict=True):
            x = module(x * mask[number].double())
            x = x.relu() if module is not dense[-1] else x
        torch.testing.assert_close(found[number], x)
    assert not torch.allclose(found.mean(0), base)
    assert not torch.equal(masks[1], masks[2])
    kept = (masks[0] > 0).double().mean().item()
    assert kept == pytest.approx(0.6, abs=0.03)
    assert masks[0].unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert torch.equal(Dropout(passes=5, rate=0.4, seed=3).logits(slim, pixels), found)
    assert not torch.allclose(Dropout(passes=5, rate=0.4, seed=4).logits(slim, pixels), found)


def test_the_head_begins_behind_convolutions_and_dense_layers_of_places(small):
    pixels, asked = to_images(images(3, 12)), []
    assert Dropout(passes=4).logits(small, to_images(images(3, 16))).shape == (4, 3, 3)

    def untouched(layer, width):
        asked.append((layer, width))
        return torch.ones(2, width)

    for victim, width in ((pooled(nn.Linear(4, 2)), 4), (wrap(Tokens(), classes=("a", "b"), size=12), 6)):
        asked.clear()
        found = through_head(victim, pixels, 2, untouched)
        assert asked == [(0, width)]
        torch.testing.assert_close(found, victim(pixels).expand(2, -1, -1))


def test_uncertainty_in_closed_form():
    sure, names = 40.0, Dropout().names
    logits = torch.tensor([[[sure, 0.0], [1.0, 0.0], [0.0, 0.0]], [[0.0, sure], [1.0, 0.0], [2.0, 0.0]]])
    opposite, same, moved = (
        dict(zip(names, row.tolist(), strict=True)) for row in uncertainty(logits, torch.tensor([0, 0, 0]))
    )
    assert opposite["mean margin"] == 0
    assert opposite["margin deviation"] == sure
    assert opposite["smallest margin"] == -sure
    assert opposite["changed"] == 0.5
    assert opposite["entropy"] == pytest.approx(1)
    assert opposite["mutual information"] == pytest.approx(1)
    assert opposite["variance"] == pytest.approx(0.25)
    p = 1 / (1 + np.exp(-1))
    assert same["entropy"] == pytest.approx(stats.entropy([p, 1 - p], base=2))
    assert [same[name] for name in ("margin deviation", "mutual information", "variance")] == pytest.approx([0] * 3)
    assert moved["margin over deviation"] == pytest.approx(1)
    assert moved["changed"] == 0


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": 1.0}, {"passes": 1}])
def test_dropout_settings_are_checked(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        Dropout(**settings)


# --- the oracle -------------------------------------------------------------------------------------------


def differences(classifier, clean, pixels):
    table = true_difference(classifier, clean, pixels)
    assert np.isfinite(table).all()
    return [dict(zip(DIFFERENCES, row.tolist(), strict=True)) for row in table]


@pytest.fixture(scope="module")
def rough():
    """A linear classifier whose two logits are opposite."""
    weight = noise(1, 3 * 16 * 16).float()
    dense = nn.Linear(768, 2)
    dense.weight.data, dense.bias.data = torch.cat([weight, -weight]), torch.zeros(2)
    return wrap(nn.Sequential(nn.Flatten(), dense), classes=("a", "b"), size=16)


def test_the_oracle_knows_single_pixels_signs_squares_and_blur(rough):
    clean = images(7, 16)[:1].clamp(20, 235).expand(6, -1, -1, -1).contiguous()
    given = clean.clone()
    given[1, :, 5, 9] = 255 - (clean[1, :, 5, 9] // 8)
    slope = Look(rough, clean[:1]).slopes[0, 0]
    given[2] = (clean[2].int() - 3 * slope.sign()).to(torch.uint8)
    given[3, :, 4:10, 6:12] += 9
    given[4] = torch.from_numpy(ndimage.gaussian_filter(clean[4].numpy().astype(float), (0, 1, 1))).round().byte()
    given[5] = (clean[5].int() + torch.from_numpy(stream(0, "n").integers(-4, 5, (3, 16, 16)))).to(torch.uint8)
    none, pixel, sign, square, blur, scattered = differences(rough, clean, given)
    assert none["changed pixels"] == none["largest"] == none["signs, clean slope"] == none["like its bends"] == 0
    assert pixel["changed pixels"] == pytest.approx(np.log1p(1))
    assert pixel["one pixel"] == pytest.approx(1)
    assert pixel["change 2"] == 0
    assert sign["signs, clean slope"] == pytest.approx(1)
    assert abs(sign["signs, given slope"]) == pytest.approx(1)
    assert [sign[name] for name in ("largest", "at 3", "flatness", "at the largest")] == pytest.approx([3, 1, 1, 1])
    assert sign["levels"] == pytest.approx(np.log1p(1))
    assert square["channels equal"] == 1
    assert square["changed pixels"] == pytest.approx(np.log1p(36))
    assert square["flat neighbours"] > 0.8 > 0.5 > scattered["flat neighbours"]
    assert blur["like its bends"] > 0.7 > 0.3 > abs(scattered["like its bends"])
    assert abs(scattered["signs, clean slope"]) < 0.2
    assert square["roughness"] < sign["roughness"]


def test_the_oracle_streams_and_wants_pairs(rough):
    clean, given = images(19, 16), images(19, 16, seed=1)
    told = []
    table = true_difference(rough, clean, given, progress=lambda done, of, note="": told.append((done, of)))
    assert told[-1] == (19, 19)
    assert table.shape == (19, len(DIFFERENCES)) == (19, len(set(DIFFERENCES)))
    assert np.array_equal(true_difference(rough, clean, given), table)
    np.testing.assert_allclose(true_difference(rough, clean[4:5], given[4:5]), table[4:5], rtol=1e-5, atol=1e-5)
    assert true_difference(rough, clean[:0], given[:0]).shape == (0, len(DIFFERENCES))
    with pytest.raises(InvalidInput, match="beside its own source"):
        true_difference(rough, clean[:3], given)
    with pytest.raises(InvalidInput, match="8-bit images"):
        true_difference(rough, to_images(clean), to_images(given))
