"""Detectors that train something: auxiliary networks, Bayesian uncertainty, ensembles of heads, autoencoders."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity
from torch import nn

from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.lattice import to_images
from heatprint.core.registry import Registry
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.data.menagerie import draw
from heatprint.detectors import door
from heatprint.detectors.examples import Examples
from heatprint.detectors.filters import median3
from heatprint.detectors.published import auxiliary, density
from heatprint.detectors.published import reconstruction as autoencoder
from heatprint.detectors.published.auxiliary import Auxiliary, Halves, middle_convolution
from heatprint.detectors.published.bayesian import Bayesian, dropout_variance
from heatprint.detectors.published.deep_ensemble import DeepEnsemble, Head, dense_part, mutual_information
from heatprint.detectors.published.density import Density
from heatprint.detectors.published.learning import descend, from_arrays, seeded, shuffled
from heatprint.detectors.published.reconstruction import Reconstruction, jensen_shannon
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.models import Training, load, train, wrap
from heatprint.models.augment import Augmentation
from heatprint.testing import linear_classifier

KINDS = {
    "auxiliary": Auxiliary,
    "bayesian": Bayesian,
    "deep-ensemble": DeepEnsemble,
    "reconstruction": Reconstruction,
}
METHODS = Registry("learned detectors", {name: f"{kind.__module__}:{kind.__name__}" for name, kind in KINDS.items()})
SIZE = 32
QUICK = {
    "auxiliary": {"steps": 10},
    "auxiliary on activations": {"on": "activations", "steps": 10},
    "bayesian": {},
    "deep-ensemble": {"steps": 20},
    "deep-ensemble linear": {"block": "linear", "steps": 20},
    "reconstruction": {"steps": 10},
    "reconstruction without divergence": {"steps": 10, "powers": (2,), "divergence": False},
}


def made(which):
    return METHODS.make(which.split(" ")[0], **QUICK[which])


@pytest.fixture(scope="module")
def pictures():
    scenes = [draw(("cat", "dog")[i % 2], rng=stream(i, "test/learned"), size=SIZE).image for i in range(120)]
    pixels = torch.from_numpy(np.stack(scenes).transpose(0, 3, 1, 2).copy())
    return Batch(ids=tuple(f"picture {i}" for i in range(120)), pixels=pixels, labels=torch.arange(120) % 2)


@pytest.fixture(scope="module")
def classifier(pictures):
    still = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, jitter=0.0)
    plan = Training(stages=((6, SIZE),), batch=20, lr=3e-3, augmentation=still)
    return train(load("vgg-slim", classes=("cats", "dogs"), size=SIZE), pictures, plan)[0]


def history(pictures, rows, change, *, name="pgd"):
    """Pictures as they are, and changed ones of the same."""
    clean = pictures.take(torch.arange(*rows))
    count = len(clean)
    return Examples(
        sources=clean.ids * 2,
        pixels=torch.cat([clean.pixels, change(clean.pixels)]),
        labels=clean.labels.repeat(2),
        kinds=("clean",) * count + (name,) * count,
        names=("clean",) * count + (name,) * count,
        attacked=np.repeat([False, name not in ("clean", "noise")], count),
    )


def grainy(pixels, levels=12):
    """Every second pixel lighter, the others darker."""
    checks = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 2 - 1
    return (pixels.int() + levels * checks).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def fitted(classifier, pictures):
    examples = history(pictures, (0, 60), grainy)
    return {which: door.fit(classifier, examples, made(which), name=which.split(" ")[0], seed=1) for which in QUICK}


# What every one of them must keep


@pytest.mark.parametrize("which", QUICK)
def test_equal_seeds_learn_equal_bits_and_leave_the_network_and_torch_alone(classifier, pictures, fitted, which):
    before, state = classifier.fingerprint(), torch.get_rng_state()
    examples = history(pictures, (0, 60), grainy)
    again = door.fit(classifier, examples, made(which), seed=1)
    other = door.fit(classifier, examples, made(which), seed=2)
    again.score(classifier, examples.pixels)
    assert classifier.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert again.learned.keys() == fitted[which].learned.keys()
    assert all(np.array_equal(value, fitted[which].learned[name]) for name, value in again.learned.items())
    assert any(not np.array_equal(value, other.learned[name]) for name, value in again.learned.items())


@pytest.mark.parametrize("which", QUICK)
def test_a_score_is_the_images_own(classifier, pictures, fitted, which):
    pixels = pictures.pixels[50:90]
    together = fitted[which].score(classifier, pixels)
    order = torch.from_numpy(stream(0, "order").permutation(40))
    assert together.dtype == np.float64
    assert together.std() > 0
    close = {"rtol": 0, "atol": 5e-6 if which == "reconstruction" else 1e-6}  # logits of the whole network are float32
    assert np.allclose(fitted[which].score(classifier, pixels[order]), together[order], **close)
    alone = np.concatenate([fitted[which].score(classifier, pixels[i : i + 1]) for i in range(0, 40, 5)])
    assert np.allclose(alone, together[::5], **close)


@pytest.mark.parametrize("which", QUICK)
def test_a_saved_detector_scores_as_before(classifier, pictures, fitted, which, tmp_path):
    fitted[which].save(tmp_path)
    loaded = door.load(tmp_path, METHODS)
    assert loaded.method == fitted[which].method
    assert np.array_equal(loaded.score(classifier, pictures.pixels), fitted[which].score(classifier, pictures.pixels))


@pytest.mark.parametrize(
    ("which", "settings_", "told"),
    [
        ("auxiliary", {"steps": 0}, "steps = 0"),
        ("auxiliary", {"batch": 1}, "batch = 1"),
        ("auxiliary", {"rate": float("nan")}, "rate = nan"),
        ("bayesian", {"dropout": 1.0}, "dropout = 1.0"),
        ("bayesian", {"passes": 1}, "passes = 1"),
        ("bayesian", {"centres": 1}, "centres = 1"),
        ("deep-ensemble", {"members": 1}, "members = 1"),
        ("deep-ensemble", {"width": 0}, "width = 0"),
        ("reconstruction", {"powers": (3,)}, "powers"),
        ("reconstruction", {"powers": (1, 1)}, "powers"),
        ("reconstruction", {"powers": (), "divergence": False}, "nothing to measure"),
        ("reconstruction", {"temperature": 0.0}, "temperature = 0.0"),
        ("reconstruction", {"noise": -0.1}, "noise = -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(which, settings_, told):
    with pytest.raises(InvalidInput, match=told):
        METHODS.make(which, **settings_)
    kind = METHODS.load(which)
    with pytest.raises(InvalidInput):
        kind(**({"on": "maps"} if kind is Auxiliary else {"block": "all"} if kind is DeepEnsemble else settings_))


@pytest.mark.parametrize("which", ["bayesian", "deep-ensemble", "reconstruction"])
def test_without_clean_images_nothing_is_learned(classifier, pictures, which):
    noisy = history(pictures, (0, 60), grainy, name="noise").take(np.arange(45, 120))
    some = history(pictures, (0, 60), grainy).take(np.arange(60, 120))
    examples = Examples(**{
        key: getattr(noisy, key) + getattr(some, key) for key in ("sources", "kinds", "names")
    }, pixels=torch.cat([noisy.pixels, some.pixels]), labels=torch.cat([noisy.labels, some.labels]),
        attacked=np.concatenate([noisy.attacked, some.attacked]))  # fmt: skip
    with pytest.raises(InvalidInput, match="are clean; 20 or more are needed"):
        door.fit(classifier, examples, made(which))


def test_a_diverging_training_is_told(classifier, pictures):
    examples = history(pictures, (0, 60), grainy)
    with pytest.raises(InvalidInput, match="diverged"):
        door.fit(classifier, examples, Reconstruction(steps=5, rate=1e30))


# Learning


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_no_row_comes_again_before_all_others_have(rows, count, seed):
    drawn = np.concatenate(list(islice(shuffled(np.arange(rows), count, stream(seed, "test")), 2 * rows)))
    whole = drawn[: len(drawn) // rows * rows].reshape(-1, rows)
    assert np.array_equal(np.sort(whole, axis=1), np.broadcast_to(np.arange(rows), whole.shape))


def test_descending_finds_the_minimum_of_a_parabola_and_freezes():
    network = nn.Linear(1, 1, bias=False)
    steps = []
    descend(network, lambda step: (network.weight - 3).square().sum(), steps=400, rate=0.1,
            progress=lambda done, total, note="": steps.append((done, total)))  # fmt: skip
    assert float(network.weight) == pytest.approx(3, abs=1e-3)
    assert not network.training
    assert not network.weight.requires_grad
    assert steps[-1] == (400, 400)


def test_weights_come_back_in_the_layout_they_left():
    network = seeded(lambda: auxiliary.Net(3), 7)
    arrays = {f"net.{name}": value.numpy() for name, value in network.state_dict().items()}
    again = from_arrays(lambda: auxiliary.Net(3), arrays, torch.device("cpu"))
    images = torch.rand((2, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), network.requires_grad_(False)(images))


# Auxiliary network


def test_the_auxiliary_network_computes_what_its_arrays_say(classifier, pictures, fitted):
    learned = fitted["auxiliary"].learned
    pixels = pictures.pixels[:2]
    for image, score in zip(pixels, fitted["auxiliary"].score(classifier, pixels), strict=True):
        residual = (image.numpy().astype(float) - median3(image[None])[0].numpy()) / 255
        maps = (residual - learned["mean"][:, None, None]) / learned["deviation"][:, None, None]
        for layer in ("conv1", "conv2", "conv3"):
            padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
            kernels = learned[f"net.{layer}.weight"]
            found = np.stack([correlate(padded, kernel, mode="valid")[0, ::2, ::2] for kernel in kernels])
            maps = np.maximum(found + learned[f"net.{layer}.bias"][:, None, None], 0)
        expected = maps.mean((1, 2)) @ learned["net.head.weight"][0] + learned["net.head.bias"][0]
        assert score == pytest.approx(expected, abs=1e-5)


def test_the_input_is_standardised_over_the_images_it_learns_from(classifier, pictures):
    examples = history(pictures, (0, 60), grainy)
    learned = door.fit(classifier, examples, Auxiliary(residual=False, steps=1)).learned
    images = to_images(examples.pixels).double()
    assert np.allclose(learned["mean"], images.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(learned["deviation"], images.std((0, 2, 3), correction=0), atol=1e-6)


def test_the_residual_knows_nothing_of_brightness(classifier, pictures, fitted):
    dim = pictures.pixels[:10].clamp(0, 235)
    light = dim + 20
    assert np.array_equal(fitted["auxiliary"].score(classifier, dim), fitted["auxiliary"].score(classifier, light))
    whole = door.fit(classifier, history(pictures, (0, 60), grainy), Auxiliary(residual=False, steps=10))
    assert not np.array_equal(whole.score(classifier, dim), whole.score(classifier, light))


@pytest.mark.parametrize("on", ["images", "activations"])
def test_an_auxiliary_network_tells_new_grainy_images(classifier, pictures, on):
    levels = 12 if on == "images" else 40  # half of the network has smoothed away what is fainter
    examples = [history(pictures, rows, lambda pixels: grainy(pixels, levels)) for rows in ((0, 80), (80, 120))]
    detector = door.fit(classifier, examples[0], Auxiliary(on=on, steps=80, batch=32))
    new = examples[1]
    assert roc_auc_score(new.attacked, detector.score(classifier, new.pixels)) > 0.95


def test_activations_are_those_of_the_middle_convolution(classifier, pictures):
    name = middle_convolution(classifier)
    convolutions = [key for key, module in classifier.network.named_modules() if isinstance(module, nn.Conv2d)]
    assert convolutions.index(name) == 6
    assert len(convolutions) == 13
    seen = {}
    twin = replace(classifier, network=copy.deepcopy(classifier.network))
    twin.network.get_submodule(name).register_forward_hook(lambda module, given, out: seen.update(out=out.clone()))
    with torch.no_grad():
        twin(to_images(pictures.pixels[:4]))
    inputs = Auxiliary(on="activations")._inputs(classifier, pictures.pixels[:4])
    assert inputs.shape == (4, 32, 8, 8)
    assert torch.allclose(torch.relu(inputs), torch.relu(seen["out"]))  # some networks rectify in place
    named = Auxiliary(on="activations", layer=convolutions[0])._inputs(classifier, pictures.pixels[:4])
    assert named.shape == (4, 8, 32, 32)


def test_activations_without_maps_are_refused(classifier, pictures):
    examples = history(pictures, (0, 60), grainy)
    dense = [name for name, module in classifier.network.named_modules() if isinstance(module, nn.Linear)][-1]
    with pytest.raises(InvalidInput, match="no maps"):
        door.fit(classifier, examples, Auxiliary(on="activations", layer=dense))
    with pytest.raises(InvalidInput, match="no module 'middle'"):
        door.fit(classifier, examples, Auxiliary(on="activations", layer="middle"))
    with pytest.raises(Unsupported, match="holds no convolutions"):
        door.fit(linear_classifier(size=SIZE), examples, Auxiliary(on="activations"))


@given(st.integers(2, 17), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_batches_are_half_attacked_and_every_kind_is_as_frequent(batch, benign, attacks, seed):
    rng = stream(seed, "test/halves")
    kinds = np.array([f"kind {k}" for k in range(benign + attacks) for _ in range(rng.integers(1, 20))])
    attacked = np.array([int(kind.split()[1]) >= benign for kind in kinds])
    batches = Halves(attacked, list(kinds), batch, seed)
    drawn = [next(batches) for _ in range(benign * attacks)]
    assert all(attacked[rows].sum() == batch // 2 for rows in drawn)
    counts = {kind: sum((kinds[rows] == kind).sum() for rows in drawn) for kind in set(kinds)}
    for half, size in ((False, batch - batch // 2), (True, batch // 2)):
        of = [count for kind, count in counts.items() if attacked[kinds == kind][0] == half]
        assert sum(of) == size * len(drawn)
        assert max(of) - min(of) <= 1


# Bayesian uncertainty


def test_dropout_variance_equals_passes_written_out():
    logits = stream(0, "test/dropout").normal(size=(50, 5, 3)) * 2
    slow = np.mean([[np.var([softmax(one[n])[k] for one in logits]) for k in range(3)] for n in range(5)], axis=1)
    assert np.allclose(dropout_variance(logits), slow, rtol=1e-10)
    assert dropout_variance(logits[:1].repeat(4, axis=0)).max() < 1e-30
    sure = np.array([[[30.0, 0.0]], [[31.0, 0.0]]])  # lost where a square of means is taken from a mean of squares
    assert dropout_variance(sure)[0] == pytest.approx((np.exp(-30) - np.exp(-31)) ** 2 / 4, rel=1e-3)


def test_the_uncertainty_is_that_of_dropout_before_every_dense_layer(classifier, pictures):
    method, images = Bayesian(passes=7, dropout=0.4), to_images(pictures.pixels[:3])
    dense = [module for module in classifier.network.modules() if isinstance(module, nn.Linear)]
    read = dense_part(classifier, images)[0].double().numpy()
    passes = []
    for t in range(7):
        vectors = read
        for place, layer in enumerate(dense):
            masks = method.mask(5, place, vectors.shape[1]).numpy()
            vectors = (vectors * masks[t]) @ layer.weight.double().numpy().T + layer.bias.double().numpy()
            vectors = np.maximum(vectors, 0) if place < len(dense) - 1 else vectors
        passes.append(vectors)
    kernels = Density(centres=np.zeros((2, 128), np.float32), classes=np.array([0, 1]), bandwidth=1.0)
    found = method.columns(classifier, kernels, 5, pictures.pixels[:3])[:, 0]
    assert len(dense) == 3
    assert np.allclose(found, dropout_variance(np.stack(passes)), rtol=1e-3)


def test_masks_leave_out_the_share_asked_for_and_keep_the_mean():
    method = Bayesian(dropout=0.2, passes=400)
    masks = method.mask(3, 0, 128)
    assert torch.equal(masks, method.mask(3, 0, 128))
    assert not torch.equal(masks, method.mask(4, 0, 128))
    assert not torch.equal(masks, method.mask(3, 1, 128))
    assert sorted(masks.unique().tolist()) == pytest.approx([0, 1 / 0.8])
    assert float(masks.mean()) == pytest.approx(1, abs=0.01)


def test_density_is_that_of_scikit_learn_class_by_class():
    rng = stream(0, "test/density")
    centres, vectors = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(size=(600, 4)).astype(np.float32)
    classes, asked = rng.integers(0, 3, 60), rng.integers(0, 3, 600)
    found = Density(centres=centres, classes=classes, bandwidth=0.7).log(vectors, asked)
    for label in range(3):
        slow = KernelDensity(bandwidth=0.7).fit(centres[classes == label]).score_samples(vectors[asked == label])
        assert np.allclose(found[asked == label], slow, atol=1e-6)


def test_density_far_away_is_finite():
    kernels = Density(centres=np.eye(3, dtype=np.float32), classes=np.zeros(3, np.int64), bandwidth=1e-3)
    assert np.isfinite(kernels.log(np.full((1, 3), 1e4), np.zeros(1, np.int64))).all()


def test_kernels_of_an_images_own_source_do_not_count():
    rng = stream(1, "test/density")
    centres, sources = rng.normal(size=(30, 3)).astype(np.float32), np.repeat(np.arange(10), 3)
    classes = np.zeros(30, np.int64)
    kernels = Density(centres=centres, classes=classes, bandwidth=0.5, sources=sources)
    found = kernels.log(centres, classes, sources=sources)
    for row in range(30):
        rest = Density(centres=centres[sources != sources[row]], classes=np.zeros(27, np.int64), bandwidth=0.5)
        assert found[row] == pytest.approx(rest.log(centres[row : row + 1], classes[:1])[0], rel=1e-9)


def test_a_class_of_one_source_borrows_all_kernels():
    kernels = Density(
        centres=np.arange(4, dtype=np.float32)[:, None], classes=np.array([0, 0, 1, 1]), bandwidth=1.0,
        sources=np.array([0, 1, 2, 2]),
    )  # fmt: skip
    assert kernels.kernels(0).tolist() == [0, 1]
    assert kernels.kernels(1).tolist() == kernels.kernels(7).tolist() == [0, 1, 2, 3]


def test_the_bandwidth_is_the_likeliest_left_out_one_at_a_time():
    rng = stream(2, "test/density")
    centres = rng.normal(size=(40, 2)).astype(np.float32) * 3
    kernels = density.fitted(centres, np.zeros(40, np.int64), np.arange(40))
    tried = density.BANDWIDTHS * np.sqrt(centres.astype(float).var(0).mean())

    def likelihood(width):
        return sum(
            KernelDensity(bandwidth=width).fit(np.delete(centres, i, 0)).score_samples(centres[i : i + 1])[0]
            for i in range(40)
        )

    assert kernels.bandwidth == pytest.approx(max(tried, key=likelihood))
    assert tried[0] < kernels.bandwidth < tried[-1]


def test_still_neurons_and_copies_do_not_shrink_the_bandwidth():
    rng = stream(3, "test/density")
    centres = rng.normal(size=(50, 2)).astype(np.float32)
    alone = density.fitted(centres, np.zeros(50, np.int64), np.arange(50)).bandwidth
    still = density.fitted(np.pad(centres, ((0, 0), (0, 20))), np.zeros(50, np.int64), np.arange(50)).bandwidth
    assert still == pytest.approx(alone)
    twice = density.fitted(np.repeat(centres, 2, 0), np.zeros(100, np.int64), np.repeat(np.arange(50), 2)).bandwidth
    assert twice == pytest.approx(alone)


def test_in_learning_clean_images_look_no_more_usual_than_new_ones(classifier, pictures):
    """With their own kernels they would: the leak by which images learned from are told from others."""
    method = Bayesian()
    fit = history(pictures, (0, 60), lambda pixels: pixels, name="clean").take(np.arange(60))
    kernels = method.kernels(classifier, fit, np.arange(60), 0)
    new = method.columns(classifier, kernels, 0, pictures.pixels[60:])[:, 1]
    honest = method.columns(classifier, kernels, 0, fit.pixels, np.arange(60))[:, 1]
    leaky = method.columns(classifier, kernels, 0, fit.pixels)[:, 1]
    attacked = np.repeat([False, True], 60)
    assert roc_auc_score(attacked, -np.concatenate([leaky, new])) > 0.8
    assert abs(roc_auc_score(attacked, -np.concatenate([honest, new])) - 0.5) < 0.15


def test_bayesian_scores_are_the_regression_of_both_columns(classifier, pictures, fitted):
    learned = fitted["bayesian"].learned
    kernels = Density(centres=learned["centres"], classes=learned["classes"], bandwidth=float(learned["bandwidth"][0]))
    columns = Bayesian().columns(classifier, kernels, 1, pictures.pixels)
    expected = ((columns - learned["mean"]) / learned["scale"]) @ learned["weights"] + learned["bias"]
    assert np.allclose(fitted["bayesian"].score(classifier, pictures.pixels), expected)
    hidden = last_neurons(classifier, to_images(pictures.pixels[:60]))[0].numpy()
    assert np.allclose(learned["centres"], hidden, atol=1e-5)
    assert np.array_equal(learned["classes"], pictures.labels[:60])
    few = door.fit(classifier, history(pictures, (0, 60), grainy), Bayesian(centres=4)).learned
    assert np.bincount(few["classes"]).tolist() == [4, 4]


# Deep ensemble


def test_mutual_information_is_the_entropy_of_the_mean_less_the_mean_entropy():
    logits = torch.randn((5, 20, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    shares = softmax(logits.numpy(), axis=2)
    slow = entropy(shares.mean(0), axis=1) - entropy(shares, axis=2).mean(0)
    assert np.allclose(mutual_information(logits), slow, atol=1e-12)
    assert mutual_information(logits[:1].repeat(3, 1, 1)).abs().max() < 1e-14
    certain = torch.tensor([[[50.0, -50.0]], [[-50.0, 50.0]]], dtype=torch.float64)
    assert float(mutual_information(certain)) == pytest.approx(np.log(2))
    nearly = torch.tensor([[[40.0, 0.0]], [[41.0, 0.0]]], dtype=torch.float64)  # lost in a difference of entropies
    assert 0 < float(mutual_information(nearly)) < 1e-15


def test_a_member_reads_what_the_dense_part_reads(classifier, pictures):
    images = to_images(pictures.pixels[:4])
    vectors, widths = dense_part(classifier, images)
    twin = replace(classifier, network=copy.deepcopy(classifier.network))
    first = next(module for module in twin.network.modules() if isinstance(module, nn.Linear))
    seen = []
    first.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    with torch.no_grad():
        twin(images)
    assert torch.allclose(vectors, seen[0])
    assert widths == (128, 128)


def test_one_linear_layer_is_a_dense_part_of_its_own():
    flat = linear_classifier(size=SIZE)
    vectors, widths = dense_part(flat, torch.rand((2, 3, SIZE, SIZE)))
    assert vectors.shape == (2, 3 * SIZE**2)
    assert widths == ()


class Squeezed(nn.Module):
    """A linear layer that reads vectors between two convolutions, as squeeze-and-excitation blocks have it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.gate, self.head = nn.Linear(4, 4), nn.Linear(5, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.second(x * self.gate(x.mean((2, 3)))[..., None, None]).mean((2, 3)))


def test_a_linear_layer_among_the_convolutions_is_no_dense_part():
    vectors, widths = dense_part(wrap(Squeezed(), classes=("cats", "dogs"), size=SIZE), torch.rand((2, 3, SIZE, SIZE)))
    assert vectors.shape == (2, 5)
    assert widths == ()


def test_members_start_from_weights_of_their_own(classifier, pictures):
    still = DeepEnsemble(members=3, steps=1, rate=1e-30)
    learned = door.fit(classifier, history(pictures, (0, 60), grainy), still).learned
    first, second, third = (learned[f"net.{member}.dense1.weight"] for member in range(3))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    assert first.std() == pytest.approx(third.std(), rel=0.05)


def test_a_network_without_dense_part_is_refused(pictures):
    network = nn.Sequential(nn.Linear(SIZE, 5), nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    headless = wrap(network, classes=("cats", "dogs"), size=SIZE)
    with pytest.raises(Unsupported, match="no dense part"):
        dense_part(headless, torch.rand((2, 3, SIZE, SIZE)))
    with pytest.raises(Unsupported, match="linear layer on vectors"):
        door.fit(headless, history(pictures, (0, 60), grainy), DeepEnsemble(block="linear", steps=1))


def test_members_learn_the_labels_and_disagree_about_what_they_never_saw(classifier, pictures):
    examples = history(pictures, (0, 80), grainy)
    detector = door.fit(classifier, examples, DeepEnsemble(members=3, width=16, steps=100))
    learned = detector.learned
    assert learned["widths"].tolist() == [576, 16, 16, 2]
    heads = from_arrays(lambda: nn.ModuleList(Head([576, 16, 16, 2]) for _ in range(3)), learned, torch.device("cpu"))
    vectors = (dense_part(classifier, to_images(pictures.pixels))[0] - torch.tensor(learned["mean"])) / learned[
        "scale"
    ][0]
    logits = torch.stack([head(vectors) for head in heads])
    accuracy = (logits.argmax(2)[:, :80] == pictures.labels[:80]).float().mean(1)
    assert (accuracy > 0.85).all()
    assert not torch.equal(heads[0].dense1.weight, heads[1].dense1.weight)
    assert np.allclose(detector.score(classifier, pictures.pixels), mutual_information(logits.double()), atol=1e-6)
    between = (
        (pictures.pixels[:40:2].int() + pictures.pixels[1:41:2].int()).div(2).to(torch.uint8)
    )  # half cat, half dog
    scores = [detector.score(classifier, pixels).mean() for pixels in (pictures.pixels[:80], between)]
    assert scores[1] > 1.2 * scores[0]  # by how much depends on the processor's rounding in training


def test_a_head_is_linear_layers_with_rectifiers_between():
    head = seeded(lambda: Head([4, 3, 2]), 0).requires_grad_(False)
    vectors = torch.rand((5, 4))
    hidden = F.relu(vectors @ head.dense1.weight.T + head.dense1.bias)
    assert torch.allclose(head(vectors), hidden @ head.dense2.weight.T + head.dense2.bias)
    assert (head(-100 * vectors) < 0).any()  # the last layer is not rectified


# Reconstruction


def test_the_divergence_is_that_of_scipy_and_symmetrical():
    first, second = torch.randn((2, 30, 5), generator=torch.Generator().manual_seed(0)) * 20
    for temperature in (2.0, 10.0):
        found = jensen_shannon(first, second, temperature)
        shares = [softmax(logits.double().numpy() / temperature, axis=1) for logits in (first, second)]
        assert np.allclose(found, jensenshannon(*shares, axis=1) ** 2, atol=1e-12)
        assert torch.allclose(found, jensen_shannon(second, first, temperature))
    assert (jensen_shannon(first, first, 1.0) < 1e-15).all()
    far = torch.tensor([[900.0, 0.0]])
    assert float(jensen_shannon(far, -far, 1.0)) == pytest.approx(np.log(2))


def test_the_score_is_the_largest_of_the_z_scores(classifier, pictures, fitted):
    learned = fitted["reconstruction"].learned
    network = from_arrays(lambda: autoencoder.Net(16), learned, torch.device("cpu"))
    images = to_images(pictures.pixels)
    again = network(images).clamp(0, 1)
    with torch.no_grad():
        divergence = jensen_shannon(classifier(images), classifier(again), 10.0)
    gap = (images - again).abs().double().numpy()
    columns = np.stack([gap.mean((1, 2, 3)), (gap**2).mean((1, 2, 3)), divergence.sqrt().numpy()], 1)
    assert np.allclose(learned["mean"], columns[:60].mean(0), atol=1e-6)
    assert np.allclose(learned["deviation"], columns[:60].std(0), atol=1e-6)
    standard = (columns - learned["mean"]) / learned["deviation"]
    assert np.allclose(fitted["reconstruction"].score(classifier, pictures.pixels), standard.max(1), atol=1e-4)
    assert len(np.unique(standard.argmax(1))) > 1


def test_the_autoencoder_takes_noise_out_and_finds_grainy_images(classifier, pictures):
    fit = history(pictures, (0, 80), grainy)
    detector = door.fit(classifier, fit, Reconstruction(steps=150, divergence=False))
    network = from_arrays(lambda: autoencoder.Net(16), detector.learned, torch.device("cpu"))
    images = to_images(pictures.pixels[80:])
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert F.mse_loss(network(noisy), images) < 0.8 * F.mse_loss(noisy, images)
    new = history(pictures, (80, 120), lambda pixels: grainy(pixels, 40))
    assert roc_auc_score(new.attacked, detector.score(classifier, new.pixels)) > 0.9


def test_odd_sides_come_back_as_they_were():
    assert autoencoder.Net(4)(torch.rand((2, 3, 13, 17))).shape == (2, 3, 13, 17)


def test_unsupervised_ones_never_see_an_attack(classifier, pictures):
    """What is attacked among the examples, and how, changes nothing they learn."""
    for which in ("deep-ensemble", "reconstruction"):
        assert made(which).unsupervised
        one = door.fit(classifier, history(pictures, (0, 60), grainy), made(which)).learned
        other = door.fit(classifier, history(pictures, (0, 60), lambda pixels: 255 - pixels), made(which)).learned
        assert all(np.array_equal(one[name], other[name]) for name in one)
