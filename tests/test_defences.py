"""Defences that are no adversarial training, their parts and interval bounds: closed forms, slow versions, laws."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm
from torch import nn

from heatprint.attacks import attack
from heatprint.attacks import make as make_attack
from heatprint.attacks.ddn import DDN
from heatprint.attacks.fgsm import FGSM
from heatprint.attacks.pgd import PGD
from heatprint.core.errors import InvalidInput, ModelMismatch, Unsupported
from heatprint.core.lattice import to_images
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.defences import defend
from heatprint.defences.contractive import Contracting, Contractive, jacobian_penalty, layer_points
from heatprint.defences.denoise import ATTACKS, NOISES, Corruption, Denoise
from heatprint.defences.distil import Distil, Soft, Tempered
from heatprint.defences.dropout import Dropout
from heatprint.defences.ensemble import Ensemble, drawn_again
from heatprint.defences.smoothing import ABSTAIN, Noisy, Smoothing, certify, counted, lower_bound
from heatprint.defences.transform import Transform
from heatprint.evaluation.bounds import logit_bounds, verify
from heatprint.models import load, predict, wrap
from heatprint.models.augment import Augmentation
from heatprint.models.checkpoint import save
from heatprint.models.compose import inside
from heatprint.models.lesson import Lesson
from heatprint.models.parts.autoencoder import Autoencoder
from heatprint.models.parts.bits import Bits
from heatprint.models.parts.dropout import DropoutHead, kept
from heatprint.models.parts.jpeg import Jpeg
from heatprint.models.parts.median import Median
from heatprint.models.parts.smoothed import Smoothed, drawn
from heatprint.models.train import Training, train
from heatprint.testing import labelled_batch, linear_classifier, small_classifier

PLAIN = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, jitter=0.0)
QUICK = Training(stages=((2, 32),), batch=8, lr=1e-3, label_smoothing=0.0, augmentation=PLAIN)
SIZE = 16


class Tiny(nn.Module):
    """Two convolutions, batch norm, pooling, a dense layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 2))

    def forward(self, x):
        return self.head(self.body(x))


def lit(count, seed=0):
    """Noisy images that are a little lighter on the right (class 0) or the left, with one of two faint grids."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.normal(0.5, 0.08, (count, 3, SIZE, SIZE))
    images[..., : SIZE // 2] += np.where(labels, 0.06, -0.06)[:, None, None, None]
    images += np.where(labels, 0.015, -0.015)[:, None, None, None] * (np.indices((SIZE, SIZE)).sum(0) % 2 * 2 - 1)
    return Batch.from_images(ids=[f"{seed}/{i}" for i in range(count)], images=torch.from_numpy(images).clamp(0, 1),
                             labels=torch.from_numpy(labels))  # fmt: skip


def recipe(epochs, lr=5e-3, **changes):
    return replace(QUICK, stages=((epochs, SIZE),), batch=32, lr=lr, **changes)


def accuracy(classifier, pixels, labels):
    return (predict(classifier, pixels).argmax(1) == labels).double().mean().item()


@pytest.fixture(scope="module")
def lights():
    """A classifier of light on the left or on the right, right about nearly all, and its training images."""
    torch.manual_seed(0)
    data = lit(256)
    trained, _ = train(wrap(Tiny(), classes=("right", "left"), size=SIZE), data, recipe(6))
    assert accuracy(trained, lit(200, 1).pixels, lit(200, 1).labels) > 0.95
    return trained, data


@pytest.fixture(scope="module")
def slim():
    return load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)


@pytest.fixture(scope="module")
def few(slim):
    return labelled_batch(slim, 16)


# --- what every defence must keep ---------------------------------------------------------------------------

EVERY = {
    "transform": Transform(),
    "dropout": Dropout(passes=3),
    "denoise": Denoise(training=QUICK, steps=2, channels=2),
    "reformer": Denoise(training=QUICK, learn_from="noise", contraction=0.1, channels=2),
    "contractive": Contractive(training=QUICK, through="layers", weight=0.1),
    "distil": Distil(training=QUICK),
    "smoothing": Smoothing(training=QUICK, draws=2),
    "ensemble": Ensemble(training=QUICK, members=2),
}
TRAINED = sorted(EVERY.keys() - {"transform", "dropout"})


@pytest.mark.parametrize("name", EVERY)
def test_defences_repeat_themselves_and_come_back_from_a_folder(name, slim, few, tmp_path):
    before = slim.fingerprint()
    torch.manual_seed(1)
    one = defend(slim, few, EVERY[name], seed=3)
    untouched = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(untouched, torch.rand(3))  # nothing drew from the global stream
    two = defend(slim, few, EVERY[name], seed=3)
    assert one.digest == two.digest
    assert torch.equal(predict(one, few.pixels), predict(two, few.pixels))
    assert slim.fingerprint() == before
    assert not torch.allclose(predict(one, few.pixels), predict(slim, few.pixels))
    save(one, tmp_path)
    assert torch.equal(predict(load(tmp_path), few.pixels), predict(one, few.pixels))
    if name != "transform":
        assert defend(slim, few, EVERY[name], seed=4).digest != one.digest


@pytest.mark.parametrize("name", EVERY)
def test_defences_stand_on_a_defence(name, few, slim, tmp_path):
    start = defend(slim, few, Transform(kind="bits", strength=6))
    safe = defend(start, few, EVERY[name])
    assert safe.architecture.endswith("bits:6|vgg-slim")
    save(safe, tmp_path)
    assert torch.equal(predict(load(tmp_path), few.pixels), predict(safe, few.pixels))
    assert predict(safe, few.pixels).isfinite().all()


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", TRAINED)
def test_trainings_resume_where_they_were_killed(name, slim, few, tmp_path):
    whole, file, calls = defend(slim, few, EVERY[name], seed=5), tmp_path / "unfinished.safetensors", []

    def die(done, total, note=""):
        calls.append(done)
        if done > 0.6 * total:
            raise Killed

    with pytest.raises(Killed):
        defend(slim, few, EVERY[name], seed=5, checkpoint=file, progress=die)
    assert list(tmp_path.iterdir())
    resumed = []
    again = defend(slim, few, EVERY[name], seed=5, checkpoint=file, progress=lambda done, *_: resumed.append(done))
    assert again.digest == whole.digest
    assert min(resumed) > min(calls)
    assert {path.name for path in tmp_path.iterdir()} <= {file.name}


@pytest.mark.parametrize("name", EVERY)
def test_progress_rises_to_its_end(name, slim, few):
    told = []
    defend(slim, few, EVERY[name], progress=lambda done, total, note="": told.append((done, total)))
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1]


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        (Transform, {"kind": "blur"}, "median, bits, jpeg"),
        (Transform, {"kind": "median", "strength": 1}, "side = 1"),
        (Transform, {"kind": "jpeg", "strength": 101}, "quality = 101"),
        (Dropout, {"passes": 0}, "passes = 0"),
        (Dropout, {"rate": 1.0}, "rate = 1.0"),
        (Denoise, {"learn_from": "all"}, "learn_from"),
        (Denoise, {"eps": 8}, "8/255"),
        (Denoise, {"error": 0.0, "divergence": 0.0}, "nothing to learn"),
        (Denoise, {"error": 0.0, "learn_from": "noise"}, "nothing to learn"),
        (Denoise, {"contraction": -1.0}, "contraction = -1"),
        (Denoise, {"steps": 0}, "steps = 0"),
        (Contractive, {"weight": -1.0}, "weight = -1"),
        (Contractive, {"probes": 0}, "probes = 0"),
        (Contractive, {"through": "input"}, "through"),
        (Distil, {"temperature": 0.5}, "temperature = 0.5"),
        (Distil, {"training": Training()}, "label_smoothing"),
        (Smoothing, {"sigma": math.nan}, "sigma = nan"),
        (Smoothing, {"sigma": 0.0}, "sigma = 0"),
        (Smoothing, {"sigma": 25.5}, "write 0.1"),
        (Smoothing, {"draws": 0}, "draws = 0"),
        (Ensemble, {"members": 1}, "members = 1"),
        (Ensemble, {"members": 2, "attacks": ("a", "b", "c")}, "members=3"),
    ],
)
def test_settings_out_of_range_are_refused(method, settings, told):
    with pytest.raises(InvalidInput, match=told):
        method(**settings)


def test_a_part_of_the_network_learns_and_the_rest_stays(lights):
    start, data = lights
    one, _ = train(start, data, recipe(1), learns="head", seed=2)
    moved = {k for k, v in one.trainable.state_dict().items() if not torch.equal(v, start.trainable.state_dict()[k])}
    assert moved == {"head.2.weight", "head.2.bias"}  # and not the statistics of batch norm


# --- input transforms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "front"),
    [
        (Transform(), Median(3)),
        (Transform(kind="median", strength=2), Median(2)),
        (Transform(kind="bits", strength=3), Bits(3)),
        (Transform(kind="jpeg", strength=60), Jpeg(60)),
    ],
)
def test_a_transform_is_the_network_behind_a_filter(method, front, slim, few):
    safe = defend(slim, few, method)
    torch.testing.assert_close(safe(few.images), slim(front(few.images)))


# --- denoising ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 30, 9])
def test_the_autoencoder_starts_as_the_identity_and_learns_from_there(size):
    torch.manual_seed(0)
    images = torch.rand(2, 3, size, size, requires_grad=True)
    images.data[0, 0, 0, 0], images.data[0, 0, 0, 1] = 0, 1
    network = Autoencoder(4, seed=1)
    out = network(images)
    assert torch.equal(out, images)
    out.sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))
    assert network.correction.weight.grad.abs().max() > 0
    assert torch.equal(Autoencoder(4, seed=1).fine[0].weight, network.fine[0].weight)
    assert not torch.equal(Autoencoder(4, seed=2).fine[0].weight, network.fine[0].weight)


def test_denoising_leaves_the_classifier_bit_for_bit(slim, few):
    safe = defend(slim, few, EVERY["denoise"])
    inner, outer = slim.trainable.state_dict(), safe.trainable.state_dict()
    assert all(torch.equal(outer[f"network.network.{name}"], value) for name, value in inner.items())
    assert outer["front.correction.weight"].abs().max() > 0


@pytest.mark.parametrize("kind", NOISES + ATTACKS)
def test_corruptions_keep_their_measure(kind, lights):
    network, images = inside(lights[0]), lit(64, 5).images
    corruption = Corruption(kinds=(kind,), noise=0.05, eps=8 / 255, salt=0.05, steps=3)
    out = corruption.corrupted(network, images, stream(0, "test"))
    change = out - images
    assert out.min() >= 0
    assert out.max() <= 1
    assert change.abs().amax() > 0
    strength = change.abs().amax((1, 2, 3))
    if kind == "gaussian":
        assert 0.02 < change.std() < 0.04  # root of the mean square of 0.05 u is 0.029
    elif kind == "salt and pepper":
        hit = change.abs().amax(1) > 0
        assert 0.01 < hit.double().mean() < 0.04  # half of the largest share, on average
        assert set(out.permute(0, 2, 3, 1)[hit].unique().tolist()) <= {0.0, 1.0} | set(images.unique().tolist())
    else:
        assert strength.max() <= 8 / 255 + 1e-6
        assert strength.max() > 6 / 255
        assert strength.min() < 2 / 255
    if kind in ATTACKS:
        with torch.no_grad():
            own = network(images)
            fell = F.cross_entropy(network(out), own.argmax(1)) - F.cross_entropy(own, own.argmax(1))
        assert fell > 0
    again = corruption.corrupted(network, images, stream(0, "test"))
    assert torch.equal(out, again)


def test_the_reformer_asks_no_classifier():
    def asked(images):
        raise AssertionError("asked")

    corruption = Denoise(learn_from="noise").objective().corruption
    corruption.corrupted(asked, lit(8).images, stream(0, "test"))
    assert Denoise(learn_from="noise").objective().divergence == 0


def test_denoising_recovers_what_fgsm_took(lights):
    clear, data = lights
    test = lit(200, 1)
    hit = attack(clear, test, FGSM(eps=12 / 255))
    hurt = hit.success
    safe = defend(clear, data, Denoise(training=recipe(10), eps=12 / 255))
    clean = accuracy(safe, test.pixels, test.labels)
    assert hurt.sum() > 50
    assert accuracy(safe, hit.adversarial.pixels[hurt], test.labels[hurt]) >= 0.8 * clean
    assert clean > accuracy(clear, test.pixels, test.labels) - 0.03


# --- contraction --------------------------------------------------------------------------------------------


def test_the_penalty_is_an_unbiased_estimate_of_the_jacobians():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 2, 3).double(), nn.Linear(2 * 4, 3).double()
    network = nn.Sequential(first, nn.Tanh(), nn.Flatten(), second)
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    points = layer_points(network, lambda: network(images))
    assert [tuple(p.shape) for p in points] == [(2, 3, 4, 4), (2, 8), (2, 3)]
    assert points[0] is images
    assert not any(module._forward_pre_hooks for module in network.modules())

    def exact(run, at):
        jacobian = torch.autograd.functional.jacobian(run, at)
        return sum(jacobian[n, :, n].square().sum() for n in range(len(at))) / len(at) / jacobian.shape[1]

    expected = exact(lambda x: network[:3](x), images) + exact(second, points[1])
    found = torch.stack([jacobian_penalty(points, stream(0, "probe", i), 2).detach() for i in range(300)])
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(300)
    assert found.std() > 0
    assert jacobian_penalty(points, stream(0, "probe"), 4000).item() == pytest.approx(expected.item(), rel=0.1)


def lesson(network, count=8, seed=0):
    data = lit(count, seed)
    return Lesson(network=network, normalise=lambda images: images, images=data.images, labels=data.labels, epoch=0,
                  rows=torch.arange(count), label_smoothing=0.0, rng=stream(seed, "lesson"))  # fmt: skip


def test_the_penalty_teaches_the_weights(lights):
    network = copy.deepcopy(lights[0].trainable).requires_grad_(True)
    given = lesson(network)
    plain, _ = Contracting(weight=0.0, probes=1, through="layers").loss(given)
    for through in ("layers", "network"):
        loss, logits = Contracting(weight=2.0, probes=3, through=through).loss(given)
        assert loss > plain
        (gradient,) = torch.autograd.grad(loss - plain, network.body[0].weight, retain_graph=True)
        assert gradient.abs().max() > 0
        torch.testing.assert_close(logits, network(given.images))


def test_weight_zero_is_the_clean_control(lights):
    start, data = lights
    control, _ = train(start, data, recipe(1), seed=4)
    assert defend(start, data, Contractive(weight=0.0, training=recipe(1)), seed=4).digest == control.digest


def test_contraction_moves_the_border_away(lights):
    start, data = lights
    test = lit(60, 1)
    safe = defend(start, data, Contractive(through="layers", weight=0.3, training=recipe(6)))
    control = defend(start, data, Contractive(weight=0.0, training=recipe(6)))
    near, far = (attack(one, test, DDN(steps=40)) for one in (control, safe))
    both = near.success & far.success
    assert both.sum() > 50
    assert far.distance.l2[both].mean() >= 1.05 * near.distance.l2[both].mean()  # little room: all depends on two sums
    held = lit(400, 2)
    assert accuracy(safe, held.pixels, held.labels) >= accuracy(control, held.pixels, held.labels) - 0.02


# --- distillation -------------------------------------------------------------------------------------------


def test_soft_labels_are_those_of_the_teacher(lights):
    network, rows = lights[0].trainable, torch.tensor([3, 1, 5, 0])
    data = lit(8).take(rows)
    given = replace(lesson(network), images=data.images, labels=data.labels, rows=rows)
    teacher = torch.randn(8, 2, dtype=torch.float64)
    soft = (teacher / 5).softmax(1)
    loss, logits = Soft(temperature=5.0, soft=soft).loss(given)
    each = [-(soft[row] * (z / 5).log_softmax(0)).sum() for row, z in zip(rows, logits, strict=True)]
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)
    hard, _ = Tempered(temperature=5.0).loss(given)
    assert hard.item() == pytest.approx(F.cross_entropy(logits / 5, data.labels).item())


def test_distillation_enlarges_the_logits_and_masks_the_gradient(lights):
    start, data = lights
    test = lit(100, 1)
    made = {
        t: defend(start, data, Distil(temperature=t, fresh=False, training=recipe(12, lr=2e-2))) for t in (1.0, 40.0)
    }
    margins = {t: predict(one, test.pixels).diff(dim=1).abs().median().item() for t, one in made.items()}
    assert margins[40.0] > 5 * margins[1.0]
    assert accuracy(made[40.0], test.pixels, test.labels) > 0.9
    images = test.images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(made[40.0](images), test.labels, reduction="sum"), images)
    assert (gradient.abs().amax((1, 2, 3)) < 1e-6).double().mean() > 0.5


def test_teachers_of_other_classes_are_refused(slim, few, tmp_path):
    save(load("vgg-slim", classes=("dogs", "cats"), size=32), tmp_path / "other")
    save(load("vgg-slim", classes=("cats", "dogs"), size=48), tmp_path / "large")
    for folder in ("other", "large"):
        with pytest.raises(ModelMismatch, match="same classes"):
            defend(slim, few, Distil(teacher=str(tmp_path / folder), training=QUICK))


def test_a_saved_teacher_teaches_as_it_is(slim, few, tmp_path):
    save(slim, tmp_path)
    told = []
    student = defend(slim, few, Distil(teacher=str(tmp_path), training=QUICK), seed=1,
                     progress=lambda done, total, note="": told.append(note))  # fmt: skip
    assert student.digest != defend(slim, few, Distil(training=QUICK), seed=1).digest
    assert not any("teacher" in note for note in told)


def test_a_network_of_one_s_own_has_no_fresh_weights(lights):
    with pytest.raises(InvalidInput, match="fresh=False"):
        defend(*lights, Distil(training=recipe(1)))


# --- dropout in the head ------------------------------------------------------------------------------------


def test_the_dropout_head_is_that_of_the_slow_loop(slim, few):
    network = inside(slim).double()
    found = DropoutHead(network, 5, 0.4, 3)(few.images.double())
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    passes = []
    for number in range(5):

        def left_out(module, given, number=number):
            layer = dense.index(module)
            return (given[0] * kept(3, layer, 5, module.in_features, 0.4)[number],)

        hooks = [module.register_forward_pre_hook(left_out) for module in dense]
        passes.append(network(few.images.double()).log_softmax(1))
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(found, torch.stack(passes).mean(0))
    assert torch.stack(passes).std(0).max() > 0


def test_the_dropout_head_has_the_gradient_of_what_it_answers(lights):
    network = DropoutHead(inside(lights[0]), 4, 0.3, 0).double().eval()
    images = lit(2, 9).images.double().requires_grad_(True)
    assert torch.autograd.gradcheck(network, images, atol=1e-6, fast_mode=True)
    together = network(images)
    torch.testing.assert_close(torch.cat([network(image[None]) for image in images]), together)


def test_no_dropout_is_the_network_itself(slim, few):
    safe = defend(slim, few, Dropout(passes=2, rate=0.0))
    torch.testing.assert_close(safe(few.images), slim(few.images).log_softmax(1))


def test_a_network_without_a_head_is_refused():
    torch.manual_seed(0)
    headless = wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), classes="ab", size=SIZE)
    with pytest.raises(InvalidInput, match="no head to leave neurons out of"):
        defend(headless, lit(4), Dropout())


# --- smoothing ----------------------------------------------------------------------------------------------


def test_the_smoothed_network_is_the_mean_over_its_noise(slim, few):
    network = inside(slim).double()
    noise = 0.2 * drawn(7, 3, (32, 32)).double()
    slow = torch.stack([network(few.images.double() + one).softmax(1) for one in noise]).mean(0).log()
    torch.testing.assert_close(Smoothed(network, 3, 0.2, 7)(few.images.double()), slow)
    assert drawn(7, 500, (8, 8)).std().item() == pytest.approx(1, abs=0.02)


def test_noise_is_fresh_and_of_its_deviation(lights):
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :2]

    given = lesson(Watching(), 64)
    for _ in range(2):
        Noisy(sigma=0.25).loss(given)
    added = [x - given.images for x in seen]
    assert added[0].std().item() == pytest.approx(0.25, rel=0.02)
    assert not torch.equal(added[0], added[1])


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.001, 0.05, 0.3]))
def test_the_lower_bound_is_clopper_and_pearson_s(n, part, alpha):
    count = round(part * n)
    slow = binomtest(count, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    assert lower_bound(np.array([count]), n, alpha)[0] == pytest.approx(slow, abs=1e-9)


def distance(classifier, images):
    """Of images from the border of a linear classifier of two classes, in L2, float64 [N]."""
    normal = (classifier.network.dense.weight[1] - classifier.network.dense.weight[0]).double()
    return classifier(images).double().diff(dim=1).squeeze(1).abs() / normal.norm()


def test_certificates_of_a_linear_network_stay_below_the_closed_form():
    """Its smoothed classifier has the same border, so the true radius is the distance; p = Phi(distance / sigma)."""
    sigma, alpha, n = 0.5, 0.2, 400
    victim = linear_classifier(size=8, seed=3)
    pixels = labelled_batch(victim, 60, seed=2).pixels
    true = distance(victim, to_images(pixels)).numpy()
    runs = [certify(victim, pixels, sigma=sigma, n0=20, n=n, alpha=alpha, seed=seed) for seed in range(3)]
    wrong = 0
    for found in runs:
        sure = found.classes != ABSTAIN
        right = found.classes == predict(victim, pixels).argmax(1)
        wrong += int((sure & ~(right & (found.radius <= torch.from_numpy(true)))).sum())
        assert (found.radius[~sure] == 0).all()
        assert (found.radius[sure] > 0).all()
        tight = sigma * norm.ppf(lower_bound(found.votes.numpy(), n, alpha).clip(0.5, 1))
        np.testing.assert_allclose(found.radius, tight)
        near = sure & torch.from_numpy(true < sigma)  # where n votes can tell
        assert (found.radius[near] > 0.6 * torch.from_numpy(true)[near] - 0.1 * sigma).double().mean() > 0.9
    assert wrong <= binom.ppf(0.999, 3 * 60, alpha)
    assert wrong > 0  # 0 of 180 at 20 % each would say that the bound is loose
    assert any((found.classes == ABSTAIN).any() for found in runs)


def test_no_attack_within_a_certificate_changes_the_smoothed_answer():
    sigma = 0.5
    victim = linear_classifier(size=8, seed=3)
    pixels = labelled_batch(victim, 40, seed=5).pixels
    found = certify(victim, pixels, sigma=sigma, n0=50, n=2000, alpha=1e-4)
    sure = (found.classes != ABSTAIN).nonzero().squeeze(1)
    assert len(sure) > 20
    weight = victim.network.dense.weight
    images = to_images(pixels[sure])
    own = found.classes[sure]
    worst = weight[1 - own] - weight[own]
    worst = (worst / worst.norm(dim=1, keepdim=True)).view_as(images)
    moved = images + found.radius[sure].float().view(-1, 1, 1, 1) * worst
    assert torch.equal(victim(moved).argmax(1), own)  # of a linear network the smoothed answer is the network's own
    assert not torch.equal(victim(images + 4 * (moved - images)).argmax(1), own)


@given(name=st.sampled_from(["carlini_wagner", "ddn", "deepfool", "fmn", "pgd"]), seed=st.integers(0, 1000))
@settings(max_examples=settings.default.max_examples // 2)
def test_no_registered_attack_succeeds_within_a_certificate(name, seed):
    """On linear networks, whose smoothed answer is their own."""
    quick = {"carlini_wagner": {"searches": 2, "steps": 20}, "ddn": {"steps": 20}, "fmn": {"norm": "l2", "steps": 20},
             "pgd": {"norm": "l2", "eps": 1.0, "steps": 5}}  # fmt: skip
    victim = linear_classifier(size=6, seed=seed)
    batch = labelled_batch(victim, 8, seed=seed)
    found = certify(victim, batch.pixels, sigma=0.2, n0=50, n=1000, alpha=1e-5, seed=seed)
    hit = attack(victim, batch, make_attack(name.replace("_", "-"), **quick.get(name, {})), seed=seed)
    both = hit.success & (found.classes == batch.labels)
    assert (hit.distance.l2[both] > found.radius[both]).all()


def test_an_attack_on_the_vote_of_a_deep_network_needs_more_than_the_certificate(lights):
    """Attacked is the mean over fixed noise, asked is the vote under fresh noise."""
    sigma, n = 0.1, 600
    clear, pixels = lights[0], lit(12, 4).pixels
    found = certify(clear, pixels, sigma=sigma, n0=50, n=1000, alpha=1e-5)
    sure = (found.classes != ABSTAIN).nonzero().squeeze(1)
    assert len(sure) > 6
    images, own, network = to_images(pixels[sure]), found.classes[sure], Smoothed(inside(clear), 24, sigma, 5)

    def voted(far):
        """Votes for the class that is certified, after an attack of `far` certified radii."""
        reach, current = far * found.radius[sure].float().view(-1, 1, 1, 1), images
        for _ in range(12):
            here = current.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(here), own, reduction="sum"), here)
            delta = current + 0.3 * reach * F.normalize(gradient.flatten(1)).view_as(gradient) - images
            length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            current = (images + delta * (0.999 * reach / length).clamp_max(1)).detach()
        return [
            int(counted(clear, one, sigma, n, seed)[k]) for seed, (one, k) in enumerate(zip(current, own, strict=True))
        ]

    assert all(binom.cdf(votes, n, 0.5) > 1e-7 for votes in voted(1.0))
    assert any(binom.cdf(votes, n, 0.5) < 1e-7 for votes in voted(4.0))


def test_a_certificate_does_not_depend_on_the_batch():
    victim = linear_classifier(size=8)
    pixels = labelled_batch(victim, 6).pixels
    whole = certify(victim, pixels, sigma=0.3, n0=10, n=100)
    order = torch.tensor([4, 1, 5])
    part = certify(victim, pixels[order], sigma=0.3, n0=10, n=100)
    assert torch.equal(whole.votes[order], part.votes)
    assert torch.equal(whole.radius[order], part.radius)
    assert not torch.equal(certify(victim, pixels, sigma=0.3, n0=10, n=100, seed=1).votes, whole.votes)
    assert len(certify(victim, pixels[:0], sigma=0.3).classes) == 0


def test_what_smoothing_made_is_certified_through_its_network(slim, few):
    safe = defend(slim, few, replace(EVERY["smoothing"], sigma=0.25))
    bare = wrap(safe.trainable.network, classes=safe.classes, size=32)
    one, two = (certify(c, few.pixels[:3], sigma=0.25, n0=5, n=40) for c in (safe, bare))
    assert torch.equal(one.votes, two.votes)
    with pytest.raises(InvalidInput, match=r"write sigma=0\.25"):
        certify(safe, few.pixels, sigma=0.5)
    for wrong in ({"n0": 0}, {"n": 0}, {"alpha": 0.0}, {"alpha": 1.0}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            certify(safe, few.pixels, sigma=0.25, **wrong)


# --- ensembles ----------------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_of_members_that_learnt_apart(slim, few):
    safe = defend(slim, few, EVERY["ensemble"])
    members = safe.trainable.members
    each = torch.stack([member(few.images).log_softmax(1) for member in members])
    torch.testing.assert_close(safe(few.images), each.mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(each[0], each[1])


def test_a_bootstrap_is_drawn_with_replacement():
    data = lit(400)
    again = drawn_again(data, stream(0, "bootstrap"))
    sources = [i.rpartition("#")[0] for i in again.ids]
    assert len(again) == 400
    assert 0.55 < len(set(sources)) / 400 < 0.71  # 1 - 1 / e
    where = {name: row for row, name in enumerate(data.ids)}
    rows = torch.tensor([where[name] for name in sources])
    assert torch.equal(again.pixels, data.pixels[rows])
    assert torch.equal(again.labels, data.labels[rows])


def test_attacks_are_dealt_out_among_the_members(lights):
    clear, data = lights
    some = data.take(range(40))
    attacked = {"fgsm": attack(clear, some, FGSM(eps=16 / 255)), "pgd": attack(clear, some, PGD(eps=12 / 255))}
    method = Ensemble(members=3, bootstrap=False, attacks=("fgsm", "pgd"))
    lessons = [method.lesson_of(number, data, attacked, 0) for number in range(3)]
    kinds = [{i.partition(":")[0] for i in learnt.ids if ":" in i} for learnt in lessons]
    assert kinds == [{"fgsm"}, {"pgd"}, {"fgsm"}]


# --- interval bounds ----------------------------------------------------------------------------------------


def test_bounds_of_a_linear_network_are_exact():
    victim = linear_classifier(size=6, classes=3, seed=1)
    pixels = labelled_batch(victim, 10).pixels
    images = to_images(pixels).double()
    weight, bias = victim.network.dense.weight.double(), victim.network.dense.bias.double()
    for radius in (0.0, 0.01, 0.3):  # the last leaves [0, 1]
        below, above = (images - radius).clamp(0, 1).flatten(1), (images + radius).clamp(0, 1).flatten(1)
        low, high = logit_bounds(victim, images, radius)
        torch.testing.assert_close(low, below @ weight.clamp_min(0).T + above @ weight.clamp_max(0).T + bias)
        torch.testing.assert_close(high, above @ weight.clamp_min(0).T + below @ weight.clamp_max(0).T + bias)
    found = verify(victim, pixels, most=0.2, halvings=30)
    own = found.classes
    assert torch.equal(own, predict(victim, pixels).argmax(1))
    less = weight[own][:, None] - weight
    margin = (less * images.flatten(1)[:, None]).sum(2) + bias[own][:, None] - bias
    true = (margin / less.abs().sum(2)).nan_to_num(torch.inf).amin(1)
    assert (found.radius < true).all()
    torch.testing.assert_close(found.radius, true, rtol=1e-3, atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1e-4, 1e-2, 0.2]))
@settings(max_examples=settings.default.max_examples // 2)
def test_bounds_contain_what_is_sampled(seed, radius):
    victim = small_classifier(seed=seed % 5)
    images = labelled_batch(victim, 2, seed=seed).images
    low, high = logit_bounds(victim, images, radius)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        step = torch.rand(images.shape, generator=generator) * 2 - 1
        step = step.sign() if seed % 2 else step
        out = victim((images + radius * step).clamp(0, 1)).double()
        assert (out >= low - 1e-5).all()
        assert (out <= high + 1e-5).all()
    wider = logit_bounds(victim, images, radius + 0.01)
    assert (wider[0] <= low).all()
    assert (wider[1] >= high).all()


def test_no_attack_within_a_proven_radius_succeeds(small):
    batch = labelled_batch(small, 24)
    found = verify(small, batch.pixels)
    assert found.unknown == ""
    assert (found.radius > 1e-4).double().mean() > 0.5
    images, labels = batch.images, found.classes
    reach = found.radius.float().view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        current = images + reach * (torch.rand(images.shape, generator=generator) * 2 - 1)
        for _ in range(15):
            current = current.clamp(0, 1).requires_grad_(True)
            logits = small(current)
            assert torch.equal(logits.argmax(1), labels)
            own = logits.gather(1, labels[:, None]) - logits.scatter(1, labels[:, None], -torch.inf).amax(1, True)
            (gradient,) = torch.autograd.grad(own.sum(), current)
            current = (current - 0.3 * reach * gradient.sign()).detach()
            current = torch.minimum(torch.maximum(current, images - reach), images + reach)
        assert torch.equal(small(current.clamp(0, 1)).argmax(1), labels)


def dense(seed):
    """Two dense layers, for which bounds reach some levels."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 12), nn.ReLU(), nn.Linear(12, 3))
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5
    return wrap(network, classes="abc", size=6, mean=(0.5,) * 3)


WITHIN = {
    "apgd": {"eps": "24/255", "steps": 8},
    "bim": {"eps": "24/255"},
    "deepfool": {},
    "fgsm": {"eps": "24/255"},
    "fmn": {"norm": "linf", "steps": 20},
    "one-pixel": {"population": 12, "generations": 4},
    "pgd": {"eps": "6/255", "step": "1/255", "steps": 8},
    "square": {"eps": "24/255", "queries": 60},
}


@given(name=st.sampled_from(sorted(WITHIN)), seed=st.integers(0, 1000), deep=st.booleans())
@settings(max_examples=settings.default.max_examples // 2)
def test_no_registered_attack_succeeds_within_a_proven_radius(name, seed, deep):
    victim = dense(seed) if deep else linear_classifier(size=6, seed=seed)
    batch = labelled_batch(victim, 12, seed=seed)
    found = verify(victim, batch.pixels)
    hit = attack(victim, batch, make_attack(name, **WITHIN[name]), seed=seed)
    levels = 255 * found.radius[hit.success]
    assert (255 * found.radius >= 1).any()  # else it would hold for any stored image
    assert (hit.distance.linf[hit.success] > levels).all()
    if name == "fgsm" and not deep:  # the nearest adversarial is one level farther at most
        assert (hit.distance.linf[hit.success] <= levels + 1.1).all()


class Odd(nn.Module):
    """Layers and signs in all forms that have bounds, and one logit."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4, affine=False)
        self.mean, self.pool = nn.AvgPool2d(3, stride=2, padding=1), nn.MaxPool2d(2, ceil_mode=True)
        self.second, self.whole = nn.Conv2d(8, 6, 3, dilation=2, groups=2, padding=1), nn.AdaptiveAvgPool2d(1)
        self.flat, self.last = nn.BatchNorm1d(6), nn.Linear(6, 1)

    def forward(self, x):
        x = self.norm(self.first((x - 0.5) * 2 / 0.5))
        x = torch.cat([self.mean(x), 1 - x[..., ::2, ::2]] if self.sliced else [self.mean(x), -self.mean(x)], dim=1)
        x = self.pool(F.relu(self.second(x) + 0.1))
        x += 1
        return self.last(torch.relu(self.flat(torch.flatten(self.whole(x), 1))))

    sliced = False


def odd():
    torch.manual_seed(4)
    network = Odd()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, 3, SIZE, SIZE))  # statistics of its own
    return network.eval()


def test_every_form_of_a_layer_has_tight_bounds():
    victim = wrap(odd(), classes="ab", size=SIZE)
    images = lit(4).images
    exact = copy.deepcopy(victim.network).double()
    low, high = logit_bounds(victim, images, 0.0)
    out = exact(images.double())
    assert ((low <= out) & (out <= high)).all()
    assert (high - low).max() < 1e-10
    radii = torch.tensor([0.0, 1e-4, 1e-3, 1e-2])
    low, high = logit_bounds(victim, images, radii)
    assert ((high - low).amax(1).diff() > 0).all()
    for seed in range(20):
        step = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).sub(0.5).sign()
        out = exact((images.double() + radii.double().view(-1, 1, 1, 1) * step).clamp(0, 1))
        assert ((low <= out) & (out <= high)).all()
    assert (verify(victim, lit(4).pixels).radius > 0).any()


def test_what_has_no_bounds_is_unknown_by_name(slim, few, small):
    network = odd()
    network.sliced = True
    probabilities = nn.Sequential(copy.deepcopy(slim.trainable), nn.LogSoftmax(1))
    mirrored = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"), nn.AdaptiveAvgPool2d(1),
                             nn.Flatten())  # fmt: skip

    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(3, 2)

        def forward(self, x):
            x = x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))
            return self.dense(x)

    cases = {
        "operation 'getitem'": wrap(network, classes="ab", size=SIZE),
        "layer '1' .LogSoftmax.": wrap(probabilities, classes="ab", size=32),
        "layer '0' .Conv2d.*reflect": wrap(mirrored, classes="ab", size=SIZE),
        "cannot be traced": wrap(Deciding(), classes="ab", size=SIZE),
        "operation": defend(slim, few, Transform()),
        "operation 'view'|operation 'log_softmax'|traced": defend(slim, few, Dropout(passes=2)),
    }
    for told, victim in cases.items():
        pixels = labelled_batch(victim, 2).pixels
        found = verify(victim, pixels)
        assert found.radius is None
        assert torch.equal(found.classes, predict(victim, pixels).argmax(1))
        with pytest.raises(Unsupported, match=told):
            logit_bounds(victim, to_images(pixels), 0.01)
    for wrong in ({"most": 0.0}, {"most": 2.0}, {"halvings": 0}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            verify(small, labelled_batch(small, 2).pixels, **wrong)


def test_a_network_whose_trace_is_another_is_unknown():
    class Counting(nn.Module):
        """One thing in tracing, another in use: a module that looks at its own buffer."""

        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(3 * SIZE * SIZE, 2)

        def forward(self, x):
            with Louder():
                return self.dense(x.flatten(1))

    victim = wrap(Counting(), classes="ab", size=SIZE)
    found = verify(victim, lit(2).pixels)
    assert found.radius is None
    assert "something else than the network" in found.unknown


class Louder(torch.overrides.TorchFunctionMode):
    """Doubles what dense layers return, unseen by a trace."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return 2 * out if func is F.linear else out


def test_a_proven_radius_is_the_whole_of_what_is_tried_where_it_can_be():
    victim = linear_classifier(size=6, scale=1e-4)
    network = copy.deepcopy(victim.trainable)
    network.dense.bias.data = torch.tensor([5.0, -5.0])
    sure = wrap(network, classes="ab", size=6)
    assert (verify(sure, labelled_batch(sure, 3).pixels, most=1.0).radius == 1.0).all()
    assert len(verify(sure, labelled_batch(sure, 3).pixels[:0]).radius) == 0
