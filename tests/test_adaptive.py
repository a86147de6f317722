"""Attacks on the detector: exact columns with a gradient, the walk's promises, and a detector that falls."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from torch import nn

from heatprint.attacks import attack, make
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import silent
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.detectors import Examples, Identifier, fit
from heatprint.detectors.features.table import columns, measure
from heatprint.detectors.filters import repeated
from heatprint.detectors.heat_print import HeatPrint
from heatprint.evaluation.adaptive import (
    Confident,
    Joint,
    KeepExplanation,
    Orthogonal,
    StandIn,
    TakenFor,
    Undone,
    Walk,
    adaptive,
    attacks,
    study,
)
from heatprint.evaluation.adaptive.explanation import heat, maps
from heatprint.evaluation.adaptive.guarded import Guarded, fools
from heatprint.evaluation.adaptive.orthogonal import orthogonal
from heatprint.evaluation.adaptive.soft import SOFTENED, _Median, soft_columns
from heatprint.evaluation.adaptive.stand_in import unbounded
from heatprint.evaluation.adaptive.walk import shortfall
from heatprint.models import wrap

SIZE = 24
EPS = 8 / 255
SHORT = Walk(steps=6, every=2)


class Rough(nn.Module):
    """A rough linear slope that bends a little, so that maps can move, too."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.from_numpy(stream(0, "rough").standard_normal((12, 3, SIZE, SIZE))).float()
        self.first = nn.Conv2d(3, 12, SIZE)
        self.first.weight.data = weight - weight.mean((2, 3), keepdim=True)  # brightness alone says nothing
        self.first.bias.data = torch.full((12,), 10.0)
        self.act = nn.ReLU()
        self.last = nn.Linear(12, 2)
        sign = torch.tensor([1.0, -1.0]).repeat(6)
        self.last.weight.data, self.last.bias.data = torch.stack([sign, -sign]) / 6, torch.zeros(2)

    def forward(self, images):
        return self.last(self.act(self.first(images)).flatten(1))


@pytest.fixture(scope="module")
def rough():
    return wrap(Rough(), classes=("cats", "dogs"), size=SIZE)


def smooth(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured 8-bit images, uint8 [count, 3, SIZE, SIZE]."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(60, 200, (count, 3, 4, 4))
    image = ndimage.zoom(low, (1, 1, SIZE / 4, SIZE / 4), order=1) + rng.normal(0, 1.5, (count, 3, SIZE, SIZE))
    return torch.from_numpy(image.round().clip(0, 255).astype(np.uint8))


def pictures(classifier, count: int, seed: int) -> Batch:
    """Images with the label the classifier gives them."""
    pixels = smooth(count, seed)
    labels = classifier(to_images(pixels)).argmax(1)
    return Batch(ids=tuple(f"{seed}.{k}" for k in range(count)), pixels=pixels, labels=labels)


def history(classifier, seed: int, count: int = 60) -> Examples:
    """Clean images, noisy ones and attacked ones."""
    clean = pictures(classifier, count, seed)
    made = {
        "clean": clean,
        "noise": attack(classifier, clean, make("noise", eps=4 / 255), seed=seed).adversarial,
        "pgd": attack(classifier, clean, make("bim", eps=EPS, step=1 / 255, steps=8), seed=seed).adversarial,
    }
    names = tuple(np.repeat(list(made), count).tolist())
    return Examples(
        sources=clean.ids * 3, pixels=torch.cat([one.pixels for one in made.values()]), labels=clean.labels.repeat(3),
        kinds=names, names=names, attacked=np.asarray([name == "pgd" for name in names]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def detector(rough):
    found = fit(rough, history(rough, 1), HeatPrint(families=("undo", "key"), learner="boosting"), name="heat-print")
    usual = found.score(rough, smooth(80, seed=2))
    return found.calibrate(usual, fpr=0.05)


@pytest.fixture(scope="module")
def identifier(rough):
    return Identifier(families=("undo", "image"), learner="trees").fit(rough, history(rough, 3), history(rough, 4, 20))


@pytest.fixture(scope="module")
def studied(rough, detector, identifier) -> Guarded:
    return study(rough, detector, pictures(rough, 20, 5), identifier=identifier)


@pytest.fixture
def guarded(studied) -> Guarded:
    """Fresh each time, since stand-ins go on learning."""
    return replace(studied, stand_in=copy.deepcopy(studied.stand_in), namer=copy.deepcopy(studied.namer))


# --- columns with a gradient --------------------------------------------------------------------------------


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("family", SOFTENED)
def test_soft_columns_are_the_detector_s_own(family, second_order, small):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, small.size, small.size), dtype=np.uint8))
    pixels[2] = 128  # nothing in it: roots of zero
    before = small.fingerprint()
    images = to_images(pixels).requires_grad_()
    found, logits = soft_columns(small, images, (family,), second_order=second_order)
    np.testing.assert_allclose(found.detach(), measure(small, pixels, (family,)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, small(to_images(pixels)))
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert bool(gradient.isfinite().all())
    assert gradient[0].abs().max() > 0
    assert small.fingerprint() == before


def test_the_gradient_of_the_undo_test_is_that_of_finite_differences(linear):
    """A linear classifier: the slope does not move, so nothing but the image does. In doubles, between the levels."""
    exact = replace(linear, network=copy.deepcopy(linear.network).double())
    rng = np.random.default_rng(1)
    images, way = (torch.from_numpy(rng.standard_normal((2, 3, linear.size, linear.size))) for _ in range(2))
    images = 0.5 + 0.02 * images

    def found(shift):
        there = (images + shift * way).requires_grad_()
        return there, soft_columns(exact, there, ("undo",))[0]

    step = 1e-6
    (_, ahead), (_, behind), (leaf, there) = found(step), found(-step), found(0)
    for name in ("sign 4 colour", "gain sign 1", "gain linear 8"):
        column = columns(("undo",)).index(f"undo: {name}")
        (gradient,) = torch.autograd.grad(there[:, column].sum(), leaf, retain_graph=True)
        numeric = (ahead - behind)[:, column].detach().double() / (2 * step)
        torch.testing.assert_close((gradient * way).sum((1, 2, 3)), numeric, rtol=0.02, atol=0.2)


def test_the_gradient_of_a_median_goes_to_the_neighbour_that_it_is():
    """Levels that differ: against the derivative of the sorted window, edges repeated."""
    rng = np.random.default_rng(3)
    pixels = torch.from_numpy(rng.permutation(2 * 3 * 5 * 6).reshape(2, 3, 5, 6).astype(np.uint8))
    images = to_images(pixels).requires_grad_()
    weight = torch.from_numpy(rng.standard_normal(pixels.shape)).float()
    (found,) = torch.autograd.grad((_Median.apply(images) * weight).sum(), images)
    slow = to_images(pixels).requires_grad_()
    wide = repeated(slow)
    windows = torch.stack([wide[..., i : i + 5, j : j + 6] for i in range(3) for j in range(3)])
    middle = windows.median(0).values
    torch.testing.assert_close(_Median.apply(images), middle)
    shares = torch.autograd.grad((middle * weight).sum(), slow)[0]
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found.sum(), shares.sum())
    torch.testing.assert_close(found[inner], shares[inner])


def test_a_squeezed_image_goes_back_as_itself(small):
    """The change under JPEG must not be the classifier's own slope alone, as it is when files have no gradient."""
    pixels = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, 3, small.size, small.size), dtype=np.uint8))
    images = to_images(pixels).requires_grad_()
    found, _ = soft_columns(small, images, ("squeezing",))
    names = columns(("squeezing",))
    top = small(images).sort(dim=1, descending=True).values
    (own,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), images, retain_graph=True)
    column = names.index("squeezing: jpeg 90 change")
    (change,) = torch.autograd.grad(found[:, column].sum(), images)
    assert float((change - own).abs().max()) > 0.1 * float(own.abs().max())


# --- stand-in -----------------------------------------------------------------------------------------------


def test_a_stand_in_follows_what_has_no_gradient_and_goes_on_learning():
    rng = np.random.default_rng(0)
    table = rng.normal(0, [1, 100, 0.01], (600, 3)).astype(np.float32)
    steps = np.floor(3 * table[:, :1]) - np.floor(table[:, 1:2] / 50)
    one, again = StandIn(("margin",), seed=4), StandIn(("margin",), seed=4)
    state = torch.random.get_rng_state()
    for stand_in in (one, again):
        stand_in.fit(table[:400], steps[:400])
    assert torch.equal(torch.random.get_rng_state(), state)
    thought = one(torch.from_numpy(table[400:])).detach()
    assert torch.equal(thought, again(torch.from_numpy(table[400:])).detach())
    assert spearmanr(thought[:, 0], steps[400:, 0]).statistic > 0.9
    one.learn(table[400:], -steps[400:])  # the detector was exchanged
    for _ in range(8):
        one.learn(table[400:], -steps[400:])
    assert one.agreement[0] < -0.9
    assert one.agreement[-1] > one.agreement[0] + 0.3


def test_scores_as_targets():
    np.testing.assert_allclose(unbounded(np.array([0.5, 0.9]))[:, 0], [0, np.log(9)])
    np.testing.assert_allclose(unbounded(np.array([-3.0, 12.0]))[:, 0], [-3, 12])
    assert np.isfinite(unbounded(np.array([0.0, 1.0]))).all()


# --- the walk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0, 3 / 255, 8.4 / 255])
def test_a_walk_keeps_the_least_suspicious_image_that_fools(eps, rough, guarded):
    batch = pictures(rough, 12, 6)
    asked: dict[bytes, float] = {}
    rng = np.random.default_rng(0)

    def judge(pixels):
        scores = rng.random(len(pixels))
        for image, score, wrong in zip(pixels, scores, fools(rough, pixels, batch.labels[: len(pixels)]), strict=True):
            asked[image.numpy().tobytes()] = score if wrong else np.inf
        return scores

    def direction(images, labels, rows):
        assert torch.equal(labels, batch.labels[rows])
        return torch.from_numpy(rng.standard_normal(images.shape)).float()

    found = Walk(eps=eps, steps=7, every=2).run(guarded, batch, direction, judge, enough=-np.inf, progress=silent)
    change = found.pixels.int() - batch.pixels.int()
    assert int(change.abs().max()) <= int(eps * 255 + 1e-6)
    torch.testing.assert_close(found.fooled, fools(rough, found.pixels, batch.labels))
    assert bool((change[~found.fooled] == 0).all())
    if eps == 0:
        assert not found.fooled.any()
    else:
        assert found.fooled.any()
        assert all(image.numpy().tobytes() in asked for image in found.pixels[found.fooled])


def test_a_walk_rests_when_it_is_hidden_well_enough(rough, guarded):
    batch = pictures(rough, 8, 6)
    lots = []

    def judge(pixels):
        lots.append(len(pixels))
        return np.where(np.arange(len(pixels)) < 3, 0.1, 0.9)

    Walk(steps=4, every=1).run(
        guarded, batch, lambda images, labels, rows: torch.zeros_like(images), judge, enough=0.2, progress=silent
    )
    assert lots[0] == 8
    assert lots[-1] < 8


def test_what_the_lead_lacks():
    logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
    assert shortfall(logits, torch.zeros(3, dtype=torch.long), 2.0).tolist() == [5.0, 1.0, 0.0]


def test_orthogonal_directions():
    rng = torch.Generator().manual_seed(0)
    one, other = (torch.randn((3, 3, 5, 5), generator=rng) for _ in range(2))
    other[2] = 0
    left = orthogonal(one, other)
    torch.testing.assert_close((left * other).sum((1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    assert torch.equal(left[2], one[2])
    torch.testing.assert_close(orthogonal(left, other), left)


# --- the attacks --------------------------------------------------------------------------------------------

EACH = {
    "joint": Joint(walk=SHORT),
    "joint, second order": Joint(walk=SHORT, second_order=True),
    "selective": Orthogonal(walk=SHORT, projected="neither"),
    "orthogonal": Orthogonal(walk=SHORT),
    "explanation": KeepExplanation(walk=SHORT),
    "confident": Confident(margins=(0.5, 2.0)),
    "undone": Undone(walk=SHORT),
    "undone, smooth": Undone(walk=SHORT, shape="smooth"),
    "taken for": TakenFor(walk=SHORT),
}


@pytest.mark.parametrize("name", EACH)
def test_an_attack_stays_in_the_ball_fools_and_leaves_the_network_alone(name, rough, guarded):
    batch, before = pictures(rough, 10, 7), rough.fingerprint()
    pixels = batch.pixels.clone()
    found = EACH[name].perturb(guarded, batch, seed=0, progress=silent)
    assert found.pixels.dtype == torch.uint8
    assert int((found.pixels.int() - batch.pixels.int()).abs().max()) <= 8
    assert torch.equal(found.fooled, fools(rough, found.pixels, batch.labels))
    assert found.fooled.sum() >= 8
    assert torch.equal(batch.pixels, pixels)
    assert rough.fingerprint() == before


def test_the_joint_attack_is_seen_less_than_plain_pgd(rough, detector, guarded, monkeypatch):
    batch, asked = pictures(rough, 16, 8), []
    ask = Guarded.ask
    monkeypatch.setattr(Guarded, "ask", lambda self, pixels: asked.append(ask(self, pixels)) or asked[-1])
    plain = attack(rough, batch, make("bim", eps=EPS, step=1 / 255, steps=8)).adversarial.pixels
    found = Joint(walk=Walk(steps=12)).perturb(guarded, batch, seed=0, progress=silent)
    usual = detector.score(rough, batch.pixels)
    before, after = detector.score(rough, plain), detector.score(rough, found.pixels)
    assert np.median(before) > usual.max()
    assert (after <= detector.thresholds[0.05]).mean() > (before <= detector.thresholds[0.05]).mean() + 0.5
    assert asked[0][1].min() > usual.max()  # seen at first, and hidden on the way
    assert asked[4][1].max() < asked[0][1].min()


def test_the_undo_test_is_undone(rough, guarded):
    batch = pictures(rough, 10, 9)
    column = columns(("undo",)).index("undo: sign 1 colour")
    plain = attack(rough, batch, make("bim", eps=EPS, step=1 / 255, steps=8)).adversarial.pixels
    found = Undone(walk=Walk(steps=12, every=2)).perturb(guarded, batch, seed=0, progress=silent)
    before, after = (np.median(measure(rough, pixels, ("undo",))[:, column]) for pixels in (plain, found.pixels))
    assert before > 0.8
    assert after < 0.4
    assert found.extras["undo: sign 1 colour"]["attacked"] == pytest.approx(after, abs=1e-3)


def test_grey_steps_leave_colour_differences_as_they_were(rough, guarded):
    batch = pictures(rough, 6, 10)
    found = Undone(walk=Walk(begin=0, steps=6, every=2), shape="grey").perturb(guarded, batch, seed=0, progress=silent)
    change = found.pixels.int() - batch.pixels.int()
    assert torch.equal(change[:, 0], change[:, 1])
    assert torch.equal(change[:, 0], change[:, 2])


def test_maps_are_kept_and_softplus_comes_near_the_relu(rough, guarded):
    batch = pictures(rough, 10, 11)
    plain = attack(rough, batch, make("bim", eps=EPS, step=1 / 255, steps=12)).adversarial.pixels
    found = KeepExplanation(walk=Walk(steps=12, every=2)).perturb(guarded, batch, seed=0, progress=silent)
    clean = maps(rough, batch.pixels, beta=None)

    def likeness(pixels):
        return torch.cosine_similarity(maps(rough, pixels, beta=None).flatten(1), clean.flatten(1)).median()

    assert found.extras["likeness of maps"] >= float(likeness(plain)) - 0.05
    images = to_images(batch.pixels).requires_grad_()
    sharp, relu = heat(rough, images, beta=1e4).detach(), heat(rough, images, beta=None).detach()
    torch.testing.assert_close(sharp, relu, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(relu, clean)
    assert float(relu.sum()) == pytest.approx(len(batch), rel=1e-4)


def test_the_least_suspicious_confidence_is_kept(rough, guarded):
    batch = pictures(rough, 8, 12)
    found = Confident(margins=(0.5, 2.0)).perturb(guarded, batch, seed=0, progress=silent)
    assert sum(found.extras["kept at margin"].values()) == int(found.fooled.sum())
    alone = [Confident(margins=(m,)).perturb(guarded, batch, seed=0, progress=silent) for m in (0.5, 2.0)]
    scores = [np.where(one.fooled, guarded.ask(one.pixels)[1], np.inf) for one in (found, *alone)]
    np.testing.assert_array_equal(scores[0], np.minimum(scores[1], scores[2]))


def test_taken_for_another(rough, guarded):
    batch = pictures(rough, 10, 13)
    place = guarded.named.index("benign change")
    plain = attack(rough, batch, make("bim", eps=EPS, step=1 / 255, steps=8)).adversarial.pixels
    found = TakenFor(walk=Walk(steps=9)).perturb(guarded, batch, seed=0, progress=silent)
    before, after = (guarded.name(pixels)[1][:, place] for pixels in (plain, found.pixels))
    assert after.mean() > before.mean()
    with pytest.raises(InvalidInput, match="one the identifier knows: benign change, clean, iterative Linf"):
        TakenFor(family="sparse").perturb(guarded, batch, seed=0, progress=silent)


# --- the table ----------------------------------------------------------------------------------------------


def test_the_table_counts_before_and_after(rough, detector, identifier):
    batch, usual = pictures(rough, 14, 14), detector.score(rough, smooth(60, seed=15))
    wrong = Batch(ids=batch.ids, pixels=batch.pixels, labels=torch.where(torch.arange(14) < 2, 1, 0) ^ batch.labels)
    chosen = {"joint": Joint(walk=SHORT), "taken": TakenFor(walk=SHORT), "joint, eps 2": Joint(walk=Walk(eps=2 / 255))}
    told, notes = [], []

    def progress(done, total, note=""):
        told.append((done, total))
        notes.append(str(note))

    found = adaptive(rough, detector, wrong, usual, identifier=identifier, chosen=chosen, progress=progress)
    assert found["images"] == 12
    assert [row["eps"] for row in found["attacks"].values()] == [8, 8, 2]
    row = found["attacks"]["joint"]
    assert row["before"]["fooled"]["total"] == row["after"]["passed at 5%"]["total"] == 12
    after = row["after"]
    assert after["passed at 5%"]["count"] + after["at 5%"]["count"] == after["fooled"]["count"]
    assert after["interval"][0] <= after["auroc"] <= after["interval"][1]
    assert after["auroc"] < row["before"]["auroc"]
    assert after["linf"] <= 8
    assert sum(found["attacks"]["taken"]["after"]["families"].values()) == 12
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert any("joint" in note for note in notes)
    without = adaptive(rough, detector, wrong, usual, chosen={name: chosen[name] for name in ("joint", "taken")})
    assert without["attacks"] == {"joint": row}  # equal seeds, equal numbers


def test_any_detector_can_be_attacked(rough):
    """One that is no heat print: its score is followed by the stand-in alone."""
    from heatprint.detectors.published.squeezing import SqueezingDetector

    other = fit(rough, history(rough, 1), SqueezingDetector(), name="squeezing")
    usual = other.score(rough, smooth(60, seed=2))
    batch = pictures(rough, 8, 16)
    chosen = {"joint": Joint(walk=SHORT)}
    found = adaptive(rough, other.calibrate(usual, fpr=0.05), batch, usual, chosen=chosen)["attacks"]["joint"]
    assert found["after"]["fooled"]["count"] >= 6


def test_every_attack_of_the_table_is_at_the_radius_asked_for():
    assert {name: round(one.eps * 255) for name, one in attacks(4 / 255).items()} == {
        name: {"joint, eps 2": 2, "joint, eps 1": 1}.get(name, 4) for name in attacks(4 / 255)
    }
    assert len(attacks()) >= 9


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: Walk(eps=8), "8/255"),
        (lambda: Walk(every=0), "1 or"),
        (lambda: Walk(margin=-1), "margin"),
        (lambda: Joint(weight=0), "above 0"),
        (lambda: Orthogonal(projected="all"), "both, classifier, detector, neither"),
        (lambda: KeepExplanation(beta=0), "beta"),
        (lambda: Confident(margins=()), "one lead"),
        (lambda: Undone(shape="blue"), "any, grey, smooth"),
        (lambda: TakenFor(sure=0), "sure"),
    ],
)
def test_settings_that_cannot_be_are_refused(made, match):
    with pytest.raises(InvalidInput, match=match):
        made()


def test_an_uncalibrated_detector_is_refused(rough, detector):
    with pytest.raises(InvalidInput, match="calibrate"):
        adaptive(rough, replace(detector, thresholds={}), pictures(rough, 4, 17), np.array([0.1]))
