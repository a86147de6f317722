"""The published detectors: Mahalanobis, LID, SHAP signatures, ML-LOO and feature squeezing."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from torch import nn

from heatprint.core.errors import InvalidInput, UnknownName
from heatprint.core.registry import Registry
from heatprint.detectors.door import fit, load
from heatprint.detectors.examples import Examples
from heatprint.detectors.published.layers import averaged, check_seen, outputs
from heatprint.detectors.published.lid import LID, dimension
from heatprint.detectors.published.logistic import CS, apply_logistic, fit_logistic, folds_by_source
from heatprint.detectors.published.mahalanobis import Mahalanobis, distances, gaussian
from heatprint.detectors.published.ml_loo import MLLOO, dispersion
from heatprint.detectors.published.shap_signature import SHAPSignatureDetector, apply_mlp, balanced
from heatprint.detectors.published.squeezing import SqueezingDetector, median2, reduced
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.models import load as load_model
from heatprint.models import wrap

METHODS = {
    "mahalanobis": Mahalanobis(),
    "lid": LID(neighbours=8, reference=50),
    "shap-signature": SHAPSignatureDetector(epochs=30),
    "shap logistic": SHAPSignatureDetector(model="logistic", explained="contrast"),
    "ml-loo": MLLOO(),
    "ml-loo lrp": MLLOO(attribution="lrp.epsilon", layers=("penultimate", "last")),
    "squeezing": SqueezingDetector(),
}
REGISTRY = Registry(
    "detectors", {name: f"{type(m).__module__}:{type(m).__qualname__}" for name, m in METHODS.items()}
)  # fmt: skip


@pytest.fixture(scope="module")
def doubled(small):
    """In float64, where rounding tells no batches apart."""
    return replace(small, network=copy.deepcopy(small.network).double())


@pytest.fixture(scope="module")
def examples():
    return made(60, seed=0)


def smooth(count, *, seed, size=16):
    """Smooth random photographs, uint8 [N, 3, size, size]."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, 3, size, size)), (0, 0, 3, 3), mode="wrap")
    return np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)


def made(count, *, seed):
    """Clean images, and of each a version with fifteen loud pixels, which counts as attacked."""
    clean = smooth(count, seed=seed)
    rng = np.random.default_rng(seed + 1)
    loud = clean.copy()
    for image in loud:
        image[:, rng.integers(0, 16, 15), rng.integers(0, 16, 15)] = rng.choice([0, 255], (3, 15))
    return known(np.concatenate([clean, loud]), [f"{seed}/{i}" for i in range(count)] * 2, [False] * count)


def known(pixels, sources, clean):
    """Examples of which the first ones are clean and the rest attacked."""
    attacked = np.arange(len(pixels)) >= len(clean)
    words = np.where(attacked, "one-pixel", "clean").tolist()
    labels = torch.arange(len(pixels)) % 2
    return Examples(
        sources=tuple(sources), pixels=torch.as_tensor(pixels), labels=labels, kinds=tuple(words), names=tuple(words),
        attacked=attacked,
    )  # fmt: skip


# What every method keeps


@pytest.mark.parametrize("name", METHODS)
def test_a_detector_finds_loud_pixels_image_by_image_and_leaves_the_model(name, doubled, examples, tmp_path):
    before, given = doubled.fingerprint(), examples.pixels.clone()
    fitted = fit(doubled, examples, METHODS[name], name=name, seed=3)
    fresh = made(25, seed=7)
    scores = fitted.score(doubled, fresh.pixels)
    assert scores.dtype == np.float64
    assert roc_auc_score(fresh.attacked, scores) > 0.8
    assert doubled.fingerprint() == before
    assert torch.equal(examples.pixels, given)
    alone = np.concatenate([fitted.score(doubled, fresh.pixels[row : row + 1]) for row in range(0, 50, 7)])
    assert np.abs(alone - scores[::7]).max() < 1e-6
    fitted.save(tmp_path)
    again = load(tmp_path, REGISTRY)
    assert again.method == METHODS[name]
    assert np.array_equal(again.score(doubled, fresh.pixels), scores)
    assert fitted.method.score(doubled, fitted.learned, fresh.pixels[:0]).shape == (0,)


@pytest.mark.parametrize("name", METHODS)
def test_equal_seeds_give_equal_bits(name, doubled, examples):
    first, second = (fit(doubled, examples, METHODS[name], seed=5).learned for _ in range(2))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert all(isinstance(array, np.ndarray) for array in first.values())


def test_in_float32_the_batch_changes_a_score_by_rounding_only(small, examples):
    for name, method in METHODS.items():
        fitted = fit(small, examples, method)
        scores = fitted.score(small, examples.pixels[::30])
        alone = np.concatenate([fitted.score(small, examples.pixels[row : row + 1]) for row in range(0, 120, 30)])
        assert np.abs(alone - scores).max() < 1e-4 * np.abs(scores).max(), name


@pytest.mark.parametrize(
    ("method", "values", "says"),
    [
        (Mahalanobis, {"layers": "0.6"}, "tuple of module names"),
        (Mahalanobis, {"layers": ("0.6", "0.6")}, "twice"),
        (LID, {"neighbours": 1}, "2 or more"),
        (LID, {"reference": 9}, "10 images or more"),
        (LID, {"layers": ("",)}, "tuple of module names"),
        (LID, {"grid": 0}, "1 or more"),
        (SHAPSignatureDetector, {"model": "forest"}, "'mlp' or 'logistic'"),
        (SHAPSignatureDetector, {"explained": "all"}, "predicted, every, contrast"),
        (SHAPSignatureDetector, {"hidden": 0}, "1 or more"),
        (SHAPSignatureDetector, {"penalty": float("nan")}, "0 or more"),
        (MLLOO, {"attribution": "occlusion"}, "lrp"),
        (MLLOO, {"explained": "every"}, "'predicted' or 'contrast'"),
        (SqueezingDetector, {"bits": 8}, "1 to 7"),
        (SqueezingDetector, {"medians": (4,)}, r"\(2, 3\)"),
        (SqueezingDetector, {"bits": 0, "medians": ()}, "no squeezer"),
    ],
)
def test_settings_that_mean_nothing_are_refused(method, values, says):
    with pytest.raises(InvalidInput, match=says):
        method(**values)


def test_an_attribution_that_does_not_exist_is_named():
    with pytest.raises(UnknownName, match=r"lrp\.epsilon"):
        MLLOO(attribution="lrp.epsilonn")


@pytest.mark.parametrize("name", ["mahalanobis", "lid", "shap-signature"])
def test_methods_that_compare_with_clean_images_ask_for_some(name, doubled, examples):
    unclean = replace(examples, names=tuple("jpeg" if n == "clean" else n for n in examples.names))
    with pytest.raises(InvalidInput, match="named 'clean'"):
        fit(doubled, unclean, METHODS[name])


# Activations at several layers


def test_activations_are_those_of_a_network_run_by_hand():
    slim = load_model("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)
    pixels = torch.from_numpy(smooth(70, seed=2, size=32))  # more than one batch
    found = averaged(slim, pixels)
    x = slim.normalise(pixels.float() / 255)
    expected, stage = {}, 0
    modules = dict(slim.network.named_modules())
    for name, module in modules.items():
        if not list(module.children()):
            if name == "9":
                expected["last"] = x
            x = module(x)
            if "Pool" in type(module).__name__:
                expected[name] = x.mean((2, 3))
                stage += 1
    assert stage == 6
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == (70, values.shape[1])
        assert np.allclose(found[name], values.numpy(), rtol=1e-5, atol=1e-6)
    one = averaged(slim, pixels, ("3", "0.6"))
    assert list(one) == ["0.6", "3"]  # in the order they run
    assert np.array_equal(one["0.6"], found["0.6"])


def test_a_grid_keeps_where_things_are():
    slim = load_model("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)
    pixels = torch.from_numpy(smooth(5, seed=2, size=32))
    with outputs(slim.network, ("0.6", "0.23")) as seen, torch.no_grad():
        slim(pixels.float() / 255)
    maps, small = seen["0.6"], seen["0.23"]
    assert (maps.shape[2], small.shape[2]) == (16, 4)
    cells = [maps[:, :, a : a + 4, b : b + 4].mean((2, 3)) for a in range(0, 16, 4) for b in range(0, 16, 4)]
    found = averaged(slim, pixels, ("0.6", "0.23", "last"), grid=4)
    assert np.allclose(found["0.6"], torch.stack(cells, 2).flatten(1), atol=1e-6)
    assert np.allclose(averaged(slim, pixels, ("0.23",), grid=9)["0.23"], small.flatten(1))  # no cell is empty
    assert np.array_equal(found["last"], averaged(slim, pixels, ("last",))["last"])


class Tokens(nn.Module):
    """One shared layer called twice on tokens [N, T, C], and one that is never called."""

    def __init__(self):
        super().__init__()
        self.shared, self.idle, self.head = nn.Linear(12, 12), nn.Linear(2, 2), nn.Linear(12, 2)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)[:, :, :1].reshape(len(x), -1, 12)
        return self.head(self.shared(torch.tanh(self.shared(tokens))).mean(1))


def test_a_layer_that_runs_twice_is_written_down_twice_and_tokens_are_averaged():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = wrap(Tokens(), classes=("a", "b"), size=12)
    pixels = torch.from_numpy(smooth(3, seed=1, size=12))
    found = averaged(model, pixels, ("shared", "last"))
    assert list(found) == ["shared", "shared#2", "last"]
    assert found["shared"].shape == (3, 12)
    assert np.allclose(found["shared#2"], found["last"], atol=1e-6)  # the head reads the mean over tokens
    with pytest.raises(InvalidInput, match="no module 'neck'"):
        averaged(model, pixels, ("neck",))
    with pytest.raises(InvalidInput, match="'idle' did not run"), outputs(model.network, ("idle",)) as seen:
        check_seen(seen, ("idle",))


def test_no_hook_stays_behind_when_the_network_fails(doubled):
    before = doubled.fingerprint()
    with pytest.raises(RuntimeError), outputs(doubled.network, ("stem.3", "body")):
        doubled.network(torch.zeros(1, 5, 16, 16, dtype=torch.float64))
    with pytest.raises(InvalidInput), outputs(doubled.network, ("stem.3", "nowhere")):
        pass
    assert doubled.fingerprint() == before


# Logistic regression


def test_the_regression_is_the_minimum_of_the_balanced_penalised_loss():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 5, (90, 4)) * [1, 10, 0.1, 1000]
    attacked = features[:, 0] + 0.02 * features[:, 1] + rng.normal(size=90) * 4 > 6
    found = fit_logistic(features, attacked, ["one source"] * 90)  # no folds: the middle penalty
    white = (features - features.mean(0)) / features.std(0)
    weigh = np.where(attacked, 90 / 2 / attacked.sum(), 90 / 2 / (~attacked).sum())
    odds = white @ found["weights"] + found["bias"]
    pull = weigh * (1 / (1 + np.exp(-odds)) - attacked)  # the loss's derivative
    slope = CS[len(CS) // 2] * white.T @ pull + found["weights"]
    assert np.abs(slope).max() < 1e-2
    assert abs(pull.sum()) < 1e-2
    assert np.allclose(apply_logistic(found, features), odds, atol=1e-10)


def test_a_constant_column_changes_nothing_and_the_rarer_kind_counts_as_much():
    attacked, names = np.arange(60) < 5, [str(i) for i in range(60)]
    still = np.full((60, 2), 0.1) * [0, 1]  # their standard deviations are 0 and what rounding leaves of it
    assert np.allclose(apply_logistic(fit_logistic(still, attacked, names), still), 0, atol=1e-6)
    told = 2.0 * attacked + np.random.default_rng(0).exponential(size=60)
    found = fit_logistic(np.column_stack([still, told]), attacked, names)
    as_learned, moved = apply_logistic(found, np.array([[0, 0.1, 1], [0.5, 8, 1]]))
    assert moved == pytest.approx(as_learned, abs=1e-2)


def test_the_penalty_is_chosen_on_sources_held_out():
    """Eight near-equal rows per source and chance for a label: rows held out would be guessed from their twins."""
    rng = np.random.default_rng(4)
    source = np.repeat(np.arange(30), 8)
    features = rng.normal(size=(30, 60))[source] + 0.01 * rng.normal(size=(240, 60))
    attacked = rng.permutation(np.repeat([False, True], 15))[source]
    found = fit_logistic(features, attacked, [f"image {i}" for i in source])
    weakest = LogisticRegression(C=CS[0], class_weight="balanced", max_iter=10_000)
    weakest.fit((features - features.mean(0)) / features.std(0), attacked)
    assert np.allclose(found["weights"], weakest.coef_[0], atol=1e-6)
    for fitted, held in folds_by_source([f"image {i}" for i in source]):
        assert not set(source[fitted]) & set(source[held])


def test_where_features_tell_the_penalty_is_weak():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 3))
    attacked = features[:, 1] > 0
    found = fit_logistic(features, attacked, [str(i) for i in range(200)])
    strong = LogisticRegression(C=CS[0], class_weight="balanced").fit(features, attacked)
    assert abs(found["weights"][1]) > 5 * abs(strong.coef_[0][1])


# Mahalanobis


def test_distances_are_mahalanobis_distances_to_the_nearest_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40) * 5
    values = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + labels[:, None]
    model = gaussian(values, labels)
    means = {c: values[labels == c].mean(0) for c in (0, 5, 10)}
    inverse = np.linalg.inv(ledoit_wolf(values - np.stack([means[c] for c in labels]), assume_centered=True)[0])
    asked = rng.normal(size=(9, 6)) * 4
    slow = [min(mahalanobis(x, m, inverse) ** 2 for m in means.values()) for x in asked]
    assert np.allclose(distances(model, asked), slow, rtol=1e-9)


def test_a_dead_layer_and_more_channels_than_images_do_no_harm():
    assert np.array_equal(distances(gaussian(np.full((12, 5), 2.0), np.arange(12) % 2), np.ones((3, 5))), np.zeros(3))
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 50))
    values[:, 7] = 0
    far = distances(gaussian(values, np.arange(12) % 2), rng.normal(size=(4, 50)))
    assert np.isfinite(far).all()
    assert (far > 0).all()


@pytest.mark.parametrize("method", [Mahalanobis(), LID(neighbours=5)])
def test_new_clean_images_do_not_look_attacked_because_others_were_learned_from(method):
    """The attacked are no different here; 99 % are flagged by Gaussians that the layers' weights were learned on."""
    slim = load_model("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)  # more channels than images
    pixels = smooth(40, seed=20, size=32)
    fitted = fit(slim, known(pixels, [str(i) for i in range(40)], [False] * 20), method)
    flagged = (fitted.score(slim, torch.from_numpy(smooth(100, seed=21, size=32))) > 0).mean()
    assert 0.15 < flagged < 0.85


# Local intrinsic dimension


def test_the_dimension_in_closed_form():
    e = np.exp(-np.arange(5.0))
    far = np.array([[e[2], e[1], 1], [3 * e[4], 3 * e[2], 3], [1, 1, 1], [0, 0, 0], [0, 0, 1]])
    assert np.allclose(dimension(far)[:3], [1, 0.5, 1000])
    assert dimension(far)[3] == 0
    assert dimension(far)[4] == pytest.approx(3 / (2 * np.log(1000)))  # two copies count as a thousandth of the third


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=9), st.floats(1e-6, 1e6))
def test_the_dimension_has_no_unit(far, unit):
    far = np.sort(np.array([far]), axis=1)
    assert np.allclose(dimension(far), dimension(far * unit), rtol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 3, 6])
def test_the_dimension_of_a_ball_is_that_of_its_space(dimensions):
    rng = np.random.default_rng(dimensions)
    # distances to the centre of points in a ball: the k nearest of many are U^(1/d) up to a unit
    far = np.sort(rng.random((2000, 400)) ** (1 / dimensions), axis=1)[:, :50]
    assert (1 / np.mean(1 / dimension(far))) == pytest.approx(dimensions * 50 / 49, rel=0.02)


def test_originals_are_no_neighbours_of_what_was_made_from_them(doubled):
    """Attacked are exact copies: had one its original among its neighbours, copies would be told from clean images."""
    clean = smooth(40, seed=30)
    twice = known(np.concatenate([clean, clean]), [str(i) for i in range(40)] * 2, [False] * 40)
    learned = LID(neighbours=5).learn(doubled, twice, seed=0, progress=lambda *a, **k: None)
    assert np.abs(learned["weights"]).max() < 1e-6
    assert learned["scale"].min() > 0


def test_the_reference_set_is_bounded_drawn_by_the_seed_and_shortens_the_neighbours(doubled, examples):
    small = [fit(doubled, examples, LID(reference=10), seed=seed).learned for seed in (0, 1)]
    clean = averaged(doubled, examples.pixels[:60], grid=7)["stem.3"]
    assert [part["0/reference"].shape for part in small] == [(10, clean.shape[1])] * 2
    assert not np.array_equal(small[0]["0/reference"], small[1]["0/reference"])
    assert small[0]["neighbours"].tolist() == [9]
    assert all(any(np.allclose(row, other) for other in clean) for row in small[0]["0/reference"])
    same = replace(examples, sources=("one",) * len(examples))
    with pytest.raises(InvalidInput, match="many sources"):
        fit(doubled, same, LID())


# SHAP signatures


def test_the_network_in_numpy_is_scikit_learns():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 5))
    attacked = (features[:, 0] * features[:, 1]) > 0
    model = MLPClassifier((7,), random_state=0, max_iter=30, n_iter_no_change=30, tol=0).set_params(solver="lbfgs")
    with pytest.warns(match="lbfgs"):
        model.fit((features - 1) / 2, attacked)
    learned = {
        "mean": np.ones(5), "scale": np.full(5, 2.0), "hidden weights": model.coefs_[0],
        "hidden bias": model.intercepts_[0], "weights": model.coefs_[1][:, 0], "bias": model.intercepts_[1],
    }  # fmt: skip
    chance = model.predict_proba((features - 1) / 2)[:, 1].clip(1e-9, 1 - 1e-9)
    odds = apply_mlp(learned, features)
    sure = np.abs(odds) < 15
    assert sure.sum() > 20
    assert np.allclose(odds[sure], np.log(chance / (1 - chance))[sure], atol=1e-5)


@pytest.mark.parametrize(("clean", "attacked"), [(5, 17), (17, 5), (8, 8), (10, 20)])
def test_both_kinds_are_learned_from_as_often(clean, attacked):
    marks = np.arange(clean + attacked) >= clean
    rows = balanced(marks, np.random.default_rng(0))
    assert marks[rows].sum() == (~marks[rows]).sum() == max(clean, attacked)
    assert set(rows) == set(range(clean + attacked))
    counts = np.bincount(rows)
    assert counts.max() - counts[marks == (attacked < clean)].min() <= 1


def test_the_signature_of_every_class_is_the_activation_once_it_is_standardised(doubled, examples):
    """What the docstring says of the paper's signature; the contrast, which knows the prediction, is another."""
    hidden = last_neurons(doubled, examples.pixels.double() / 255)[0].numpy()
    plain = apply_logistic(fit_logistic(hidden, examples.attacked, examples.sources), hidden)
    every, contrast = (
        fit(doubled, examples, SHAPSignatureDetector(explained=what, model="logistic")).score(doubled, examples.pixels)
        for what in ("every", "contrast")
    )
    assert np.abs(every - plain).max() < 1e-3 * np.abs(plain).max()
    assert np.abs(contrast - plain).max() > 1e-2 * np.abs(plain).max()


# Dispersion of attributions


def test_the_three_dispersions_are_scipys():
    phi = np.random.default_rng(0).standard_t(2, size=(6, 501)).astype(np.float32)
    wide = phi.astype(np.float64)
    expected = [wide.std(1), stats.median_abs_deviation(wide, axis=1), stats.iqr(wide, axis=1)]
    assert np.allclose(dispersion(phi), np.stack(expected, 1), rtol=1e-12)


def test_on_a_linear_network_attributions_are_leave_one_out(linear):
    images = torch.rand((3, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    found = MLLOO(layers=("last",)).attributions(linear, images)
    inputs = linear.normalise(images)
    whole = linear.network(inputs)
    slow = torch.empty(3, 432)
    for place in range(432):
        without = inputs.flatten(1).clone()
        without[:, place] = 0
        dropped = whole - linear.network(without.view_as(inputs))
        slow[:, place] = dropped.gather(1, whole.argmax(1, keepdim=True))[:, 0]
    assert torch.allclose(found["input"].flatten(1), slow, atol=1e-5)
    assert torch.allclose(found["last"], slow, atol=1e-5)  # the last linear layer reads the pixels themselves


def test_without_biases_the_gradient_and_lrp_give_the_same_dispersions():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, bias=False), nn.ReLU(),
            nn.AvgPool2d(3), nn.Flatten(), nn.Linear(45, 9, bias=False), nn.ReLU(), nn.Linear(9, 3, bias=False),
        )  # fmt: skip
        model = wrap(network.double(), classes=("a", "b", "c"), size=24)
    pixels = torch.from_numpy(smooth(20, seed=3, size=24))
    for explained in ("predicted", "contrast"):
        gradient = MLLOO(explained=explained).dispersions(model, pixels)
        relevance = MLLOO(explained=explained, attribution="lrp.z").dispersions(model, pixels)
        assert gradient.shape == (20, 12)  # the input, two poolings, the last neurons
        assert np.allclose(gradient, relevance, rtol=1e-8, atol=1e-12)
    one = MLLOO().dispersions(model, pixels)
    assert not np.allclose(one, gradient)


# Feature squeezing


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_even_median_is_scipys(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, height, width), dtype=np.uint8)
    slow = ndimage.median_filter(pixels, size=(1, 1, 2, 2), mode="nearest")
    assert np.array_equal(median2(torch.from_numpy(pixels)).numpy(), slow)


@pytest.mark.parametrize("bits", range(1, 8))
def test_fewer_bits_are_the_nearest_of_fewer_levels(bits):
    colours = torch.arange(256) / 255
    found = reduced(colours, bits)
    levels = np.arange(2**bits) / (2**bits - 1)
    nearest = levels[np.abs(np.arange(256)[:, None] / 255 - levels).argmin(1)]
    assert np.allclose(found, nearest, atol=1e-7)
    assert torch.equal(reduced(found, bits), found)


def test_the_score_is_the_largest_distance_of_the_softmax(linear):
    pixels = torch.randint(0, 256, (30, 3, 12, 12), generator=torch.Generator().manual_seed(1)).to(torch.uint8)

    def chances(images):
        return linear(torch.as_tensor(images, dtype=torch.float32)).double().softmax(1).numpy()

    raw = pixels.numpy()
    own = chances(raw / 255)
    squeezed = {
        "5 bits": np.rint(raw / 255 * 31) / 31,
        "2": ndimage.median_filter(raw, size=(1, 1, 2, 2), mode="nearest") / 255,
        "3": ndimage.median_filter(raw, size=(1, 1, 3, 3), mode="nearest") / 255,
    }
    apart = {name: np.abs(own - chances(images)).sum(1) for name, images in squeezed.items()}
    assert np.allclose(SqueezingDetector().score(linear, {}, pixels), np.max(list(apart.values()), axis=0), atol=1e-5)
    assert np.allclose(SqueezingDetector(medians=()).score(linear, {}, pixels), apart["5 bits"], atol=1e-5)
    assert np.allclose(SqueezingDetector(bits=0, medians=(2,)).score(linear, {}, pixels), apart["2"], atol=1e-5)
    assert len({name for name in apart if (apart[name] >= np.max(list(apart.values()), axis=0)).any()}) > 1


def test_an_image_no_squeezer_changes_scores_nothing(linear):
    plain = torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 12, 12)
    assert SqueezingDetector().score(linear, {}, plain)[0] < 1e-7
    assert SqueezingDetector().unsupervised
    assert not any(METHODS[name].unsupervised for name in METHODS if name != "squeezing")
