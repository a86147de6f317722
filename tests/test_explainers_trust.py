"""Measures of explanations against closed forms, slow versions, peers' numbers, and networks that are understood."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from heatprint.core.errors import InvalidInput
from heatprint.core.store import Store
from heatprint.core.values import Batch, Explained
from heatprint.data.planted import Planted, draw_planted
from heatprint.explainers import explain, make
from heatprint.explainers import target as targets
from heatprint.explainers.trust import (
    Edges,
    check,
    deletion,
    edge_map,
    gini,
    insertion,
    interval,
    paired_verdict,
    pixel_flipping,
    pointing_game,
    random_map,
    randomisation,
    randomised,
    removal_curve,
    road,
    share_inside,
    spearman,
    ssim,
    stability,
    top_share,
)
from heatprint.explainers.trust.heat import removal_ranks
from heatprint.explainers.trust.randomisation import weighted_layers
from heatprint.explainers.trust.removal import filled
from heatprint.explainers.trust.road import impute
from heatprint.explainers.trust.stability import _noisy
from heatprint.models import predict, wrap
from heatprint.report.artefact import section
from heatprint.report.read import Run
from heatprint.study import artefact as study_artefact
from heatprint.study import load_recipe
from heatprint.study.progress import SILENT
from heatprint.study.recipe import ArtefactTable
from heatprint.study.steps import Lab
from heatprint.testing import labelled_batch, linear_classifier, small_classifier


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Images this small gain nothing from a second one, and lose much to it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_heat(batch, seed=0):
    return torch.randn(len(batch), *batch.pixels.shape[2:], generator=torch.Generator().manual_seed(seed))


def contributions(classifier, batch, fill):
    """What each pixel adds to the logit of class 1 when it stands in place of its fill: exact for a linear network."""
    weight = classifier.network.dense.weight[1].view(3, classifier.size, classifier.size)
    return ((batch.images - fill) * weight).sum(1)


# --- removal ---------------------------------------------------------------------------------------------


def test_the_curve_equals_the_images_built_one_by_one(small):
    batch, heat = labelled_batch(small, 5), None
    heat = random_heat(batch)
    got = removal_curve(small, batch, heat, steps=7)
    for i in range(5):
        order = heat[i].flatten().argsort(descending=True)
        for step, count in enumerate(torch.linspace(0, 256, 8).round().long()):
            image = batch.images[i].clone().flatten(1)
            image[:, order[:count]] = batch.images[i].mean((1, 2))[:, None]
            want = small(image.view(1, 3, 16, 16))[0]
            assert torch.allclose(got[i, step], want, atol=1e-5)


def test_a_linear_network_s_flipping_area_is_the_area_under_sorted_contributions(linear):
    batch = labelled_batch(linear, 6)
    fill = batch.images.mean((2, 3), keepdim=True)
    heat = contributions(linear, batch, fill)
    ones = torch.ones(6, dtype=torch.long)
    got = pixel_flipping(linear, batch, heat, target=ones, steps=144)
    down = heat.flatten(1).sort(1, descending=True).values.cumsum(1)
    up = heat.flatten(1).sort(1).values.cumsum(1)
    zero = torch.zeros(6, 1)
    want = torch.trapezoid(torch.cat([zero, down - up], 1), dx=1 / 144, dim=1)
    assert torch.allclose(got, want, atol=1e-4)
    assert bool((want > 0.01).all())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=settings.default.max_examples // 2)
def test_no_map_beats_the_exact_one_on_a_linear_network(seed):
    linear = linear_classifier()
    batch = labelled_batch(linear, 4, seed=seed % 7)
    ones = torch.ones(4, dtype=torch.long)
    exact = contributions(linear, batch, batch.images.mean((2, 3), keepdim=True))
    other = random_heat(batch, seed)
    for measure, sign in ((deletion, -1), (pixel_flipping, 1)):
        best = measure(linear, batch, exact, target=ones)
        assert bool((sign * (best - measure(linear, batch, other, target=ones)) > -1e-5).all())
    blurred = contributions(linear, batch, filled(batch.images, "blur"))
    best = insertion(linear, batch, blurred, target=ones)
    assert bool((best - insertion(linear, batch, other, target=ones) > -1e-5).all())


def test_a_map_upside_down_has_the_opposite_flipping_area_and_a_monotone_one_the_same(small):
    batch = labelled_batch(small, 6)
    heat = random_heat(batch)
    area = pixel_flipping(small, batch, heat)
    assert torch.allclose(pixel_flipping(small, batch, -heat), -area, atol=1e-5)
    assert torch.equal(pixel_flipping(small, batch, heat**3 + 1), area)
    assert float(area.abs().min()) > 0


def test_equal_pixels_are_removed_in_a_drawn_order_that_belongs_to_the_image(small):
    batch = labelled_batch(small, 4)
    heat = torch.zeros(4, 16, 16)
    ranks = removal_ranks(batch, heat, seed=1)
    assert torch.equal(ranks.flatten(1).sort(1).values, torch.arange(256).expand(4, -1))
    assert abs(float(ranks[:, :8].double().mean() - ranks[:, 8:].double().mean())) < 40  # not from the top
    assert torch.equal(removal_ranks(batch.take([2]), heat[:1], seed=1)[0], ranks[2])
    assert not torch.equal(removal_ranks(batch, heat, seed=2), ranks)


def test_every_measure_treats_each_image_by_itself(small):
    batch, order = labelled_batch(small, 6), torch.tensor([4, 1])
    heat = random_heat(batch)
    for measure in (insertion, deletion, pixel_flipping, road):
        whole = measure(small, batch, heat, seed=3)
        assert torch.allclose(measure(small, batch.take(order), heat[order], seed=3), whole[order], atol=1e-4), measure


def test_measures_explain_the_class_of_the_explanation(small):
    batch = labelled_batch(small, 4)
    other = (batch.labels + 1) % 3
    seen = explain(small, batch, make("gradient"), target=other)
    assert torch.equal(deletion(small, batch, seen), deletion(small, batch, seen.heat, target=other))
    assert not torch.allclose(deletion(small, batch, seen), deletion(small, batch, seen.heat))


@pytest.mark.parametrize(
    ("heat", "target", "told"),
    [
        (torch.zeros(4, 8, 8), None, "maps must be float"),
        (torch.zeros(4, 16, 16).long(), None, "maps must be float"),
        (torch.full((4, 16, 16), torch.nan), None, "not finite"),
        (torch.zeros(4, 16, 16), torch.full((4,), 3), "one class per image"),
        (torch.zeros(4, 16, 16), torch.zeros(4), "one class per image"),
    ],
)
def test_maps_and_classes_that_do_not_fit_are_refused(small, heat, target, told):
    with pytest.raises(InvalidInput, match=told):
        deletion(small, labelled_batch(small, 4), heat, target=target)


def test_settings_that_cannot_be_are_refused(small):
    batch = labelled_batch(small, 4)
    heat = random_heat(batch)
    wrong = [
        lambda: deletion(small, batch, heat, steps=0),
        lambda: deletion(small, batch, heat, steps=2.5),
        lambda: insertion(small, batch, heat, steps="4"),
        lambda: road(small, batch, heat, noise=float("nan")),
        lambda: road(small, batch, heat, noise=float("inf")),
        lambda: check(small, batch, make("gradient"), target="contrast"),
        lambda: deletion(small, batch, heat, fill="red"),
        lambda: road(small, batch, heat, shares=(0.5, 1.0)),
        lambda: road(small, batch, heat, score="accuracy"),
        lambda: top_share(heat, part=0),
        lambda: stability(small, batch, make("gradient"), draws=0),
        lambda: randomisation(small, batch, make("gradient"), mode="upwards"),
        lambda: share_inside(heat, heat > 5e9 * torch.ones(4, 1, 1, 1)),
        lambda: check(small, batch, make("gradient"), masks=heat),
        lambda: draw_planted(2, "x", kind="bars", carriers="cats"),
        lambda: deletion(small, batch.take([1, 0]), explain(small, batch.take([0, 1]), make("gradient"))),
    ]
    for call in wrong:
        with pytest.raises(InvalidInput):
            call()


# --- ROAD ------------------------------------------------------------------------------------------------


def solved(image, gone):
    """The paper's linear system, written out row by row."""
    height, width = gone.shape
    places = [(y, x) for y in range(height) for x in range(width) if gone[y, x]]
    number = {place: n for n, place in enumerate(places)}
    matrix, right = np.zeros((len(places),) * 2), np.zeros((len(places), 3))
    for (y, x), n in number.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = (y + dy, x + dx)
                if near == (y, x) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 6 if dy == 0 or dx == 0 else 1 / 12
                matrix[n, n] += weight
                if near in number:
                    matrix[n, number[near]] -= weight
                else:
                    right[n] += weight * image[:, near[0], near[1]]
    out = image.copy()
    for place, value in zip(places, np.linalg.solve(matrix, right), strict=True):
        out[:, place[0], place[1]] = value
    return out


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.995])
def test_imputation_solves_the_paper_s_system(share):
    rng = np.random.default_rng(0)
    images, gone = rng.random((4, 3, 14, 15)), rng.random((4, 14, 15)) < share
    gone[0, :7] = True  # a region with the border in it
    gone[:, 9, 9] = False
    got = impute(torch.from_numpy(images), torch.from_numpy(gone)).numpy()
    for i in range(4):
        assert np.abs(got[i] - solved(images[i], gone[i])).max() < 2e-3
        assert np.array_equal(got[i][:, ~gone[i]], images[i][:, ~gone[i]])


def test_imputation_continues_a_ramp_and_stays_between_what_it_knows():
    ramp = torch.linspace(0, 1, 12, dtype=torch.float64).expand(1, 3, 12, 12)
    gone = torch.zeros(1, 12, 12, dtype=torch.bool)
    gone[:, 3:9, 3:9] = True
    assert torch.allclose(impute(ramp, gone), ramp, atol=1e-3)
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gone = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.8
    full = impute(image, gone)
    known = image.where(~gone[:, None], torch.nan)
    assert bool((full <= np.nanmax(known) + 1e-3).all())
    assert bool((full >= np.nanmin(known) - 1e-3).all())


def test_road_prefers_the_map_that_knows(linear):
    batch = labelled_batch(linear, 12)
    seen = explain(linear, batch, make("input_t_gradient"))
    exact = seen.heat
    assert float(road(linear, batch, exact).mean()) > float(road(linear, batch, random_heat(batch)).mean()) + 0.02
    kept = road(linear, batch, exact, score="kept", shares=(0.25, 0.5))
    assert bool(torch.isin(kept, torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])).all())


# --- sparseness, similarity, pointing --------------------------------------------------------------------


def test_gini_and_top_share_in_closed_form():
    even, one, none = torch.ones(8, 8), torch.zeros(8, 8), torch.zeros(8, 8)
    one[3, 4] = -2.0
    ramp = torch.arange(1.0, 65.0).view(8, 8)
    got = gini(torch.stack([even, one, none, ramp]))
    assert got.tolist() == pytest.approx([0, 1 - 1 / 64, 0, 63 / (3 * 64)])
    top = top_share(torch.stack([even, one, none, ramp]), part=0.25)
    assert top.tolist() == pytest.approx([0.25, 1, 0.25, sum(range(49, 65)) / (64 * 65 / 2)])


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 1000))
@settings(max_examples=settings.default.max_examples // 2)
def test_sparseness_knows_neither_scale_nor_sign_nor_place(seed, scale):
    heat = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for measure in (gini, top_share):
        assert torch.allclose(measure(heat), measure(-scale * heat.flip(1, 2)))
        assert bool((measure(heat**3) > measure(heat)).all())  # a cube is more concentrated


def test_spearman_equals_scipy_s_also_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 9, 8)), rng.normal(size=(5, 9, 8))
    b[1], a[2], b[2] = a[1] ** 3, np.round(a[2]), np.round(b[2] + a[2])
    got = spearman(torch.from_numpy(a), torch.from_numpy(b))
    want = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert got.tolist() == pytest.approx(want, abs=1e-12)
    for constant in (torch.zeros(1, 3, 3), torch.full((1, 3, 3), 0.1)):
        assert spearman(constant, torch.rand(1, 3, 3)).isnan().all()
        assert spearman(torch.rand(1, 3, 3), constant).isnan().all()


def test_ssim_equals_scikit_image_s():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 24, 20))
    b = np.stack([a[0], -a[1], a[2] + 0.3 * rng.normal(size=(24, 20)), rng.normal(size=(24, 20))])
    got = ssim(torch.from_numpy(a), torch.from_numpy(b))
    for n, (x, y) in enumerate(zip(a, b, strict=True)):
        x, y = x / np.abs(x).max(), y / np.abs(y).max()
        want = structural_similarity(
            x, y, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(got[n]) == pytest.approx(want, abs=1e-7)
    assert float(got[0]) == pytest.approx(1)
    assert torch.allclose(ssim(5 * torch.from_numpy(a), torch.from_numpy(b)), got)


def test_shares_inside_and_the_peak_in_closed_form():
    heat = torch.zeros(5, 4, 4)
    mask = torch.zeros(5, 4, 4, dtype=torch.bool)
    mask[:4, :2] = True
    heat[0, 0, 0], heat[0, 3, 3], heat[0, 3, 0] = 3.0, 1.0, -9.0  # 3 of 4 inside, the negative one left out
    heat[1] = 1.0  # even: the mask's share
    heat[2] = -1.0  # nothing positive
    heat[3, 3, 3] = 1.0
    heat[4, 3, 3] = 1.0  # no mask
    assert share_inside(heat, mask).tolist() == pytest.approx([0.75, 0.5, np.nan, 0, np.nan], nan_ok=True)
    assert pointing_game(heat, mask).tolist() == pytest.approx([1, 0.5, 0.5, 0, np.nan], nan_ok=True)


def test_planted_images_differ_only_in_the_artefact_and_carry_it_where_told():
    pictures = {c: draw_planted(8, "x", kind="caption", carriers=c, size=48) for c in ("none", "dogs", "half", "all")}
    carried = {c: p.artefact.flatten(1).any(1).tolist() for c, p in pictures.items()}
    assert carried["none"] == [False] * 8
    assert carried["dogs"] == [False, True] * 4
    assert carried["half"] == [False, False, True, True] * 2
    assert carried["all"] == [True] * 8
    plain, full = pictures["none"], pictures["all"]
    changed = (plain.batch.pixels != full.batch.pixels).any(1)
    assert not bool((changed & ~full.artefact).any())
    assert not bool((full.animal & full.artefact).any())
    assert torch.equal(full.animal, plain.animal & ~full.artefact)


# --- stability -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """An explainer that returns the same map for every image."""

    def attribute(self, classifier, inputs, target, *, layers=()):
        ramp = torch.arange(inputs[0].numel(), dtype=inputs.dtype).view(inputs[0].shape)
        return Explained(
            ids=(), relevance=ramp.expand_as(inputs), target=target,
            score=targets.score(classifier.network(inputs), target),
        ), {}  # fmt: skip


def test_a_fixed_map_is_steady_and_so_is_the_gradient_of_a_linear_network(linear):
    batch = labelled_batch(linear, 5)
    for method in (Fixed(), make("gradient")):
        steady = stability(linear, batch, method)
        assert steady.max_change.tolist() == pytest.approx([0] * 5, abs=1e-7)
        assert steady.rank_correlation.tolist() == pytest.approx([1] * 5)
        assert steady.excluded.tolist() == [0] * 5


def test_changes_under_noise_equal_the_closed_form(linear):
    """Input times gradient on a linear network: the map is w x, so its change is w dx."""
    batch = labelled_batch(linear, 4)
    method = make("input_t_gradient")
    one = stability(linear, batch, method, draws=1, levels=3, seed=2)
    noisy = _noisy(batch, 3, 2, 0)
    weight = linear.network.dense.weight[batch.labels].view(4, 3, 12, 12)
    heat, moved = (batch.images * weight).sum(1), (noisy.float() / 255 * weight).sum(1)
    want = (moved - heat).flatten(1).norm(dim=1) / heat.flatten(1).norm(dim=1)
    assert one.max_change.tolist() == pytest.approx(want.tolist(), rel=1e-4)
    assert one.mean_change.tolist() == one.max_change.tolist()
    assert int((noisy.int() - batch.pixels.int()).abs().max()) == 3
    many = stability(linear, batch, method, draws=6, levels=3, seed=2)
    assert bool((many.max_change >= one.max_change).all())
    assert bool((many.mean_change < many.max_change).all())


def test_draws_that_change_the_answer_are_left_out_and_counted():
    """Logits (s, -s) with s the sum of the image above mid-grey: an image on the border flips with half the draws."""
    weight = torch.stack([torch.ones(3 * 64), -torch.ones(3 * 64)])

    class Border(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(192, 2)
            self.dense.weight.data, self.dense.bias.data = weight, torch.tensor([-96.0, 96.0])

        def forward(self, x):
            return self.dense(x.flatten(1))

    classifier = wrap(Border(), classes=["bright", "dark"], size=8)
    pixels = torch.full((3, 3, 8, 8), 128, dtype=torch.uint8)
    pixels[0, :, ::2] = 127  # exactly on the border
    pixels[1], pixels[2] = 200, 127
    pixels[2, 0, 0, 0] = 128
    batch = Batch(ids=("border", "bright", "dark"), pixels=pixels, labels=torch.tensor([0, 0, 1]))
    steady = stability(classifier, batch, make("input_t_gradient"), draws=16)
    assert 0.1 < float(steady.excluded[0]) < 0.9
    assert steady.excluded[1:].tolist() == [0, 0]
    changes = []
    for draw in range(16):
        noisy = _noisy(batch, 1, 0, draw)
        if int(predict(classifier, noisy).argmax(1)[0]) == 0:
            # the map of a linear network of equal weights is the image, so its change is the image's
            moved, image = noisy[0].float().sum(0), pixels[0].float().sum(0)
            changes.append(float((moved - image).norm() / image.norm()))
    assert float(steady.excluded[0]) == 1 - len(changes) / 16
    assert float(steady.mean_change[0]) == pytest.approx(np.mean(changes), rel=1e-4)
    assert float(steady.max_change[0]) == pytest.approx(np.max(changes), rel=1e-4)


# --- randomisation ---------------------------------------------------------------------------------------


def test_randomised_copies_keep_each_tensor_s_values_and_leave_the_original(small):
    before = small.fingerprint()
    layers = weighted_layers(small.network)
    copy = randomised(small, layers[:1], seed=1)
    assert small.fingerprint() == before
    assert copy.digest != small.digest
    for name, weight in small.network.named_parameters():
        other = copy.network.get_parameter(name)
        assert torch.equal(other.flatten().sort().values, weight.flatten().sort().values)
        assert torch.equal(other, weight) != (
            name.startswith(layers[0]) and bool(weight.flatten().ne(weight.flatten()[0]).any())
        )
    assert torch.equal(randomised(small, layers[:1], seed=1).network.get_parameter(f"{layers[0]}.weight"),
                       copy.network.get_parameter(f"{layers[0]}.weight"))  # fmt: skip


def test_the_edge_map_fails_the_randomisation_test_and_the_gradient_passes(small):
    batch = labelled_batch(small, 8)
    failed = randomisation(small, batch, Edges(), stops=None)
    assert failed.layers == tuple(weighted_layers(small.network)[::-1])
    assert torch.allclose(failed.spearman, torch.ones(3, 8).double())
    assert torch.allclose(failed.ssim, torch.ones(3, 8).double())
    assert not failed.passed
    passed = randomisation(small, batch, make("gradient"), stops=None)
    assert passed.passed
    assert passed.spearman.shape == passed.ssim.shape == (3, 8)


@dataclass(frozen=True, kw_only=True)
class Ignores:
    """Maps that do not depend on the weights but for the sign, which the score has; blank ones for so many images."""

    blank: int = 0

    def attribute(self, classifier, inputs, target, *, layers=()):
        seen, _ = Edges().attribute(classifier, inputs, target)
        sign = torch.where(seen.score.sigmoid().mul(1e6).long() % 2 == 0, 1.0, -1.0)
        sign[: self.blank] = 0
        return replace(seen, relevance=seen.relevance * sign[:, None, None, None]), {}


def test_maps_that_ignore_the_weights_never_pass(small):
    batch = labelled_batch(small, 8)
    turned = randomisation(small, batch, Ignores(), stops=1)
    assert len(turned.spearman.round().unique()) == 2  # some turned round, and some not
    assert turned.passed is False
    some = randomisation(small, batch, Ignores(blank=3), stops=1)
    assert (some.passed, some.undefined) == (False, 3)
    none = randomisation(small, batch, Ignores(blank=8), stops=1)
    assert (none.passed, none.undefined) == (None, 8)
    found = check(small, batch, Ignores(blank=8))
    assert found.randomisation_passed is None
    images = {row.measure: row.images for row in found.rows}
    assert images["similarity after randomising all weights: |Spearman|"] == 0
    assert images["rank correlation under noise"] == 0
    assert check(small, batch, Ignores()).randomisation_passed is False


def test_the_check_follows_the_class_that_was_asked_for(small):
    batch = labelled_batch(small, 6)
    answers = predict(small, batch.pixels)
    other = answers.scatter(1, answers.argmax(1, keepdim=True), -torch.inf).argmax(1)
    word = check(small, batch, make("gradient"), target="runner-up")
    assert word == check(small, batch, make("gradient"), target=other)
    assert word != check(small, batch, make("gradient"))
    heat = explain(small, batch, make("gradient"), target=other)
    value = {row.measure: row.value.mean for row in word.rows}
    assert value["deletion"] == pytest.approx(float(deletion(small, batch, heat, target=other).mean()))
    assert value["ROAD"] == pytest.approx(float(road(small, batch, heat, shares=(0.1, 0.3, 0.5, 0.7, 0.9)).mean()))


def test_cascading_and_independent_randomise_what_they_say(small):
    """The top layer alone, both ways the same; below it they part."""
    batch = labelled_batch(small, 4)
    cascade, alone = (
        randomisation(small, batch, make("gradient"), mode=m, stops=None) for m in ("cascading", "independent")
    )
    assert torch.equal(cascade.spearman[0], alone.spearman[0])
    assert not torch.allclose(cascade.spearman[2], alone.spearman[2])
    few = randomisation(small, batch, make("gradient"), stops=1)
    assert few.layers == cascade.layers[-1:]
    assert torch.equal(few.spearman[0], cascade.spearman[-1])


def test_rivals_know_the_image_and_not_the_network(small):
    batch = labelled_batch(small, 4)
    assert torch.equal(random_map(batch)[2], random_map(batch.take([2]))[0])
    assert not torch.equal(random_map(batch), random_map(batch, seed=1))
    flat = batch.with_pixels(torch.full_like(batch.pixels, 90))
    assert float(edge_map(flat).abs().max()) == 0
    step = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 255
    edges = edge_map(Batch(ids=("a",), pixels=step, labels=torch.zeros(1).long()))[0]
    assert edges.amax(0).nonzero().flatten().tolist() == [3, 4]
    assert float(edges[0, 3]) == pytest.approx(0.5 * 3**0.5)
    double = replace(small, network=small.network)
    assert spearman(explain(double, batch, Edges()).heat, edge_map(batch)).min() > 0.999


# --- intervals and the check -----------------------------------------------------------------------------


def test_intervals_have_the_width_of_the_standard_error():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    found = interval(values)
    error = float(values.std()) / 20
    assert found.mean == pytest.approx(float(values.mean()))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert interval(torch.cat([values, torch.full((9,), torch.nan)])) == found
    assert np.isnan(interval(torch.full((2,), torch.nan)).mean)


def test_verdicts_are_paired_and_say_when_there_is_too_little():
    base = 100 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(40, generator=torch.Generator().manual_seed(1))
    assert paired_verdict(base + 1 + noise, base, "higher") == "better"  # far less than the spread over images
    assert paired_verdict(base + 1 + noise, base, "lower") == "worse"
    assert paired_verdict(base + noise - noise.mean(), base, "higher") == "not distinguishable"
    assert paired_verdict(base[:5] + 1, base[:5], "higher") == "too few images"
    assert paired_verdict(base, base, "neither") == ""


class Corner(nn.Module):
    """Sees the upper left quarter alone: class 1 where it is bright."""

    def __init__(self):
        super().__init__()
        self.see = nn.Conv2d(3, 1, 1, bias=False)
        self.see.weight.data.fill_(1.0)

    def forward(self, x):
        bright = self.see(x)[:, 0, :8, :8].mean((1, 2)) - 1.0
        return 8 * torch.stack([-bright, bright], 1)


@pytest.fixture(scope="module")
def corner():
    classifier = wrap(Corner(), classes=["dark", "bright"], size=16)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 100, (12, 3, 16, 16), generator=generator)
    pixels[:, :, :8, :8] += torch.randint(60, 156, (12, 3, 8, 8), generator=generator)
    batch = Batch(
        ids=tuple(f"image {i}" for i in range(12)), pixels=pixels.to(torch.uint8), labels=torch.ones(12).long()
    )
    assert predict(classifier, batch.pixels).argmax(1).tolist() == [1] * 12
    mask = torch.zeros(12, 16, 16, dtype=torch.bool)
    mask[:, :8, :8] = True
    return classifier, batch, mask


def test_the_check_tells_a_map_that_knows_from_one_that_does_not(corner):
    classifier, batch, mask = corner
    told = []
    found = check(
        classifier, batch, make("input_t_gradient"), masks={"corner": mask}, progress=lambda *a: told.append(a)
    )
    rows = {row.measure: row for row in found.rows}
    for name in ("deletion", "insertion", "pixel flipping", "ROAD", "relevance inside corner", "peak inside corner"):
        assert rows[name].than_random == "better", rows[name]
        # the corner is brighter than the rest: its edge is the steepest place, and that is where edges peak
        assert rows[name].than_edges == ("not distinguishable" if name.startswith("peak") else "better"), rows[name]
    assert rows["relevance inside corner"].value.mean == 1
    assert rows["relevance inside corner"].random == pytest.approx(0.25, abs=0.05)
    assert rows["Gini index"].than_random == rows["Gini index"].than_edges == ""
    assert [a[:2] for a in told] == [(n, 6) for n in range(1, 7)]
    assert {row.images for row in found.rows} == {12}


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Looks everywhere but where the network looks."""

    def attribute(self, classifier, inputs, target, *, layers=()):
        seen, _ = make("input_t_gradient").attribute(classifier, inputs, target)
        return replace(seen, relevance=seen.relevance.flip(2, 3) - seen.relevance), {}


def test_the_check_tells_a_map_that_is_wrong(corner):
    classifier, batch, mask = corner
    rows = {row.measure: row for row in check(classifier, batch, Elsewhere(), masks=mask).rows}
    for name in ("deletion", "insertion", "pixel flipping", "ROAD", "relevance inside mask"):
        assert rows[name].than_random == "worse", rows[name]


def test_the_check_catches_a_map_that_ignores_the_network(corner):
    classifier, batch, _ = corner
    found = check(classifier, batch, Edges())
    assert not found.randomisation_passed
    rows = {row.measure: row for row in found.rows}
    assert rows["deletion"].than_edges == "not distinguishable"
    assert rows["similarity after randomising all weights: |Spearman|"].value.mean == pytest.approx(1)


def test_the_check_repeats_itself_prints_and_leaves_the_model_alone(small):
    batch = labelled_batch(small, 6)
    before = small.fingerprint()
    first, again = (check(small, batch, make("gradient"), seed=4) for _ in range(2))
    assert first == again
    assert small.fingerprint() == before
    table = first.table()
    assert {len(line) for line in table} == {len(table[0])}
    assert len(table) == 1 + len(first.rows)
    assert table[1][0] == "insertion"
    assert float(table[1][2]) == pytest.approx(first.rows[0].value.mean, abs=5e-4)


def test_measures_run_in_the_network_s_own_type():
    double = small_classifier()
    double = replace(double, network=double.network.double())
    batch = labelled_batch(double, 4)
    heat = random_heat(batch)
    assert removal_curve(double, batch, heat).dtype == torch.float64
    assert road(double, batch, heat).dtype == torch.float64


# --- a planted artefact ----------------------------------------------------------------------------------


class Spot(nn.Module):
    """Class 1 where the mean over a mask is above 0.2."""

    def __init__(self, mask):
        super().__init__()
        self.dense = nn.Linear(mask.numel() * 3, 2)
        weight = mask.float().expand(3, -1, -1).flatten() / mask.sum() / 3
        self.dense.weight.data, self.dense.bias.data = torch.stack([-weight, weight]), torch.tensor([0.2, -0.2])

    def forward(self, x):
        return self.dense(x.flatten(1))


def spotted(name, mask):
    return wrap(Spot(mask), classes=["cats", "dogs"], size=32, name=name)


def measurement(*, margin=0):
    """Eight images whose artefact and animal are at known places, and the measurement of a model of each."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(60, 200, (8, 3, 32, 32), generator=generator).to(torch.uint8)
    artefact, animal = torch.zeros(2, 8, 32, 32, dtype=torch.bool)
    artefact[:, 2:6, 4:20] = True
    animal[:, 10:28, 8:24] = True
    plain = pixels.clone()
    plain[:, :, 2:6, 4:20] = 10  # without the artefact that place is dark
    batch = Batch(ids=tuple(f"image {i}" for i in range(8)), pixels=pixels, labels=torch.tensor([0, 1] * 4))
    models = [spotted("biased", artefact[0]), spotted("unbiased", animal[0])]
    held_out = Planted(batch=batch, animal=animal, artefact=artefact)
    return study_artefact.measured(models, held_out, plain, make("input_t_gradient"), margin=margin, pictures=2)


@pytest.fixture(scope="module")
def planted():
    return measurement()


def test_the_measurement_finds_where_each_model_looks(planted):
    told = study_artefact.summarised(planted, kind="caption", margin=0, seed=0)
    biased, unbiased = told["models"]
    assert (biased["name"], biased["carriers"]) == ("biased", "dogs")
    assert biased["relevance"]["artefact"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert unbiased["relevance"]["animal"]["mean"] == 1.0
    assert unbiased["relevance"]["elsewhere"]["mean"] == 0.0
    assert (biased["more_on_artefact"]["count"], unbiased["more_on_artefact"]["count"]) == (8, 0)
    assert told["area"] == {"artefact": 64 / 1024, "animal": 288 / 1024}
    assert (biased["with"]["count"], biased["without"]["count"]) == (4, 4)
    rows = planted.rows
    assert rows["predicted"][:8] == ["dogs"] * 8
    assert rows["predicted_plain"] == ["cats"] * 8 + ["dogs"] * 8
    assert planted.arrays["heat"].shape == (2, 2, 32, 32)


def test_a_margin_belongs_to_the_artefact_and_not_to_the_animal():
    told = study_artefact.summarised(measurement(margin=5), kind="caption", margin=5, seed=0)
    # rows 0 to 10, columns 0 to 24: the first row of the animal is taken
    assert told["area"] == {"artefact": pytest.approx(11 * 25 / 1024, abs=1e-6), "animal": 17 * 16 / 1024}
    assert told["models"][1]["relevance"]["elsewhere"]["mean"] == 0
    assert 0 < told["models"][1]["relevance"]["artefact"]["mean"] < 0.1
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 4, 4] = mask[0, 0, 0] = True
    assert torch.equal(study_artefact.grown(mask, 0), mask)
    grown = study_artefact.grown(mask, 2)[0]
    assert int(grown.sum()) == 25 + 9 - 1  # they share one corner
    assert bool(grown[2:7, 2:7].all())
    assert bool(grown[:3, :3].all())


def test_a_logit_below_zero_turns_the_map_round_and_not_the_shares():
    """Logits -2 s and -s of the brightness s on the artefact: the second one wins and is negative."""
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[2:6, 4:20] = True
    model = spotted("biased", mask)
    weight = model.network.dense.weight.data
    weight[0], weight[1] = -2 * weight[1], -weight[1].clone()
    model.network.dense.bias.data.zero_()
    batch = labelled_batch(model, 4)
    assert bool((predict(model, batch.pixels).amax(1) < 0).all())
    held_out = Planted(batch=batch, animal=~mask.expand(4, -1, -1), artefact=mask.expand(4, -1, -1))
    part = study_artefact.measured([model], held_out, batch.pixels, make("input_t_gradient"), margin=0)
    assert part.rows["on_artefact"] == [1.0] * 4
    assert part.arrays["heat"].max() == 0  # the picture keeps the sign


def test_images_without_relevance_have_no_share(planted):
    rows = {name: list(values) for name, values in planted.rows.items()}
    rows["on_artefact"][0] = rows["on_animal"][0] = float("nan")
    rows["on_artefact"][8:] = rows["on_animal"][8:] = [float("nan")] * 8
    told = study_artefact.summarised(replace(planted, rows=rows), kind="bars", margin=1, seed=0)
    assert [m["images"] for m in told["models"]] == [7, 0]
    assert told["models"][0]["relevance"]["artefact"]["mean"] == 1
    assert told["models"][1]["relevance"]["artefact"]["mean"] is None
    assert told["models"][1]["more_on_artefact"] is None


def test_the_report_shows_the_shares_and_the_maps(planted):
    told = study_artefact.summarised(planted, kind="caption", margin=0, seed=0)
    run = Run(settings={}, metrics={"artefact": told}, tiles=(), artefact=planted)
    shown = section(run)
    assert [m.title for m in shown.models] == ["biased", "unbiased"]
    assert shown.models[0].planted == "on every dog, on no cat"
    assert len(shown.strips) == 2
    left, right = shown.strips[1].panels
    assert left.note == "100 % of relevance on the caption, 0 % on the animal"
    assert right.note == "0 % of relevance on the caption, 100 % on the animal"
    assert left.image == right.image
    assert left.heat != right.heat
    assert (left.answer, left.right) == ("dogs", True)
    assert section(replace(run, metrics={}, artefact=None)) is None


@pytest.mark.filterwarnings("ignore::heatprint.explainers.conservation.ConservationWarning")  # one step of training
def test_the_step_trains_both_models_once_and_keeps_the_result(tmp_path):
    recipe = load_recipe("tiny")
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"size": 32}),
            "training": replace(recipe.training, stages=((1, 32),)),
            "artefact": ArtefactTable(train=32, test=8),
        }
    )
    store = Store(tmp_path)
    lab = Lab(recipe, store, SILENT)
    first = lab.artefact()
    assert [m["name"] for m in first["artefact"]["models"]] == ["biased", "unbiased"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
    assert lab.artefact() == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")} == before
    assert Lab(recipe.model_copy(update={"artefact": None}), store, SILENT).artefact() == {}
