"""Superpixels, LIME, the SHAP family and Anchors: against closed forms, brute force, peers and their own guarantees."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from heatprint.core.errors import InvalidInput, MissingExtra, Unsupported
from heatprint.core.lattice import encode_png
from heatprint.explainers import explain, make
from heatprint.explainers.gradients.shap_last import last_layer_shap
from heatprint.explainers.masks import partition
from heatprint.explainers.masks.anchors import Anchors, extensions
from heatprint.explainers.masks.bandit import Arms, best_arms, kl_bounds, surely_above
from heatprint.explainers.masks.engine import MaskedImage, hidden
from heatprint.explainers.masks.kernel_shap import drawn_coalitions, every_coalition, shapley_regression
from heatprint.explainers.masks.lime import cosine_distance, weighted_ridge
from heatprint.explainers.masks.segments import label_map, recovered_pixels, segment
from heatprint.models import wrap
from heatprint.testing import labelled_batch, linear_classifier, small_classifier

KINDS = ["slic", "felzenszwalb", "quickshift", "grid"]
SUPERPIXELS = ["lime", "shap.kernel", "anchors"]


def in_double(classifier):
    """A network whose sums do not drown small differences."""
    classifier.network.double()
    return classifier


def scene(size: int, seed: int = 0) -> np.ndarray:
    """Smooth patches of colour with a little noise, uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (4, 4, 3)).repeat(size // 4, 0).repeat(size // 4, 1)
    return (coarse + rng.integers(-4, 5, coarse.shape)).clip(0, 255).astype(np.uint8)


def masked_image(classifier, kind="grid", number=9, fill="black", target=None, seed=0) -> MaskedImage:
    pixels = torch.from_numpy(scene(classifier.size, seed)).permute(2, 0, 1)
    image = classifier.normalise(pixels[None] / 255)[0]
    labels = label_map(classifier, image, kind, number)
    return MaskedImage(
        classifier=classifier,
        image=image,
        labels=labels,
        fill=hidden(fill, classifier, image, labels),
        target=torch.tensor([0]) if target is None else target,
    )


def brute_force_shapley(value: Callable[[tuple[int, ...]], float], players: int) -> np.ndarray:
    """Shapley's formula, term by term."""
    phi = np.zeros(players)
    for i in range(players):
        others = [j for j in range(players) if j != i]
        for size in range(players):
            share = factorial(size) * factorial(players - size - 1) / factorial(players)
            for team in itertools.combinations(others, size):
                phi[i] += share * (value((*team, i)) - value(team))
    return phi


# ---------------------------------------------------------------- superpixels


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), size=st.sampled_from([8, 16, 36]), number=st.integers(4, 30), noise=st.booleans())
@settings(max_examples=settings.default.max_examples // 2)
def test_superpixels_are_numbered_without_gaps_and_never_too_many(kind, seed, size, number, noise):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8) if noise else scene(size, seed)
    labels = segment(pixels, kind, number)
    assert labels.shape == (size, size)
    assert labels.dtype == np.int64
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert 2 <= labels.max() + 1 <= number
    assert np.array_equal(labels, segment(pixels.copy(), kind, number))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_constant_image_still_has_superpixels(kind, level):
    labels = segment(np.full((16, 16, 3), level, np.uint8), kind, 10)
    assert 2 <= labels.max() + 1 <= 10


@pytest.mark.parametrize("kind", ["slic", "felzenszwalb", "quickshift"])
def test_superpixels_follow_the_image(kind):
    pixels = scene(32)
    labels = segment(pixels, kind, 16)
    within = sum(pixels[labels == s].astype(float).var(0).sum() * (labels == s).mean() for s in range(labels.max() + 1))
    assert within < 0.2 * pixels.reshape(-1, 3).astype(float).var(0).sum()


def test_the_grid_is_of_equal_squares():
    labels = segment(np.zeros((12, 12, 3), np.uint8), "grid", 15)
    assert np.bincount(labels.ravel()).tolist() == [16] * 9
    assert (labels[:4, 4:8] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_image_is_recovered_from_the_normalised_input(dtype):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).to(dtype)
    classifier = wrap(network, classes="ab", size=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = torch.arange(192).view(1, 3, 8, 8).to(torch.uint8)
    back = recovered_pixels(classifier, classifier.normalise(pixels / 255)[0])
    assert np.array_equal(back, pixels[0].permute(1, 2, 0).numpy())


# ---------------------------------------------------------------- mask engine


def test_masks_switch_their_superpixels_and_nothing_else(small):
    masked = masked_image(small, "slic", 12)
    assert torch.equal(masked.images(torch.ones(1, masked.size).bool())[0], masked.image)
    assert torch.equal(masked.images(torch.zeros(1, masked.size).bool())[0], masked.fill)
    for s, image in enumerate(masked.images(torch.eye(masked.size).bool())):
        here = masked.labels == s
        assert torch.equal(image[:, here], masked.image[:, here])
        assert torch.equal(image[:, ~here], masked.fill[:, ~here])
    assert masked.areas.sum() == small.size**2


def test_scores_do_not_depend_on_the_chunks():
    classifier = in_double(small_classifier())
    masked = masked_image(classifier, number=16)
    masks = torch.rand((150, 16), generator=torch.Generator().manual_seed(0)) < 0.5
    wanted = torch.cat([classifier.network(masked.images(mask[None])) for mask in masks])
    assert masked.scores(masks).dtype == torch.float64
    assert torch.allclose(masked.scores(masks), wanted[:, 0], rtol=1e-12)
    assert torch.equal(masked.holds(masks), wanted.argmax(1) == 0)
    contrast = masked_image(classifier, number=16, target=torch.tensor([[1.0, -1.0, 0.0]]))
    assert torch.allclose(contrast.scores(masks), wanted[:, 0] - wanted[:, 1], rtol=1e-9)
    assert torch.equal(contrast.holds(masks), wanted[:, 0] > wanted[:, 1])


def test_fills(small):
    masked = masked_image(small, "slic", 12)
    args = (small, masked.image, masked.labels)
    assert torch.allclose(hidden("black", *args), torch.tensor(-0.5))
    assert torch.allclose(hidden("grey", *args), torch.tensor(0.0))
    mean = hidden("mean", *args)
    for s in range(masked.size):
        here = masked.labels == s
        assert torch.allclose(mean[:, here], masked.image[:, here].mean(1, keepdim=True), atol=1e-6)
    assert hidden("blur", *args).var() < masked.image.var()
    assert torch.equal(hidden(-masked.image, *args), -masked.image)
    with pytest.raises(InvalidInput, match="resize it"):
        hidden(masked.image[:, :4], *args)


# ---------------------------------------------------------------- LIME and KernelSHAP


@pytest.mark.parametrize("name", ["lime", "shap.kernel"])
@pytest.mark.parametrize("kind", ["grid", "slic"])
@pytest.mark.parametrize("fill", ["black", "mean"])
def test_a_model_linear_in_its_superpixels_is_recovered(name, kind, fill):
    classifier = in_double(linear_classifier(scale=1.0))
    batch = labelled_batch(classifier, 3)
    extra = {"ridge": 0.0} if name == "lime" else {}
    method = make(name, segmentation=kind, segments=20, fill=fill, samples=300, **extra)
    seen = explain(classifier, batch, method)
    images = classifier.normalise(batch.images)
    for image, heat, target in zip(images, seen.heat, seen.target, strict=True):
        labels = label_map(classifier, image, kind, 20)
        moved = image - hidden(fill, classifier, image, labels)
        parts = (classifier.network.dense.weight[target].view_as(image) * moved).sum(0)
        for s in range(int(labels.max()) + 1):
            here = labels == s
            assert torch.allclose(heat[here].sum(), parts[here].sum(), rtol=1e-6, atol=1e-9)
            assert torch.allclose(heat[here], heat[here][0])
    if name == "lime":
        assert torch.allclose(seen.facts["r2"], torch.ones(3).double())


def test_lime_is_a_weighted_ridge_regression():
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((80, 7)) < 0.5)
    scores = torch.from_numpy(rng.normal(size=80))
    weights = torch.exp(-((cosine_distance(masks) / 0.25) ** 2))
    found, facts = weighted_ridge(masks.double(), scores, weights, 2.5)
    peer = Ridge(alpha=2.5).fit(masks.numpy(), scores.numpy(), sample_weight=weights.numpy())
    assert np.allclose(found.numpy(), peer.coef_, rtol=1e-9)
    assert facts["r2"] == pytest.approx(peer.score(masks.numpy(), scores.numpy(), sample_weight=weights.numpy()))


@pytest.mark.parametrize(("width", "ridge"), [(0.25, 1.0), (0.1, 0.3)])
def test_lime_weighs_masks_by_the_kernel_of_the_paper(monkeypatch, width, ridge):
    masked = masked_image(in_double(small_classifier()), number=9)
    asked, scores = [], MaskedImage.scores
    monkeypatch.setattr(MaskedImage, "scores", lambda self, masks: (asked.append(masks), scores(self, masks))[1])
    found, _ = make("lime", samples=120, width=width, ridge=ridge).weigh(masked, np.random.default_rng(0))
    (masks,) = asked
    assert masks[0].all()
    distance = 1 - np.sqrt(masks.numpy().mean(1))
    peer = Ridge(alpha=ridge).fit(masks, masked.scores(masks), sample_weight=np.exp(-(distance**2) / width**2))
    assert np.allclose(found, peer.coef_, rtol=1e-8)


def test_the_distance_of_lime_is_the_cosine_of_the_paper():
    masks = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    wanted = 1 - torch.nn.functional.cosine_similarity(masks.double(), torch.ones(4).double(), dim=1)
    assert torch.allclose(cosine_distance(masks), wanted)


def test_lime_says_when_its_linear_model_explains_nothing():
    masks = every_coalition(6)[0].double()
    parity = masks.sum(1) % 2
    assert weighted_ridge(masks, parity, torch.ones(len(masks)).double(), 1.0)[1]["r2"] < 0.1
    assert weighted_ridge(masks, torch.ones(len(masks)).double(), torch.ones(len(masks)).double(), 1.0)[1]["r2"] == 1


def test_lime_gives_the_smallest_weights_where_masks_are_too_few(small):
    seen = explain(small, labelled_batch(small, 2), make("lime", samples=5, ridge=0.0))
    assert seen.relevance.isfinite().all()


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_kernel_shap_is_exact_where_it_can_be(fill):
    classifier = in_double(small_classifier())
    masked = masked_image(classifier, "slic", 7, fill)
    players = masked.size
    assert 4 <= players <= 7

    code = torch.arange(2**players)
    scores = masked.scores((code[:, None] >> torch.arange(players)) & 1 == 1)

    def value(team):
        return float(scores[sum(1 << player for player in team)])

    wanted = brute_force_shapley(value, players)
    found, facts = make("shap.kernel", samples=128).weigh(masked, np.random.default_rng(0))
    assert np.allclose(found.numpy(), wanted, rtol=1e-7, atol=1e-10)
    assert facts == {"exact": 1.0, "base": pytest.approx(value(()))}


@given(players=st.integers(2, 6), seed=st.integers(0, 1000))
def test_kernel_shap_of_any_game(players, seed):
    worth = dict(
        zip(
            itertools.chain.from_iterable(itertools.combinations(range(players), k) for k in range(players + 1)),
            np.random.default_rng(seed).normal(size=2**players),
            strict=True,
        )
    )
    masks, weights = every_coalition(players)
    values = torch.tensor([worth[tuple(np.flatnonzero(mask))] for mask in masks.numpy()]).double()
    ends = {"empty": torch.tensor(worth[()]).double(), "full": torch.tensor(worth[tuple(range(players))]).double()}
    found = shapley_regression(masks, values, weights, **ends)
    assert np.allclose(found, brute_force_shapley(lambda team: worth[tuple(sorted(team))], players), atol=1e-9)


def test_sampled_kernel_shap_is_near_and_keeps_the_sum():
    masked = masked_image(in_double(small_classifier()), number=9)
    exact, facts = make("shap.kernel", samples=512).weigh(masked, np.random.default_rng(0))
    assert facts["exact"] == 1
    drawn, facts = make("shap.kernel", samples=500).weigh(masked, np.random.default_rng(0))
    assert facts["exact"] == 0
    ends = masked.scores(torch.stack([torch.zeros(9), torch.ones(9)]).bool())
    assert float(drawn.sum()) == pytest.approx(float(ends[1] - ends[0]), abs=1e-12)
    assert (drawn - exact).norm() < 0.1 * exact.norm()
    assert not torch.allclose(drawn, exact, rtol=1e-6)


def test_coalitions_are_drawn_by_the_kernel_and_in_pairs():
    masks, _ = drawn_coalitions(6, 20_000, np.random.default_rng(0))
    assert torch.equal(masks[1::2], ~masks[::2])
    share = torch.bincount(masks.sum(1), minlength=7)[1:6] / len(masks)
    mass = torch.tensor([1 / (k * (6 - k)) for k in range(1, 6)])
    assert torch.allclose(share, mass / mass.sum(), atol=0.01)
    assert torch.allclose(masks.float().mean(0), torch.tensor(0.5), atol=0.01)


# ---------------------------------------------------------------- Anchors: bandits


@given(mean=st.floats(0, 1), radius=st.floats(1e-4, 2))
def test_bounds_solve_the_divergence(mean, radius):
    def excess(q):
        parts = [a * np.log(a / b) for a, b in ((mean, q), (1 - mean, 1 - q)) if a > 0]
        return sum(parts) - radius

    low, high = (float(b[0]) for b in kl_bounds(np.array([mean]), np.array([radius])))
    assert low <= mean <= high
    tiny = 1e-13
    if mean > 1e-6:
        assert low == pytest.approx(brentq(excess, tiny, mean) if excess(tiny) > 0 else 0, abs=1e-6)
    if mean < 1 - 1e-6:
        assert high == pytest.approx(brentq(excess, mean, 1 - tiny) if excess(1 - tiny) > 0 else 1, abs=1e-6)


def coins(shares, seed):
    rng = np.random.default_rng(seed)
    return Arms(pull=lambda rows, times: rng.binomial(times, np.asarray(shares)[rows]), count=len(shares))


def test_kl_lucb_finds_the_best_arms_and_stops_early():
    shares = [0.2, 0.9, 0.4, 0.6, 0.95, 0.3, 0.5, 0.1]
    wrong, spent = 0, []
    for seed in range(60):
        arms = coins(shares, seed)
        found = best_arms(arms, wanted=2, delta=0.05, epsilon=0.1, batch=20, budget=20_000)
        wrong += set(found.tolist()) != {1, 4}
        spent.append(int(arms.pulls.sum()))
    assert wrong <= 3
    assert np.mean(spent) < 2_000


def test_kl_lucb_keeps_its_budget():
    arms = coins([0.5] * 6, 0)
    assert len(best_arms(arms, wanted=2, delta=0.05, epsilon=0.0, batch=20, budget=205)) == 2
    assert arms.pulls.sum() == 6 * 10 + 200
    assert len(best_arms(coins([0.5], 0), wanted=2, delta=0.05, epsilon=0.0, batch=20, budget=200)) == 1


def test_the_lower_bound_is_seldom_wrong_however_often_one_looks():
    shares = [0.9, 0.949, 0.5]
    wrong = 0
    for seed in range(200):
        low = surely_above(coins(shares, seed), 0.95, delta=0.05, batch=20, budget=600)
        wrong += bool((low > shares).any())
    assert wrong <= 10


def test_a_good_arm_is_soon_known_to_be_one():
    arms = coins([1.0, 0.3], 0)
    low = surely_above(arms, 0.95, delta=0.05, batch=32, budget=2000)
    assert low[0] >= 0.95 > low[1]
    assert arms.pulls[0] < 250
    assert arms.pulls[1] == 32


# ---------------------------------------------------------------- Anchors: images


class SquaresOn(nn.Module):
    """Class 1 where each of some squares of a 4 x 4 grid is bright."""

    def __init__(self, *squares: int) -> None:
        super().__init__()
        self.squares = list(squares)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        means = torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)
        darkest = means[:, self.squares].amin(1) if self.squares else means.new_ones(len(means))
        return torch.stack([-(darkest - 0.2), darkest - 0.2], 1) * self.scale


def squares_classifier(*squares):
    return wrap(SquaresOn(*squares), classes=("dark", "bright"), size=16)


def anchored(classifier, target="predicted", **settings_):
    batch = labelled_batch(classifier, 3)
    method = make("anchors", **({"segmentation": "grid", "segments": 16, "fill": "black"} | settings_))
    return explain(classifier, batch, method, target=target)


@pytest.mark.parametrize("square", [0, 6, 15])
def test_the_anchor_is_the_superpixel_that_decides(square):
    seen = anchored(squares_classifier(square))
    wanted = torch.zeros(4, 4)
    wanted.view(-1)[square] = 1 / 16
    for heat in seen.heat:
        assert torch.allclose(heat, wanted.repeat_interleave(4, 0).repeat_interleave(4, 1))
    facts = {name: fact.tolist() for name, fact in seen.facts.items()}
    assert facts["guaranteed"] == facts["size"] == facts["precision"] == [1, 1, 1]
    assert facts["coverage"] == [0.5] * 3
    assert min(facts["precision_low"]) >= 0.95


def test_an_anchor_of_two_superpixels():
    seen = anchored(squares_classifier(3, 9))
    assert seen.facts["size"].tolist() == [2, 2, 2]
    assert seen.facts["coverage"].tolist() == [0.25] * 3
    assert torch.allclose(seen.heat.sum((1, 2)), torch.ones(3))
    assert ((seen.heat > 0).sum((1, 2)) == 32).all()
    assert (seen.heat[:, 12:16, 0:4] == 0).all()
    assert (seen.heat[:, 8:12, 4:8] > 0).all()


def test_the_anchor_of_a_weighing_of_logits():
    classifier = squares_classifier(5)
    seen = anchored(classifier, target="contrast")
    assert seen.against is not None
    assert seen.facts["size"].tolist() == [1, 1, 1]


def test_an_empty_anchor_is_told_and_drawn_as_no_preference():
    seen = anchored(squares_classifier())
    assert seen.facts["size"].tolist() == [0, 0, 0]
    assert seen.facts["coverage"].tolist() == seen.facts["guaranteed"].tolist() == [1, 1, 1]
    assert torch.allclose(seen.heat, torch.tensor(1 / 256))


def test_an_answer_that_never_holds_has_no_anchor():
    seen = anchored(squares_classifier(), target=torch.zeros(3).long(), largest=2)
    assert not seen.facts["guaranteed"].any()
    assert not seen.facts["precision"].any()
    assert not seen.relevance.any()


def test_extensions_are_all_of_one_size_and_each_once():
    pair = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    grown = extensions(pair)
    assert sorted("".join(map(str, row.astype(int))) for row in grown) == ["0101", "0110", "1001", "1010", "1100"]


@pytest.mark.parametrize("precision", [0.8, 0.95])
def test_the_guarantee_holds_as_often_as_promised(precision):
    size, delta, runs = 5, 0.1, 150
    every = np.array(list(itertools.product([False, True], repeat=size)))
    code = 1 << np.arange(size)
    guaranteed = wrong = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        # answers that a few superpixels nearly fix: precisions lie on both sides of the threshold, and close to it
        table = rng.random(2**size) < np.array([0.75, 0.9, 0.97])[seed % 3]
        method = Anchors(precision=precision, delta=delta, largest=3, batch=16, budget=400)
        anchor = method.search(lambda masks, table=table: table[masks @ code], size, rng)
        true = table[(every | anchor.segments) @ code].mean()
        guaranteed += anchor.guaranteed
        wrong += anchor.guaranteed and true < precision
    assert guaranteed > 0.3 * runs
    assert wrong <= delta * runs


def test_anchors_cost_what_they_say():
    asked = 0
    method = Anchors(beam=2, largest=3, batch=16, budget=100)

    def never(masks):
        nonlocal asked
        asked += len(masks)
        return masks.mean(1) > 0.99

    method.search(never, 12, np.random.default_rng(0))
    assert 0 < asked <= 3 * (10 * 2 * 12 + 100 + 2 * 100) + 100


# ---------------------------------------------------------------- the rest of the SHAP family


def test_partition_shap_adds_up_and_is_the_same_each_time():
    pytest.importorskip("shap")
    classifier = in_double(small_classifier())
    batch = labelled_batch(classifier, 2)
    method = make("shap.partition", samples=60)
    np.random.seed(1)
    first = explain(classifier, batch, method)
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    again = explain(classifier, batch, method)
    assert torch.equal(first.relevance, again.relevance)
    np.random.seed(1)
    assert np.array_equal(np.random.get_state()[1], state)
    assert torch.allclose(first.relevance.sum((1, 2, 3)), first.score - first.facts["base"], rtol=1e-9)


def test_partition_shap_of_a_linear_model():
    pytest.importorskip("shap")
    classifier = in_double(linear_classifier(size=8, scale=1.0))
    batch = labelled_batch(classifier, 1)
    seen = explain(classifier, batch, make("shap.partition", fill="black", samples=200))
    parts = (classifier.network.dense.weight[seen.target].view(1, 3, 8, 8) * batch.images).sum(1)
    halves = [h[0, 4:].sum() for h in (seen.heat, parts)] + [h[0, :, :4].sum() for h in (seen.heat, parts)]
    assert torch.allclose(halves[0], halves[1])
    assert torch.allclose(halves[2], halves[3])


def test_partition_shap_takes_bfloat16():
    pytest.importorskip("shap")
    classifier = small_classifier()
    classifier.network.bfloat16()
    seen = explain(classifier, labelled_batch(classifier, 1), make("shap.partition", samples=20))
    assert seen.relevance.dtype == torch.bfloat16
    assert bool(seen.relevance.any())


def test_importing_shap_leaves_python_s_generator_alone(monkeypatch):
    monkeypatch.setattr(partition, "import_module", lambda name: random.seed(7))
    random.seed(1)
    before = random.getstate()
    partition._shap()
    assert random.getstate() == before


def test_partition_shap_says_what_to_install(monkeypatch, small):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(MissingExtra, match=r"heatprint\[explain\]"):
        explain(small, labelled_batch(small, 1), make("shap.partition"))


@pytest.mark.parametrize("background", ["black", "grey", "colours"])
def test_expected_gradients_of_a_linear_model(background):
    classifier = in_double(linear_classifier(scale=1.0))
    batch = labelled_batch(classifier, 2)
    seen = explain(classifier, batch, make("shap.gradient", background=background, samples=70))
    assert torch.allclose(seen.facts["completeness"], torch.zeros(2).double(), atol=1e-9)
    slope = classifier.network.dense.weight[seen.target].view_as(batch.images)
    from_ = batch.images - seen.relevance / slope  # of a linear model: the mean background, one colour
    level = {"black": 0.0, "grey": 0.5}.get(background)
    assert torch.allclose(from_, from_[:, :, :1, :1].expand_as(from_), atol=1e-6)
    assert level is None or torch.allclose(from_, torch.tensor(level).double(), atol=1e-6)
    assert level is not None or (from_ > 0.3).all() & (from_ < 0.7).all() & (from_[0] != from_[1]).all()


def test_expected_gradients_approach_integrated_gradients():
    classifier = in_double(small_classifier())
    batch = labelled_batch(classifier, 2)
    wanted = explain(classifier, batch, make("integrated_gradients", baseline="black", steps=64)).relevance
    found = explain(classifier, batch, make("shap.gradient", background="black", samples=300))
    assert (found.relevance - wanted).norm() < 0.03 * wanted.norm()
    assert found.facts["completeness"].abs().max() < 0.02
    few = explain(classifier, batch, make("shap.gradient", background="black", samples=5)).facts["completeness"]
    assert few.abs().max() > found.facts["completeness"].abs().max()


def test_expected_gradients_agree_with_captum():
    captum = pytest.importorskip("captum.attr")
    classifier = in_double(small_classifier())
    inputs = classifier.normalise(labelled_batch(classifier, 1).images)
    target = torch.tensor([1])
    ours, _ = make("shap.gradient", background="black", samples=500).attribute(classifier, inputs, target)
    torch.manual_seed(0)
    theirs = captum.GradientShap(classifier.network).attribute(
        inputs, torch.full_like(inputs, -0.5), n_samples=500, stdevs=0.0, target=target
    )
    assert (ours.relevance - theirs).norm() < 0.1 * theirs.norm()  # theirs draws places independently


def test_expected_gradients_take_a_folder_of_images(tmp_path, small):
    batch = labelled_batch(small, 3)
    for row, pixels in enumerate(batch.pixels):
        (tmp_path / f"{row}.png").write_bytes(encode_png(pixels))
    seen = explain(small, batch, make("shap.gradient", background=str(tmp_path), samples=30))
    other = explain(small, batch, make("shap.gradient", samples=30))
    assert seen.relevance.isfinite().all()
    assert not torch.allclose(seen.relevance, other.relevance)
    with pytest.raises(InvalidInput, match="is not a folder"):
        make("shap.gradient", background="colors")


class Head(nn.Module):
    """Hidden neurons, and a head called as a function."""

    def __init__(self, classes: int = 3, hidden_neurons: int = 5) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(192, hidden_neurons), nn.Linear(hidden_neurons, classes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(torch.relu(self.hidden(x.flatten(1))), self.head.weight, bias=self.head.bias)


@pytest.fixture
def headed():
    torch.manual_seed(0)
    classifier = in_double(wrap(Head(), classes="abc", size=8))
    generator = torch.Generator().manual_seed(1)
    images, background = (torch.rand((n, 3, 8, 8), generator=generator) for n in (4, 7))
    return classifier, images, background


def neurons(classifier, images):
    return torch.relu(classifier.network.hidden(images.double().flatten(1)))


def test_last_layer_shap_is_shapleys_formula(headed):
    classifier, images, background = headed
    before = classifier.fingerprint()
    target = torch.tensor([0, 2, 1, 1])
    found = last_layer_shap(classifier, images, background, target)
    assert classifier.fingerprint() == before
    mine, theirs, head = neurons(classifier, images), neurons(classifier, background), classifier.network.head
    for a, c, phi in zip(mine, target, found, strict=True):

        def value(team, a=a, c=c):
            mixed = theirs.clone()
            mixed[:, list(team)] = a[list(team)]
            return float(head(mixed)[:, c].mean())

        assert np.allclose(phi.numpy(), brute_force_shapley(value, 5), atol=1e-12)


def test_last_layer_shap_adds_up_and_knows_weights(headed):
    classifier, images, background = headed
    weights = torch.tensor([[1.0, -1.0, 0.0]]).expand(4, -1)
    found = last_layer_shap(classifier, images, background, weights)
    logits, base = classifier(images), classifier(background).mean(0)
    assert torch.allclose(found.sum(1), logits[:, 0] - logits[:, 1] - base[0] + base[1])
    parts = [last_layer_shap(classifier, images, background, torch.full((4,), c)) for c in (0, 1)]
    assert torch.allclose(found, parts[0] - parts[1])


def test_last_layer_shap_agrees_with_shap(headed):
    shap = pytest.importorskip("shap")
    classifier, images, background = headed
    head = classifier.network.head
    masker = shap.maskers.Independent(neurons(classifier, background).numpy(), max_samples=100)
    peer = shap.LinearExplainer((head.weight[2].numpy(), float(head.bias[2])), masker)
    wanted = peer.shap_values(neurons(classifier, images).numpy())
    assert np.allclose(last_layer_shap(classifier, images, background, torch.full((4,), 2)).numpy(), wanted, atol=1e-9)


def test_last_layer_shap_of_one_logit_and_of_a_batch_norm_network(small):
    torch.manual_seed(0)
    classifier = in_double(wrap(Head(classes=1), classes="ab", size=8))
    images = torch.rand((3, 3, 8, 8))
    logits = classifier(images)
    found = last_layer_shap(classifier, images, images, torch.zeros(3).long())
    assert torch.allclose(found.sum(1), logits[:, 0] - logits[:, 0].mean())
    batch = labelled_batch(small, 70)
    found = last_layer_shap(small, batch.images, batch.images[:5], batch.labels)
    assert found.shape == (70, 32)
    assert found.dtype == torch.float32


def test_last_layer_shap_refuses_what_it_cannot_explain(headed):
    classifier, images, background = headed
    with pytest.raises(InvalidInput, match="at least one"):
        last_layer_shap(classifier, images, background[:0], torch.zeros(4).long())
    for network in (
        nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Softplus()),
    ):
        with pytest.raises(Unsupported, match=r"shap\.kernel"):
            last_layer_shap(wrap(network, classes="abc", size=8), images, background, torch.zeros(4).long())


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("name", [*SUPERPIXELS, "shap.gradient"])
def test_draws_belong_to_the_seed_and_the_image(name):
    classifier = in_double(small_classifier())
    batch = labelled_batch(classifier, 3)
    fast = {"segments": 9, "budget": 64, "largest": 1} if name == "anchors" else {"samples": 40}
    first, again, other = (explain(classifier, batch, make(name, seed=seed, **fast)) for seed in (0, 0, 1))
    alone = explain(classifier, batch.take([2, 0]), make(name, seed=0, **fast))
    assert torch.equal(first.relevance, again.relevance)
    assert torch.allclose(first.relevance[[2, 0]], alone.relevance, rtol=1e-9, atol=1e-12)
    # the random network's anchors have a precision of 1, whatever is drawn
    assert name == "anchors" or not torch.allclose(first.relevance, other.relevance, rtol=1e-3)


def test_the_samples_of_anchors_belong_to_their_seed():
    method = Anchors(largest=1, batch=16, budget=100)
    found = [method.search(lambda m: m.sum(1) > 3, 6, np.random.default_rng(seed)).precision for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("lime", {"segments": 3}, "4 or more"),
        ("lime", {"samples": 1}, "2 or more"),
        ("lime", {"segments": 4097}, "at most 4096"),
        ("lime", {"width": 0.0}, "above 0"),
        ("lime", {"width": float("nan")}, "above 0 and finite"),
        ("lime", {"width": float("inf")}, "above 0 and finite"),
        ("lime", {"ridge": float("nan")}, "0 or more and finite"),
        ("lime", {"ridge": float("inf")}, "0 or more and finite"),
        ("lime", {"fill": "white"}, "fill"),
        ("shap.kernel", {"samples": 1}, "2 or more"),
        ("shap.kernel", {"segmentation": "watershed"}, "segmentation"),
        ("shap.gradient", {"samples": 0}, "1 or more"),
        ("shap.partition", {"samples": 2}, "4 or more"),
        ("anchors", {"precision": 1.0}, "below 1"),
        ("anchors", {"delta": 0.0}, "above 0"),
        ("anchors", {"beam": 0}, "1 or more"),
        ("anchors", {"batch": 64, "budget": 50}, "no less than batch"),
    ],
)
def test_settings_out_of_range_are_named(name, wrong, told):
    with pytest.raises(InvalidInput, match=told):
        make(name, **wrong)


@pytest.mark.parametrize("name", [*SUPERPIXELS, "shap.gradient", "shap.partition"])
def test_layers_are_refused(name, small):
    with pytest.raises(InvalidInput, match=r"use an 'lrp\.' method"):
        make(name).attribute(small, small.normalise(labelled_batch(small, 1).images), torch.tensor([0]), layers=("a",))
