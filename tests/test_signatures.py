"""Signatures, heat maps pooled by sums, and clusterings of two views."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import minmax_scale
from torch import nn

from heatprint.core.digest import digest
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.values import Batch, Explained, join
from heatprint.explainers import explain
from heatprint.explainers import make as make_explainer
from heatprint.explainers.conservation import ConservationWarning
from heatprint.explainers.gradients.shap_last import last_layer_shap, last_neurons
from heatprint.explainers.lrp import Composite, Line, every_class, propagate
from heatprint.explainers.lrp.rules import Epsilon
from heatprint.models import predict, wrap
from heatprint.signatures import CLUSTERERS, SIGNERS, Clusterer, maps, sign
from heatprint.signatures.copies import distinct_images
from heatprint.signatures.maps import heat_maps, sum_pooled
from heatprint.signatures.relevance import RelevanceSignature
from heatprint.signatures.shap import SHAPSignature
from heatprint.signatures.spray import views
from heatprint.signatures.spray.gebi import GEBI
from heatprint.signatures.spray.spray import SpRAy
from heatprint.signatures.spray.views import TwoViews, principal
from heatprint.testing import labelled_batch

LRP_0 = Composite((Line(rule=Epsilon(epsilon=0.0)),))
QUICK = SpRAy(most=5, parts=2, shuffles=0)
WHATS = ("predicted", "every", "contrast")


def squares(vectors):
    """Square distances of all pairs, by differences."""
    gaps = np.asarray(vectors, np.float64)
    return ((gaps[:, None] - gaps[None]) ** 2).sum(2)


def unbiased(*, classes=4, size=12, seed=0):
    """A network without biases: under LRP-0 every layer conserves relevance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(45, 10, bias=False), nn.ReLU(), nn.Linear(10, classes, bias=False),
        )  # fmt: skip
        return wrap(network.double(), classes=[f"class {i}" for i in range(classes)], size=size)


def with_copies(batch, rows):
    """The batch, and some of its images again under other names."""
    again = batch.take(rows)
    return join([batch, Batch(ids=tuple(f"copy of {i}" for i in again.ids), pixels=again.pixels, labels=again.labels)])


@dataclass(frozen=True, kw_only=True)
class Counting:
    """A signer and an explainer that writes down how many images it was asked about, and answers by their place."""

    asked: list[int] = field(default_factory=list)

    def sign(self, classifier, images):
        self.asked.append(len(images))
        return torch.arange(len(images))[:, None] + images.mean((1, 2, 3))[:, None]

    def attribute(self, classifier, inputs, target, *, layers=()):
        self.asked.append(len(inputs))
        relevance = inputs + torch.arange(len(inputs)).view(-1, 1, 1, 1) + target.view(-1, 1, 1, 1)
        return Explained(ids=(), relevance=relevance, target=target, score=relevance.sum((1, 2, 3))), {}


# Heat maps pooled by sums


@given(st.integers(1, 13), st.integers(1, 13), st.data())
def test_sum_pooling_equals_blocks_of_a_finer_grid_and_keeps_the_sum(height, width, data):
    side = data.draw(st.integers(1, min(height, width)))
    heat = np.random.default_rng(height * 100 + width).normal(size=(3, height, width))
    pooled = sum_pooled(heat, side)
    # slow version: split every pixel into side x side equal parts, then add whole blocks
    fine = np.repeat(np.repeat(heat, side, 1), side, 2) / side**2
    blocks = fine.reshape(3, side, height, side, width).sum((2, 4))
    assert pooled.dtype == np.float32
    assert np.allclose(pooled, blocks, rtol=1e-6, atol=1e-6)
    assert np.allclose(pooled.sum((1, 2), dtype=np.float64), heat.sum((1, 2)), atol=1e-6 * np.abs(heat).sum())


def test_where_the_side_divides_pooling_adds_up_blocks_exactly():
    heat = torch.randint(-9, 9, (300, 12, 8), generator=torch.Generator().manual_seed(0))
    assert np.array_equal(sum_pooled(heat, 4), heat.view(300, 4, 3, 4, 2).sum((2, 4)).numpy())
    assert np.array_equal(sum_pooled(heat[:, :8], 8), heat[:, :8].numpy())


def test_pooling_takes_views_that_torch_does_not_and_maps_with_gradients():
    heat = np.arange(128.0).reshape(2, 8, 8)
    assert np.array_equal(sum_pooled(heat[:, ::-1, ::-1], 4), sum_pooled(heat, 4)[:, ::-1, ::-1])
    assert np.array_equal(sum_pooled(torch.from_numpy(heat).requires_grad_(), 4), sum_pooled(heat, 4))


@pytest.mark.parametrize(
    ("heat", "side"), [(np.ones((2, 8, 6)), 7), (np.ones((2, 8, 8)), 0), (np.ones((8, 8)), 4), (np.ones((2, 0, 0)), 1)]
)
def test_pooling_that_would_enlarge_is_refused(heat, side):
    with pytest.raises(InvalidInput, match="pooling only shrinks"):
        sum_pooled(heat, side)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(bad):
    heat = np.zeros((2, 4, 4), np.float32)
    heat[1, 2, 3] = bad
    with pytest.raises(InvalidInput, match="not finite"):
        sum_pooled(heat, 2)


def test_heat_maps_are_the_explained_ones_pooled(small):
    batch, method = labelled_batch(small, 20), make_explainer("lrp.epsilon_plus")
    whole = explain(small, batch, method)
    for side, kept in ((4, 4), (5, 5), (16, 16), (28, 16)):
        seen = heat_maps(small, batch, method, side=side)
        assert seen.shape == (20, kept, kept)
        assert seen.dtype == np.float32
        assert np.allclose(seen, sum_pooled(whole.heat, kept), rtol=1e-4, atol=1e-6)
        assert np.allclose(seen.sum((1, 2)), whole.totals["input"].numpy(), rtol=1e-3, atol=1e-5)
    assert (seen < 0).any()


def test_heat_maps_do_not_depend_on_order_and_equal_images_are_explained_once(small):
    batch = with_copies(labelled_batch(small, 21), [3, 20, 7])
    counted = Counting()
    seen = heat_maps(small, batch, counted, side=4)
    assert sum(counted.asked) == 21
    assert np.array_equal(seen[[3, 20, 7]], seen[21:])
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(heat_maps(small, batch.take(order), Counting(), side=4), seen[order])


def test_equal_images_explained_for_different_classes_keep_their_own_maps(small):
    batch = with_copies(labelled_batch(small, 3), [0, 1, 2])
    other = Batch(ids=batch.ids, pixels=batch.pixels, labels=torch.cat([batch.labels[:3], (batch.labels[:3] + 1) % 3]))
    method = make_explainer("lrp.z")
    for target in ("true", "contrast", other.labels):
        seen = heat_maps(small, other, method, target=target)
        alone = [heat_maps(small, other.take([i]), method, target=_of(target, i)) for i in range(6)]
        assert np.allclose(seen, np.concatenate(alone), rtol=1e-4, atol=1e-6)
        assert not np.allclose(seen[:3], seen[3:])
    counted = Counting()
    heat_maps(small, other, counted)
    assert sum(counted.asked) == 3


def _of(target, row):
    return target[row : row + 1] if isinstance(target, torch.Tensor) else target


def test_heat_maps_come_in_pieces_and_warn_once(small, monkeypatch):
    batch, method, told = labelled_batch(small, 10), make_explainer("lrp.sequential_preset_a_flat"), []
    whole = heat_maps(small, batch, method)
    monkeypatch.setattr(maps, "PIECE", 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pieces = heat_maps(small, batch, method, progress=lambda done, total, note="": told.append((done, total)))
    assert [w.category for w in said] == [ConservationWarning]
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert np.allclose(pieces, whole, rtol=1e-4, atol=1e-6)


def test_heat_maps_that_cannot_be_are_refused(small):
    batch, method = labelled_batch(small), make_explainer("lrp.z")
    with pytest.raises(InvalidInput, match="side = 0"):
        heat_maps(small, batch, method, side=0)
    with pytest.raises(InvalidInput, match="no images"):
        heat_maps(small, batch.take([]), method)
    with pytest.raises(InvalidInput, match="3 targets for 8 images"):
        heat_maps(small, batch, method, target=torch.zeros(3, dtype=torch.long))


# Signing


def test_different_images_are_found_by_their_pixels():
    pixels = torch.randint(0, 2, (40, 3, 1, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    rows, place = distinct_images(pixels)
    assert len(rows) == len(pixels.unique(dim=0)) < 40
    assert torch.equal(pixels[rows][place], pixels)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pixels[order][distinct_images(pixels[order])[0]], pixels[rows])


def test_a_failed_attack_has_bit_for_bit_the_signature_of_its_original(small):
    batch = with_copies(labelled_batch(small, 21), [4, 20])
    counted, told = Counting(), []
    seen = sign(small, batch, counted, progress=lambda done, total, note="": told.append((done, total)))
    assert sum(counted.asked) == 21
    assert told == [(16, 21), (21, 21)]
    assert seen.ids == batch.ids
    assert np.array_equal(seen.vectors[[4, 20]], seen.vectors[21:])
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(sign(small, batch.take(order), Counting()).vectors, seen.vectors[order])
    with pytest.raises(InvalidInput, match="no images"):
        sign(small, batch.take([]), Counting())


@pytest.mark.parametrize("settings", [{"layer": layer, "explained": what} for layer in ("last", "penultimate", "input")
                                      for what in WHATS] + ["shap", "activations", "logits"])  # fmt: skip
def test_signatures_are_finite_and_do_not_depend_on_the_batch(small, settings):
    method = SIGNERS.make(settings) if isinstance(settings, str) else SIGNERS.make("lrp", method="lrp.z", **settings)
    batch = labelled_batch(small, 20)
    together = sign(small, batch, method).vectors
    assert np.isfinite(together).all()
    alone = np.concatenate([sign(small, batch.take([i]), method).vectors for i in range(5)])
    assert np.allclose(alone, together[:5], rtol=1e-3, atol=1e-5)


# The LRP signature


def test_without_biases_every_layer_conserves_the_logit():
    classifier = unbiased()
    batch = labelled_batch(classifier, 6)
    logits = predict(classifier, batch.pixels).numpy()
    top = np.sort(logits, 1)
    for layer in ("last", "penultimate", "7", "3", "0", "input"):
        signed = {w: sign(classifier, batch, RelevanceSignature(layer=layer, method="lrp.z", explained=w)).vectors
                  for w in WHATS}  # fmt: skip
        assert np.allclose(signed["predicted"].sum(1), top[:, -1], rtol=1e-5)
        assert np.allclose(signed["contrast"].sum(1), top[:, -1] - top[:, -2], rtol=1e-4, atol=1e-6)
        if layer != "last":  # where the signature of every class is not written out
            every = signed["every"].reshape(6, 4, -1)
            assert every.shape[2] == signed["predicted"].shape[1]
            assert np.allclose(every.sum(2), logits, rtol=1e-4, atol=1e-6)


def test_hidden_neurons_have_the_relevance_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((7, 48), (6, 7), (3, 6)))
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))
    for place, weight in ((1, first), (3, second), (5, third)):
        network[place].weight.data, network[place].bias.data = weight, torch.zeros(len(weight), dtype=torch.float64)
    classifier = wrap(network, classes=["a", "b", "c"], size=4)
    batch = labelled_batch(classifier, 5)
    x = batch.images.double().flatten(1)
    a = (x @ first.T).clamp_min(0)
    z = a @ second.T
    b = z.clamp_min(0)
    last = b * third[(b @ third.T).argmax(1)]
    penultimate = a * ((last / z.where(z != 0, 1)) @ second)
    for layer, wanted in (("last", last), ("penultimate", penultimate)):
        signed = sign(classifier, batch, RelevanceSignature(layer=layer, method="lrp.z")).vectors
        assert np.allclose(signed, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_penultimate_is_what_the_last_but_one_kernel_reads(small):
    # small: stem.0 (conv), body (conv), head.3 (dense): the body reads the pooled stem
    batch = labelled_batch(small)
    inputs = small.normalise(batch.images)
    found = propagate(small.network, inputs, batch.labels, LRP_0, layers=("penultimate", "last"))
    assert found.layers["penultimate"].shape == (8, 8, 8, 8)
    assert found.layers["last"].shape == (8, 32)
    linear = wrap(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), classes=["a", "b"], size=4)
    with pytest.raises(InvalidInput, match="no layer 'penultimate'"):
        sign(linear, labelled_batch(linear), RelevanceSignature(layer="penultimate"))


@pytest.mark.parametrize("layer", ["last", "penultimate", "body", "input"])
def test_a_contrast_is_the_difference_of_two_single_signatures(small, layer):
    batch, method = labelled_batch(small), make_explainer("lrp.epsilon_plus")
    inputs = small.normalise(batch.images)
    first, second = small(batch.images).topk(2).indices.T
    single = [propagate(small.network, inputs, c, method.composite(small), layers=() if layer == "input" else (layer,))
              for c in (first, second)]  # fmt: skip
    kept = [(s.relevance.sum(1) if layer == "input" else s.layers[layer]).flatten(1) for s in single]
    wanted = kept[0] - kept[1]
    if layer in ("penultimate", "body"):
        wanted = wanted.view(8, 8, -1).sum(2)
    signer = RelevanceSignature(layer=layer, method="lrp.epsilon_plus", explained="contrast")
    assert np.allclose(sign(small, batch, signer).vectors, wanted.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layer", "side"), [("penultimate", 0), ("body", 0), ("input", 0), ("input", 5)])
def test_every_class_is_the_single_signatures_joined(small, layer, side):
    batch, method = labelled_batch(small), make_explainer("lrp.epsilon_plus")
    inputs, wanted = small.normalise(batch.images), []
    for k in range(3):
        layers = () if layer == "input" else (layer,)
        target = torch.full((8,), k)
        found = propagate(small.network, inputs, target, method.composite(small), layers=layers)
        heat = found.relevance.sum(1)
        wanted.append(torch.as_tensor(sum_pooled(heat, side) if side else heat).flatten(1)
                      if layer == "input" else found.layers[layer].sum((2, 3)))  # fmt: skip
    signer = RelevanceSignature(layer=layer, method="lrp.epsilon_plus", explained="every", side=side)
    signed = sign(small, batch, signer).vectors
    assert np.allclose(signed, torch.cat(wanted, 1).numpy(), rtol=1e-4, atol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Untouched(Epsilon):
    """A rule nobody may ask."""

    def share(self, *args, **settings):
        raise AssertionError("the sweep went below the layer that was asked for")


def test_the_sweeps_for_every_class_end_at_the_layer(small):
    composite = Composite((Line(rule=Untouched(epsilon=0.0), first=True), Line(rule=Epsilon(epsilon=0.0))))
    inputs = small.normalise(labelled_batch(small).images)
    for layer, shape in (("last", (8, 3, 32)), ("penultimate", (8, 3, 8, 8, 8))):
        assert every_class(small.network, inputs, composite, layer=layer).shape == shape
    with pytest.raises(AssertionError, match="below"):
        every_class(small.network, inputs, composite)


def test_distances_of_every_class_at_the_last_layer_need_no_written_out_signature(small):
    batch = labelled_batch(small, 12)
    written = every_class(small.network, small.normalise(batch.images), LRP_0, layer="last").flatten(1)
    short = sign(small, batch, RelevanceSignature(explained="every")).vectors
    assert written.shape == (12, 96)
    assert short.shape == (12, 32)
    assert np.allclose(squares(short), squares(written), rtol=1e-5)


def test_a_thousand_classes_cost_no_more_than_the_neurons():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 1000))
    classifier = wrap(network, classes=[str(i) for i in range(1000)], size=4)
    signed = sign(classifier, labelled_batch(classifier), RelevanceSignature(explained="every"))
    assert signed.vectors.shape == (8, 9)


def test_a_single_output_counts_as_two_classes():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 1))
    classifier = wrap(network, classes=["a", "b"], size=4)
    batch = labelled_batch(classifier)
    hidden, weight, _ = last_neurons(classifier, batch.images)
    full = hidden[:, None] * weight
    assert np.allclose(
        squares(sign(classifier, batch, RelevanceSignature(explained="every")).vectors),
        squares(full.flatten(1).numpy()),
        rtol=1e-5,
        atol=1e-9,
    )


def test_the_pooled_input_signature_is_the_heat_map(small):
    batch = labelled_batch(small)
    seen = heat_maps(small, batch, make_explainer("lrp.sequential_preset_a_flat"), side=5)
    for side, wanted in ((5, seen), (40, heat_maps(small, batch, make_explainer("lrp.sequential_preset_a_flat")))):
        signed = sign(small, batch, RelevanceSignature(layer="input", side=side)).vectors
        assert np.allclose(signed, wanted.reshape(8, -1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"side": 4}, "only layer='input'"), ({"layer": "input", "side": -1}, "0 or more")],
)
def test_settings_of_the_lrp_signature_that_cannot_be_are_refused(settings, said):
    with pytest.raises(InvalidInput, match=said):
        RelevanceSignature(**settings)


@pytest.mark.parametrize("kind", [RelevanceSignature, SHAPSignature])
def test_what_no_signature_explains_is_refused(kind):
    with pytest.raises(InvalidInput, match="write one of predicted, every, contrast"):
        kind(explained="true")


# The SHAP signature, and the baselines


def test_shap_values_sum_to_the_score_less_its_mean_over_the_background(small):
    batch, background = labelled_batch(small), labelled_batch(small, 9, seed=1)
    logits, mean = predict(small, batch.pixels), predict(small, background.pixels).mean(0)
    first, second = logits.topk(2).indices.T
    rows = torch.arange(8)
    method = SHAPSignature(explained="predicted").fitted(small, background)
    single = sign(small, batch, method).vectors
    assert np.allclose(single.sum(1), (logits[rows, first] - mean[first]).numpy(), atol=1e-5)
    assert np.allclose(single, last_layer_shap(small, batch.images, background.images, first).numpy(), atol=1e-6)
    contrast = sign(small, batch, replace(method, explained="contrast")).vectors
    other = last_layer_shap(small, batch.images, background.images, second).numpy()
    assert np.allclose(contrast, single - other, atol=1e-6)


def test_shap_distances_of_every_class_are_those_of_the_paper_and_need_no_background(small):
    batch, background = labelled_batch(small), labelled_batch(small, 9, seed=1)
    written = torch.stack(
        [last_layer_shap(small, batch.images, background.images, torch.full((8,), k)) for k in range(3)], 1
    )
    fitted = SHAPSignature().fitted(small, background)
    signed = sign(small, batch, fitted).vectors
    assert signed.shape == (8, 32)
    assert np.allclose(squares(signed), squares(written.flatten(1).numpy()), rtol=1e-4)
    assert np.allclose(squares(sign(small, batch, SHAPSignature()).vectors), squares(signed), rtol=1e-4)
    centre = sign(small, background, fitted).vectors.mean(0)
    assert np.allclose(centre, 0, atol=1e-6)


def test_a_background_is_a_setting_like_any_other(small):
    background = with_copies(labelled_batch(small, 9, seed=1), [2])
    fitted = SHAPSignature().fitted(small, background)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert fitted == SHAPSignature().fitted(small, background.take(order))
    assert fitted != SHAPSignature().fitted(small, background.take(range(9)))  # copies count
    assert np.allclose(fitted.mean, last_neurons(small, background.images)[0].mean(0).numpy(), atol=1e-6)
    assert SIGNERS.make("shap", mean=list(fitted.mean)) == fitted
    assert digest(fitted) != digest(SHAPSignature())


def test_without_a_background_shap_is_lrp_0(small):
    batch = labelled_batch(small)
    written = every_class(small.network, small.normalise(batch.images), LRP_0, layer="last")
    shap = sign(small, batch, SHAPSignature(explained="predicted")).vectors
    assert np.allclose(shap, written[torch.arange(8), batch.labels].numpy(), rtol=1e-4, atol=1e-6)


def test_backgrounds_that_cannot_be_are_refused(small):
    with pytest.raises(InvalidInput, match=r"mean has 2 values, but .* has 32 last neurons"):
        sign(small, labelled_batch(small), SHAPSignature(mean=(0.0, 1.0)))
    with pytest.raises(InvalidInput, match="not finite"):
        SHAPSignature(mean=(float("nan"),))
    with pytest.raises(InvalidInput, match="no images"):
        SHAPSignature().fitted(small, labelled_batch(small).take([]))


@pytest.mark.parametrize(("name", "settings"), [("shap", {}), ("activations", {}), ("lrp", {"explained": "every"})])
def test_logits_that_are_not_linear_in_vectors_are_refused(name, settings):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.Tanh())
    classifier = wrap(network, classes=["a", "b", "c"], size=4)
    with pytest.raises(Unsupported, match="not the output of a linear layer"):
        sign(classifier, labelled_batch(classifier), SIGNERS.make(name, **settings))


def test_the_baselines_are_what_the_network_computes(small):
    batch = labelled_batch(small)
    logits = sign(small, batch, SIGNERS.make("logits")).vectors
    assert np.allclose(logits, predict(small, batch.pixels).numpy(), atol=1e-6)
    hidden = sign(small, batch, SIGNERS.make("activations")).vectors
    dense = small.network.get_submodule("head.3")
    assert np.allclose(hidden @ dense.weight.numpy().T + dense.bias.numpy(), logits, atol=1e-5)


# Two views


def planted(count=80, *, side=12, seed=0):
    """Heat maps of two strategies, images of two kinds; which is which does not depend on the other."""
    rng = np.random.default_rng(seed)
    strategy, kind = np.arange(count) % 2, np.arange(count) // 2 % 2
    heat = rng.normal(0, 0.1, (count, 8, 8))
    heat[strategy == 0, :2] += 1
    heat[strategy == 1, 6:] += 1
    pixels = rng.integers(90, 130, (count, 3, side, side))
    pixels[kind == 1, :, :, : side // 2] += 100
    return heat.astype(np.float32), pixels.astype(np.uint8), strategy, kind


@pytest.mark.parametrize("reduce", ["pca", "isomap"])
def test_square_distances_of_the_views_mix_linearly(reduce):
    heat, pixels, *_ = planted()
    both = {alpha: TwoViews(alpha=alpha, reduce=reduce).combined(heat, pixels) for alpha in (0.0, 0.3, 1.0)}
    assert [b.shape[1] for b in both.values()] == [10, 30, 20]
    ends = {alpha: squares(both[alpha]) for alpha in both}
    assert np.allclose(ends[0.3], 0.3 * ends[1.0] + 0.7 * ends[0.0], atol=1e-5)
    apart = ~np.eye(80, dtype=bool)
    for alpha in both:
        assert ends[alpha][apart].mean() == pytest.approx(1, rel=1e-5)


def test_the_reduction_keeps_the_largest_principal_components(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32) * np.arange(1, 10) + 5
    wanted = PCA(4, svd_solver="full").fit_transform(vectors.astype(np.float64))
    whole = principal(vectors, 4)
    assert np.allclose(np.abs(whole), np.abs(wanted), atol=1e-6)
    monkeypatch.setattr(views, "BLOCK", 7)
    assert np.allclose(principal(vectors, 4), whole)


def test_one_end_is_spray_on_the_maps_and_the_other_on_the_images():
    heat, pixels, strategy, kind = planted()
    for alpha, truth in ((1.0, strategy), (0.0, kind)):
        method = TwoViews(alpha=alpha, spray=QUICK)
        found = method.strategies(heat, pixels)
        plain = replace(QUICK, relevance="as given").strategies(method.combined(heat, pixels))
        assert np.array_equal(found.labels, plain.labels)
        assert np.array_equal(found.eigenvalues, plain.eigenvalues)
        assert found.count == 2
        assert adjusted_rand_score(truth, found.labels) == 1
    both = TwoViews(alpha=0.5, spray=replace(QUICK, shuffles=2)).strategies(heat, pixels)
    assert not both.null.size
    assert both.count == 4
    assert adjusted_rand_score(2 * strategy + kind, both.labels) == 1
    assert TwoViews(alpha=0.5, spray=QUICK).strategies(heat, pixels, count=3).count == 3


def test_where_nothing_is_planted_one_strategy_is_proposed():
    rng = np.random.default_rng(0)
    heat, pixels = rng.normal(size=(150, 8, 8)), rng.integers(0, 255, (150, 3, 12, 12))
    assert TwoViews().strategies(heat, pixels).count == 1


def test_a_view_without_weight_is_not_looked_at():
    heat, pixels, *_ = planted()
    assert np.array_equal(TwoViews(alpha=1).combined(heat), TwoViews(alpha=1).combined(heat, pixels))
    broken = np.full_like(heat, np.nan)
    assert np.array_equal(TwoViews(alpha=0).combined(broken, pixels), TwoViews(alpha=0).combined(heat, pixels))


@pytest.mark.parametrize("reduce", ["pca", "isomap"])
def test_combined_views_do_not_depend_on_order_or_copies(reduce):
    heat, pixels, *_ = planted()
    method, order = TwoViews(reduce=reduce), np.random.default_rng(1).permutation(80)
    once = method.combined(heat, pixels)
    assert np.array_equal(method.combined(heat[order], pixels[order]), once[order])
    copied = np.r_[np.arange(80), [5, 5, 17]]
    assert np.array_equal(method.combined(heat[copied], pixels[copied]), once[copied])


def test_how_bright_and_how_strong_does_not_count():
    heat, pixels, *_ = planted()
    strength = 2.0 ** np.arange(-40, 40)[:, None, None]
    method = TwoViews()
    assert np.allclose(
        squares(method.combined(heat * strength, pixels / 255)), squares(method.combined(heat, pixels)), atol=1e-4
    )


def test_few_images_and_constant_views_have_a_defined_result():
    heat, pixels, *_ = planted(3)
    assert TwoViews().combined(heat, pixels).shape == (3, 6)
    assert TwoViews().strategies(heat, pixels).count == 1
    flat = TwoViews(alpha=0.5).combined(np.zeros((3, 8, 8)), pixels)
    assert np.allclose(squares(flat), 0.5 * squares(TwoViews(alpha=0).combined(heat, pixels)), atol=1e-6)
    assert not TwoViews().combined(np.zeros((3, 8, 8)), np.zeros((3, 3, 8, 8))).any()
    assert TwoViews().strategies(np.ones((5, 4, 4)), np.ones((5, 3, 4, 4))).count == 1


@pytest.mark.parametrize("method", [TwoViews(), TwoViews(reduce="isomap"), GEBI()])
def test_views_that_do_not_belong_together_are_refused(method):
    heat, pixels, *_ = planted()
    for wrong in (None, pixels[:5], pixels[:, 0]):
        with pytest.raises(InvalidInput, match="one image per map"):
            method.strategies(heat, wrong)
    broken = heat.copy()
    broken[3, 2, 1] = np.nan
    with pytest.raises(InvalidInput, match=r"not finite|NaN"):
        method.strategies(broken, pixels)
    with pytest.raises(InvalidInput, match=r"no maps"):
        method.strategies(heat[:0], pixels[:0])


@pytest.mark.parametrize("method", [TwoViews(reduce="isomap"), GEBI()])
def test_isomap_says_how_many_it_takes(method, monkeypatch):
    heat, pixels, *_ = planted()
    for few in (3, 21, 22):
        with pytest.raises(InvalidInput, match=r"too few for .* components"):
            method.strategies(heat[:few], pixels[:few])
    monkeypatch.setattr(views, "LIMIT", 79)
    with pytest.raises(InvalidInput, match="reduce='pca'"):
        method.strategies(heat, pixels)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"alpha": 1.1}, "alpha"), ({"alpha": float("nan")}, "alpha"), ({"reduce": "umap"}, "reduce"),
     ({"side": 0}, "side = 0"), ({"map_components": 0}, "1 or more")],
)  # fmt: skip
def test_settings_of_two_views_that_cannot_be_are_refused(settings, said):
    with pytest.raises(InvalidInput, match=said):
        TwoViews(**settings)


@pytest.mark.parametrize(
    "settings", [{"clusters": 0}, {"rescale": 0.0}, {"rescale": 1.5}, {"gamma": 0.0}, {"seed": -1}, {"seed": 2**32}]
)
def test_settings_of_gebi_that_cannot_be_are_refused(settings):
    with pytest.raises(InvalidInput, match="GEBI"):
        GEBI(**settings)


def test_clusterers_of_two_views_are_made_by_name():
    made = CLUSTERERS.make("two-view", alpha=0.25, spray={"neighbours": 5})
    assert made == TwoViews(alpha=0.25, spray=SpRAy(neighbours=5))
    assert CLUSTERERS.make("gebi") == GEBI()
    assert isinstance(made, Clusterer)
    assert digest(made) != digest(TwoViews(alpha=0.25))


def test_gebi_is_the_published_pipeline_step_by_step():
    heat, pixels, strategy, kind = planted(120, side=40)
    shrunk = heat.reshape(120, -1), pixels.reshape(120, 3, 8, 5, 8, 5).mean((3, 5)).reshape(120, -1)
    published = {"n_clusters": 4, "assign_labels": "discretize", "n_neighbors": 8, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the graph is in two parts
        reduced = [
            minmax_scale(Isomap(n_neighbors=8, n_components=size).fit_transform(view / np.abs(view).max(1)[:, None]))
            for view, size in zip(shrunk, (20, 10), strict=True)
        ]
        wanted = SpectralClustering(**published).fit_predict(np.hstack(reduced))
    assert np.allclose(squares(GEBI()._combined(heat, pixels)), squares(np.hstack(reduced)), atol=0.02)
    found = GEBI().strategies(heat, pixels)
    assert adjusted_rand_score(wanted, found.labels) > 0.9
    assert adjusted_rand_score(2 * strategy + kind, found.labels) > 0.9
    assert found.count == 4
    assert found.separability > 0


def test_gebi_does_not_depend_on_order_or_copies():
    heat, pixels, *_ = planted()
    found = GEBI().strategies(heat, pixels)
    order = np.r_[np.random.default_rng(1).permutation(80), [4, 4, 9]]
    again = GEBI().strategies(heat[order], pixels[order])
    assert adjusted_rand_score(again.labels, found.labels[order]) == 1
    assert np.array_equal(GEBI().strategies(heat, pixels).labels, found.labels)
    many = np.r_[np.arange(80), np.full(25, 3)]
    grown = GEBI().strategies(heat[many], pixels[many])
    assert grown.labels[3] == 0
    assert (np.diff(grown.sizes()) <= 0).all()
    two = GEBI().strategies(heat, pixels, count=2)
    assert two.count == 2
    assert GEBI().strategies(heat, pixels, count=80).count < 80
    with pytest.raises(InvalidInput, match="count = 0"):
        GEBI().strategies(heat, pixels, count=0)
