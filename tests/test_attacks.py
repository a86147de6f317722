"""Attacks against closed-form answers, and the promises every attack keeps."""

from __future__ import annotations

import pytest
import torch

from heatprint.attacks import ATTACKS, attack, make
from heatprint.attacks.access import LabelAccess, NoAccess, ScoreAccess, WhiteBox
from heatprint.attacks.fgsm import first_true
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.values import Batch, Perturbed, Taxonomy
from heatprint.models import predict
from heatprint.testing import check_attack, labelled_batch, linear_classifier, small_classifier

FAST = {
    "ead": {"steps": 10, "searches": 3, "start": 10.0},
    "fmn": {"steps": 15},
    "jsma": {"gamma": 0.02},
    "sigma-zero": {"steps": 20},
    "simba": {"queries": 60},
    "apgd": {"steps": 20},
    "carlini-wagner": {"steps": 20, "searches": 3},
    "ensemble": {"effort": "quick"},
    "fab": {"steps": 20},
    "boundary": {"queries": 150},
    "hopskipjump": {"iterations": 3, "probes": 20},
    "one-pixel": {"population": 20, "generations": 3},
    "patch": {"epochs": 5},
    "spatial": {"angles": 5, "shifts": 3},
    "square": {"queries": 100},
    "universal": {"epochs": 5},
}


def weights(classifier):
    """Difference of the two weight rows of a linear classifier, [3, S, S], and of its biases."""
    dense = classifier.network.dense
    w = (dense.weight[1] - dense.weight[0]).view(3, classifier.size, classifier.size)
    return w.double(), (dense.bias[1] - dense.bias[0]).double()


def signed_margin(classifier, batch):
    """By how much the true class leads, float64 [N], and the direction in which it falls, [N, 3, S, S]."""
    w, b = weights(classifier)
    sign = torch.where(batch.labels == 1, 1.0, -1.0).double()
    lead = sign * ((batch.images.double() * w).sum((1, 2, 3)) + b)
    return lead, -sign.view(-1, 1, 1, 1) * w


def needs(name):
    """Skip, visibly, an attack of a library that is not installed."""
    if name in ("art", "foolbox", "torchattacks"):
        pytest.importorskip(name)


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_keeps_its_contract(name):
    needs(name)
    check_attack(make(name, **FAST.get(name, {})))


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_fills_its_taxonomy(name):
    needs(name)
    taxonomy = make(name).taxonomy
    assert isinstance(taxonomy, Taxonomy)
    assert taxonomy.paper == "control" or any(c.isdigit() for c in taxonomy.paper)


def test_fgsm_ramp_finds_the_exact_first_gain(linear):
    batch = labelled_batch(linear, 40)
    lead, fall = signed_margin(linear, batch)
    per_level = fall.abs().sum((1, 2, 3)) / 255  # mid-grey images: nothing is clipped below 64 levels
    expected = (lead / per_level).floor().long() + 1
    hit = attack(linear, batch, make("fgsm", eps="60/255"))
    clear_of_ties = ((lead / per_level) % 1 - 0.5).abs() < 0.49
    assert clear_of_ties.sum() > 20
    assert torch.equal(hit.step[clear_of_ties], expected[clear_of_ties])
    assert hit.success.all()
    assert torch.equal(hit.distance.linf[clear_of_ties], expected[clear_of_ties])
    assert torch.equal(hit.backwards, torch.ones(40).long())
    assert not hit.trace["unflip"].any()
    assert torch.equal(hit.trace["flips"], 60 - hit.step + 1)


def test_fgsm_one_step_moves_every_channel_by_eps_down_the_lead(linear):
    batch = labelled_batch(linear, 4)
    _, fall = signed_margin(linear, batch)
    hit = attack(linear, batch, make("fgsm", eps="5/255", ramp=False))
    moved = hit.adversarial.pixels.int() - batch.pixels.int()
    assert torch.equal(moved, (5 * fall.sign()).int())


def test_pgd_reaches_the_corner_of_the_ball_on_a_linear_model(linear):
    batch = labelled_batch(linear, 6)
    lead, fall = signed_margin(linear, batch)
    hit = attack(linear, batch, make("pgd", eps="2/255", step="1/255", steps=8))
    w, b = weights(linear)
    left = torch.where(batch.labels == 1, 1.0, -1.0) * ((hit.adversarial.images.double() * w).sum((1, 2, 3)) + b)
    best = lead - 2 / 255 * fall.abs().sum((1, 2, 3))
    robust = best > 0
    assert torch.equal(hit.success, ~robust)
    assert torch.allclose(left[robust], best[robust], atol=1e-5)


@pytest.mark.parametrize("eps", [0.03, 1.6 / 255, 0.5 / 255])
@pytest.mark.parametrize(("name", "settings"), [("fgsm", {"ramp": False}), ("pgd", {}), ("noise", {})])
def test_a_budget_between_two_levels_is_never_rounded_up(small, name, settings, eps):
    hit = attack(small, labelled_batch(small), make(name, eps=eps, **settings))
    assert int(hit.distance.linf.max()) == int(eps * 255)


def best_pixel(batch, fall):
    """The largest fall of the lead that one pixel can cause, float64 [N]."""
    x = batch.images.double()
    return torch.maximum(fall * (1 - x), -fall * x).sum(1).flatten(1).amax(1)


@pytest.mark.parametrize("preset", ["paper", "scipy"])
def test_one_pixel_finds_the_best_pixel_of_a_linear_model(preset):
    linear = linear_classifier(size=16, scale=0.2)
    batch = labelled_batch(linear, 24)
    lead, fall = signed_margin(linear, batch)
    reach = best_pixel(batch, fall)
    hit = attack(linear, batch, make("one-pixel", preset=preset, generations=20))
    assert not hit.success[reach < lead].any(), "no pixel can flip these"
    assert hit.success[reach > 1.1 * lead].all(), "a pixel flips these with room to spare"
    assert (reach > 1.1 * lead).any()
    assert (reach < lead).any()
    assert (hit.distance.l0 == 1).all()
    w, b = weights(linear)
    left = torch.where(batch.labels == 1, 1.0, -1.0) * ((hit.adversarial.images.double() * w).sum((1, 2, 3)) + b)
    share = ((lead - left) / reach)[~hit.success]
    assert share.max() < 1 + 1e-6, "nothing beats the optimum"
    assert share.mean() > 0.85
    assert share.min() > 0.7, "differential evolution stays near it, even where neighbours are unrelated"


def test_one_pixel_counts_queries_and_stops_with_the_generation_of_success(small):
    batch = labelled_batch(small, 6)
    method = make("one-pixel", population=30, generations=2)
    hit = attack(small, batch, method)
    ran = torch.where(hit.success, hit.step, 2) + 1
    assert torch.equal(hit.forwards, 30 * ran)
    assert not hit.backwards.any()


@pytest.mark.parametrize("pixels", [1, 3, 5])
def test_one_pixel_changes_at_most_its_pixels_and_at_least_one(small, pixels):
    batch = labelled_batch(small, 5)
    hit = attack(small, batch, make("one-pixel", pixels=pixels, population=12, generations=2))
    assert (hit.distance.l0 <= pixels).all()
    assert (hit.distance.l0 >= 1).all()


def test_one_pixel_keeps_exactly_one_changed_pixel_on_black_images(small):
    """On black, colours clipped to black change nothing; such a candidate must not be handed out."""
    pixels = torch.zeros((4, 3, 16, 16), dtype=torch.uint8)
    batch = Batch(ids=tuple("abcd"), pixels=pixels, labels=predict(small, pixels).argmax(1))
    hit = attack(small, batch, make("one-pixel", population=8, generations=3))
    assert (hit.distance.l0 == 1).all()


@pytest.mark.parametrize("name", ["fgsm", "pgd", "one-pixel"])
def test_targeted_attacks_aim_at_a_class_that_is_not_the_runner_up(name):
    victim = small_classifier(classes=4, seed=2)
    batch = labelled_batch(victim, 24, seed=5)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]  # the least likely class
    settings = {"fgsm": {"eps": "120/255"}, "pgd": {"eps": "60/255", "step": "6/255", "steps": 40}}.get(
        name, {"population": 60, "generations": 12, "pixels": 5}
    )
    hit = attack(victim, batch, make(name, **settings), targets=targets)
    assert torch.equal(hit.success, hit.logits.argmax(1) == targets)
    before = hit.clean_logits.softmax(1).gather(1, targets[:, None])
    after = hit.logits.softmax(1).gather(1, targets[:, None])
    assert (after > before).float().mean() > 0.9, "every attack at least approaches its target"
    if name == "pgd":
        assert hit.success.float().mean() > 0.5


def test_batch_size_and_order_leave_outcomes_alone(monkeypatch, small):
    batch = labelled_batch(small, 40)
    method = make("one-pixel", population=16, generations=4)
    first = attack(small, batch, method, seed=1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("heatprint.attacks.access.batch_size", lambda _: 7)
    other = attack(small, batch.take(order), method, seed=1)
    assert torch.equal(other.success, first.success[order])
    assert torch.equal(other.adversarial.pixels, first.adversarial.pixels[order])


def test_black_box_attacks_get_no_gradient(small):
    batch = labelled_batch(small, 2)
    goal, images, rows = untargeted(batch.labels), batch.images, torch.arange(2)
    access = ScoreAccess(small, goal, images)
    for question in (access.gradient, access.jacobian):
        with pytest.raises(BrokenContract, match="asked for a gradient"):
            question(images, rows, *(["margin"] if question == access.gradient else []))
    assert not access.logits(images.clone().requires_grad_(True), rows).requires_grad
    label = LabelAccess(small, goal, images)
    assert label.reached(images, rows).tolist() == [False, False]
    with pytest.raises(BrokenContract, match="asked for scores"):
        label.logits(images, rows)
    with pytest.raises(BrokenContract, match="asked for a label"):
        NoAccess(small, goal, images).reached(images, rows)
    white = WhiteBox(small, goal, images)
    white.gradient(images, rows, "margin")
    assert white.ledger.backwards.tolist() == white.ledger.forwards.tolist() == [1, 1]
    white.jacobian(images, rows)
    assert white.ledger.backwards.tolist() == [4, 4]
    assert white.ledger.forwards.tolist() == [2, 2]


class Liar:
    """Returns what an attack must not."""

    eps = None

    def __init__(self, change):
        self._change = change
        self.taxonomy = make("noise").taxonomy

    def perturb(self, access, images, goal, *, streams, progress):
        return Perturbed(images=self._change(images), step=torch.full((len(images),), -1))


def test_the_door_refuses_results_outside_the_contract(small, monkeypatch):
    monkeypatch.setattr("heatprint.attacks.door.digest", lambda *_: "liar")
    batch = labelled_batch(small, 3)
    with pytest.raises(BrokenContract, match=r"outside \[0, 1\]"):
        attack(small, batch, Liar(lambda x: x + 1))
    with pytest.raises(BrokenContract, match="returned images"):
        attack(small, batch, Liar(lambda x: x[:, :, 1:]))
    with pytest.raises(BrokenContract, match=r"outside \[0, 1\]"):
        attack(small, batch, Liar(lambda x: x * torch.nan))


def test_the_door_judges_after_rounding(small, monkeypatch):
    """A change below half a level vanishes in 8 bits, and with it any success."""
    monkeypatch.setattr("heatprint.attacks.door.digest", lambda *_: "tiny")
    batch = labelled_batch(small, 3)
    hit = attack(small, batch, Liar(lambda x: x + 0.4 / 255))
    assert torch.equal(hit.adversarial.pixels, batch.pixels)
    assert not hit.success.any()


def test_wrong_sizes_labels_and_targets_are_refused(small):
    batch = labelled_batch(small, 3)
    with pytest.raises(InvalidInput, match="Load them with size=16"):
        attack(small, Batch(ids=batch.ids, pixels=batch.pixels[..., :8], labels=batch.labels), make("fgsm"))
    with pytest.raises(InvalidInput, match="labels must be 3 class numbers from 0 to 2"):
        attack(small, Batch(ids=batch.ids, pixels=batch.pixels, labels=batch.labels + 9), make("fgsm"))
    with pytest.raises(InvalidInput, match="cannot aim"):
        attack(small, batch, make("noise"), targets=(batch.labels + 1) % 3)


@pytest.mark.parametrize("name", ATTACKS.names())
def test_an_empty_or_wholly_misclassified_batch_is_no_error(name, small):
    needs(name)
    batch = labelled_batch(small, 3, wrong=3)
    hit = attack(small, batch, make(name, **FAST.get(name, {})))
    assert hit.attempted == 0
    assert not hit.success.any()


def test_first_true():
    table = torch.tensor([[False, True, False], [True, True, True], [False, False, False]])
    assert first_true(table).tolist() == [1, 0, 3]
    assert first_true(torch.zeros((2, 0), dtype=torch.bool)).tolist() == [0, 0]


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (3, 1), (4, 2), (10, 3)])
@pytest.mark.parametrize("eps", [1 / 255, 2 / 255, 4 / 255])
def test_pgd_is_never_weaker_than_fgsm(classes, seed, eps):
    victim = small_classifier(classes=classes, seed=seed)
    batch = labelled_batch(victim, 30, seed=seed)
    once = attack(victim, batch, make("fgsm", eps=eps, ramp=False))
    often = attack(victim, batch, make("pgd", eps=eps, step=eps / 4, steps=40))
    assert int(often.success.sum()) >= int(once.success.sum())
