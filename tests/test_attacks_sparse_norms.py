"""FMN, Sigma-zero, JSMA and EAD against closed forms of linear classifiers."""

from __future__ import annotations

import pytest
import torch

from heatprint.attacks import attack, make
from heatprint.attacks.access import WhiteBox
from heatprint.attacks.ead import EAD
from heatprint.attacks.fmn import FMN
from heatprint.attacks.jsma import JSMA
from heatprint.attacks.parts.few_pixels import corners, fewest, prune, top_pixels
from heatprint.attacks.sigma_zero import SigmaZero
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion, untargeted
from heatprint.core.norms import length, project
from heatprint.core.values import Batch
from heatprint.models import predict, wrap
from heatprint.testing import Linear, labelled_batch, linear_classifier, small_classifier

PUSH = 10  # levels by which images are moved away from the boundary
MINIMAL = [  # name, settings, norm, factor of the optimum
    ("fmn", {"norm": "l2"}, "l2", 1.1),
    ("fmn", {"norm": "linf"}, "linf", 1.25),
    ("fmn", {"norm": "l1"}, "l1", 1.1),
    ("ead", {"steps": 60, "searches": 6, "beta": 0.02}, "l1", 1.25),
    ("ead", {"steps": 60, "searches": 6, "beta": 0.0, "rule": "l2"}, "l2", 1.1),
]


def robust_batch(classifier, count=10, seed=0):
    """Mid-grey noise pushed away from the runner-up, so that the nearest adversarial is many levels away."""
    batch = labelled_batch(classifier, count, seed=seed)
    second = predict(classifier, batch.pixels).argsort(1)[:, -2]
    weight = classifier.network.dense.weight
    away = (weight[batch.labels] - weight[second]).view(batch.pixels.shape).sign()
    pixels = (batch.pixels.float() + PUSH * away).round().clamp(0, 255).to(torch.uint8)
    return Batch(ids=batch.ids, pixels=pixels, labels=predict(classifier, pixels).argmax(1))


def lead_over(classifier, batch, other):
    """By how much the true class leads over another, float64 [N], and the weights of its fall, [N, 3 * S * S]."""
    weight, bias = classifier.network.dense.weight.double(), classifier.network.dense.bias.double()
    fall = weight[other] - weight[batch.labels]
    lead = bias[batch.labels] - bias[other] - (batch.images.double().flatten(1) * fall).sum(1)
    return lead, fall


def optimum(classifier, batch, other, norm):
    """The least change after which the other class leads, float64 [N]; L0 and L1 with the box, Linf in levels."""
    lead, fall = lead_over(classifier, batch, other)
    if norm == "l2":
        return lead / fall.norm(dim=1)
    if norm == "linf":
        return lead / fall.abs().sum(1) * 255
    x = batch.images.double().flatten(1)
    room = torch.where(fall > 0, 1 - x, x)
    if norm == "l0":
        gain = (fall.abs() * room).view(len(x), 3, -1).sum(1).sort(1, descending=True).values.cumsum(1)
        return (gain < lead[:, None]).sum(1) + 1.0
    slope, order = fall.abs().sort(1, descending=True)
    room = room.gather(1, order)
    spent, gain = room.cumsum(1) - room, (slope * room).cumsum(1) - slope * room  # before each channel
    last = (gain < lead[:, None]).sum(1, keepdim=True).sub(1).clamp_min(0)
    return (spent + (lead[:, None] - gain) / slope).gather(1, last).squeeze(1)


def nearest(classifier, batch, norm):
    """The optimum over all other classes."""
    every = []
    for other in range(len(classifier.classes)):
        far = optimum(classifier, batch, torch.full_like(batch.labels, other), norm)
        every.append(far.masked_fill(batch.labels == other, torch.inf))
    return torch.stack(every).amin(0)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("name", "settings", "norm", "factor"), MINIMAL)
def test_minimal_norm_attacks_come_near_the_closed_form(classes, name, settings, norm, factor):
    linear = linear_classifier(classes=classes)
    batch = robust_batch(linear)
    best = nearest(linear, batch, norm)
    hit = attack(linear, batch, make(name, **settings))
    assert hit.success.all()
    ratio = getattr(hit.distance, norm) / best
    assert ratio.min() > 0.999, "nothing beats the optimum"
    assert ratio.max() < factor


@pytest.mark.parametrize(("name", "settings", "norm", "factor"), MINIMAL)
def test_minimal_norm_attacks_aim_at_the_least_likely_class(name, settings, norm, factor):
    linear = linear_classifier(classes=4)
    batch = robust_batch(linear)
    targets = predict(linear, batch.pixels).argsort(1)[:, 0]
    hit = attack(linear, batch, make(name, **settings), targets=targets)
    assert hit.success.all()
    assert torch.equal(hit.logits.argmax(1), targets)
    ratio = getattr(hit.distance, norm) / optimum(linear, batch, targets, norm)
    assert ratio.min() > 0.999, "leading over the true class is the least that is needed"
    assert ratio.max() < 1.25


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "settings"), [("fmn", {"norm": "l0"}), ("sigma-zero", {"steps": 60}), ("jsma", {"gamma": 1.0})]
)
def test_l0_attacks_change_the_fewest_pixels_there_can_be(name, settings, seed):
    linear = linear_classifier(size=16)
    batch = robust_batch(linear, 16, seed=seed)
    lead, fall = lead_over(linear, batch, 1 - batch.labels)
    corner, rank = corners(batch.images.double(), fall.view(batch.images.shape))
    assert set(corner.unique().tolist()) == {0.0, 1.0}
    gain = rank.flatten(1).sort(1, descending=True).values.cumsum(1)
    clear = ((gain - lead[:, None]).abs().amin(1) / lead) > 1e-4  # of ties between n and n + 1 pixels
    best = optimum(linear, batch, 1 - batch.labels, "l0")
    assert clear.sum() > 12
    assert best.min() > 3
    hit = attack(linear, batch, make(name, **settings))
    assert hit.success.all()
    assert torch.equal(hit.distance.l0[clear].double(), best[clear].double())


@pytest.mark.parametrize("name", ["fmn", "sigma-zero"])
def test_l0_attacks_reach_the_least_likely_class_of_a_network(name):
    victim = small_classifier(classes=4, seed=2)
    batch = labelled_batch(victim, 6, seed=5)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]
    hit = attack(victim, batch, make(name, **({"norm": "l0"} if name == "fmn" else {"steps": 80})), targets=targets)
    assert torch.equal(hit.success, hit.logits.argmax(1) == targets)
    assert hit.success.sum() >= 5
    assert hit.distance.l0[hit.success].double().mean() < 0.5 * 16 * 16


def test_pruning_leaves_the_optimum_of_a_wasteful_image_and_failures_alone():
    linear = linear_classifier(size=16)
    batch = robust_batch(linear, 8)
    _, fall = lead_over(linear, batch, 1 - batch.labels)
    images, rows = batch.images, torch.arange(8)
    wasteful = images + 60 / 255 * fall.float().sign().view(images.shape)
    wasteful = (wasteful.clamp(0, 1) * 255).round() / 255
    wasteful[0] = images[0]
    wasteful[0, :, 0, 0] = 0.0
    access = WhiteBox(linear, untargeted(batch.labels), images)
    assert access.reached(wasteful, rows).tolist() == [False] + [True] * 7
    kept = prune(access, images, wasteful, rows)
    assert torch.equal(kept[0], wasteful[0]), "an image that does not reach the goal comes back as it was"
    assert access.reached(kept[1:], rows[1:]).all()
    assert torch.equal(length(kept - images, "l0")[1:].double(), optimum(linear, batch, 1 - batch.labels, "l0")[1:])


def test_parts_of_the_sparse_attacks():
    rank = torch.tensor([[[3.0, 0.0], [1.0, 2.0]]]).repeat(3, 1, 1)
    mask = top_pixels(rank, torch.tensor([0, 2, 4]))
    assert mask.int().flatten(1).tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 1, 1]]
    clean = torch.full((1, 3, 1, 2), 0.25)
    gradient = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 4.0]]).view(1, 3, 1, 2)
    corner, gain = corners(clean, gradient)
    assert corner.flatten().tolist() == [1.0, 0.25, 0.0, 0.25, 0.25, 1.0]
    assert gain.flatten().tolist() == [1.75, 3.0]
    leads = torch.tensor([0.5, 2.9, 3.1, 99.0])
    assert fewest(gradient.expand(4, -1, -1, -1), clean.expand(4, -1, -1, -1), leads).tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_projection_takes_a_radius_for_each_image(norm):
    delta = torch.randn((4, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    radii = torch.tensor([0.1, 0.7, 1.5, 1e3])
    together = project(delta, norm, radii)
    alone = torch.cat([project(delta[i : i + 1], norm, float(radii[i])) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-7)
    assert torch.allclose(length(together, norm)[:3], radii[:3], atol=1e-5)
    assert torch.equal(together[3], delta[3])


def test_ead_rules_choose_what_they_say():
    linear = linear_classifier(classes=4)
    batch = robust_batch(linear)
    hits = {rule: attack(linear, batch, EAD(rule=rule, steps=60, beta=0.01)) for rule in ("l1", "en", "l2")}
    assert all(hit.success.all() for hit in hits.values())
    assert hits["l1"].distance.l1.mean() < 0.95 * hits["en"].distance.l1.mean()
    assert hits["en"].distance.l1.mean() < hits["l2"].distance.l1.mean() + 1e-9
    assert hits["l2"].distance.l2.mean() < 0.95 * hits["l1"].distance.l2.mean()
    assert EAD(rule="l2").taxonomy.norm == "l2"
    assert EAD(rule="en").taxonomy.norm == "l1"


@pytest.mark.parametrize("criterion", [Criterion(margin=0.3), Criterion(probability=0.6)])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ead", {"steps": 60, "searches": 5}),
        ("fmn", {}),
        ("fmn", {"norm": "l0"}),
        ("sigma-zero", {"steps": 60}),
        ("jsma", {"gamma": 0.5}),
    ],
)
def test_a_criterion_is_met_not_only_the_boundary(linear, name, settings, criterion):
    batch = labelled_batch(linear, 6)
    hit = attack(linear, batch, make(name, **settings), criterion=criterion)
    assert hit.success.sum() >= 5  # rounding to 8 bits may cost one, on some processors
    goal = untargeted(batch.labels, criterion)
    assert torch.equal(goal.reached(hit.logits), hit.success)


def test_jsma_takes_the_pixels_that_the_saliency_map_ranks_first():
    """On a linear classifier of three classes the map never changes, so the order is known beforehand."""
    linear = linear_classifier(classes=3, size=6)
    batch = labelled_batch(linear, 6)
    targets = predict(linear, batch.pixels).argsort(1)[:, 0]
    hit = attack(linear, batch, JSMA(gamma=1.0, prune=False), targets=targets)
    assert hit.success.all()
    assert torch.equal(hit.step, hit.distance.l0), "one pixel a step, black or white at once"
    weight = linear.network.dense.weight.view(3, 3, 36).sum(1)  # slope of each pixel, all channels together
    for row in range(6):
        rise = weight[targets[row]]
        rest = weight.sum(0) - rise
        salient = torch.where(rise * rest < 0, (rise * rest).abs(), 0)
        count = int(hit.step[row])
        assert count <= int((salient > 0).sum()), "the map has enough pixels for this image"
        order = salient.argsort(descending=True)[:count]
        expected = batch.pixels[row].flatten(1).clone()
        expected[:, order] = torch.where(rise[order] > 0, 255, 0).to(torch.uint8)
        assert torch.equal(hit.adversarial.pixels[row].flatten(1), expected)


def test_jsma_asks_few_gradients_of_many_classes_and_finds_the_same(monkeypatch):
    victim = small_classifier(classes=4, seed=2)
    batch = labelled_batch(victim, 6)
    whole = attack(victim, batch, JSMA(theta=100 / 255, prune=False))
    monkeypatch.setattr("heatprint.attacks.jsma.FEW", 3)
    two = attack(victim, batch, JSMA(theta=100 / 255, prune=False))
    assert torch.equal(whole.adversarial.pixels, two.adversarial.pixels)
    assert torch.equal(2 * whole.backwards, 4 * two.backwards), "two instead of four gradients a step"
    moved = (whole.adversarial.pixels.int() - batch.pixels.int()).abs()
    assert set(moved.unique().tolist()) - {0, 100}, "a pixel may move more than once, and stops at black or white"


@pytest.mark.parametrize("gamma", [0.004, 0.02])
def test_jsma_changes_at_most_its_share_of_pixels(gamma):
    victim = small_classifier(classes=4, seed=2)
    batch = labelled_batch(victim, 6, seed=5)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]  # out of reach for so few pixels
    hit = attack(victim, batch, JSMA(gamma=gamma, theta=0.3), targets=targets)
    assert not hit.success.any()
    assert (hit.distance.l0 == int(gamma * 256)).all(), "the share is used up, and the attempt kept"
    before = hit.clean_logits.log_softmax(1).gather(1, targets[:, None])
    assert (hit.logits.log_softmax(1).gather(1, targets[:, None]) > before).all()


@pytest.mark.parametrize(
    "method", [FMN(norm=norm, steps=8) for norm in ("l0", "l1", "l2", "linf")] + [SigmaZero(steps=8), JSMA(), EAD()]
)
def test_a_classifier_without_gradients_is_survived(method):
    """Every gradient is zero and no image can fall: no endless loop, no division by zero, images in [0, 1]."""
    weight = torch.zeros((3, 3 * 36))
    flat = wrap(Linear(weight, torch.tensor([1.0, 0.0, 0.5])), classes=["a", "b", "c"], size=6)
    batch = labelled_batch(flat, 3)
    if isinstance(method, EAD):
        method = EAD(steps=4, searches=3)
    hit = attack(flat, batch, method)
    assert not hit.success.any()
    assert (hit.step == -1).all()


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (FMN, {"norm": "l3"}, "write 'l0', 'l1', 'l2' or 'linf'"),
        (FMN, {"steps": 0}, "steps = 0 must be 1 or more"),
        (FMN, {"gamma": 0.01, "slow": 0.05}, "at most gamma"),
        (SigmaZero, {"sigma": 0.0}, "sigma = 0.0"),
        (SigmaZero, {"threshold": 76.0}, "from 0 to 1"),
        (JSMA, {"theta": 255.0}, "write '255/255'"),
        (JSMA, {"gamma": 0.0}, "gamma = 0.0 must be above 0"),
        (EAD, {"rule": "linf"}, "write 'l1', 'en' or 'l2'"),
        (EAD, {"searches": 0}, "searches = 0 must be 1 or more"),
        (EAD, {"beta": -1.0}, "beta = -1.0 must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(cls, settings, message):
    with pytest.raises(InvalidInput, match=message):
        cls(**settings)
