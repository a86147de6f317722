"""The gradient attacks against closed forms: minimal norms, ascents within a ball, and the ensemble of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import nn

from heatprint.attacks import attack, make
from heatprint.attacks.access import WhiteBox
from heatprint.attacks.apgd import periods
from heatprint.attacks.ensemble import EFFORTS
from heatprint.attacks.ledger import Budget
from heatprint.attacks.parts.boundaries import onto_plane
from heatprint.attacks.parts.losses import dlr, named, towards
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion, Goal, untargeted
from heatprint.core.streams import Streams
from heatprint.core.values import Batch
from heatprint.models import predict, wrap
from heatprint.testing import labelled_batch, linear_classifier, small_classifier

MINIMAL = [
    ("deepfool", "l2", {}),
    ("deepfool", "linf", {"norm": "linf"}),
    ("fab", "l2", {"norm": "l2", "steps": 30}),
    ("fab", "linf", {"steps": 30}),
    ("fab", "l1", {"norm": "l1", "steps": 30}),
    ("carlini-wagner", "l2", {"steps": 120, "searches": 6}),
    ("ddn", "l2", {}),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These images are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(victim):
    """Weight rows of a linear classifier, float64 [K, D]."""
    return victim.network.dense.weight.double()


def far_batch(victim, count=8, seed=0):
    """Grey noise pushed 20 levels towards a class, so that the nearest adversarial is many levels away."""
    generator = torch.Generator().manual_seed(seed)
    w = rows_of(victim).view(len(victim.classes), 3, victim.size, victim.size)
    noise = torch.randint(90, 166, (count, *w.shape[1:]), generator=generator)
    which = torch.randint(len(w), (count,), generator=generator)
    others = (w.sum(0) - w[which]) / (len(w) - 1)
    pixels = (noise + 20 * (w[which] - others).sign()).to(torch.uint8)
    labels = predict(victim, pixels).argmax(1)
    return Batch(ids=tuple(f"far {i}" for i in range(count)), pixels=pixels, labels=labels)


def nearest(victim, batch, norm, sure=0.0):
    """Distance to where another class leads by `sure`, float64 [N]: the lead over the weights' dual norm."""
    w, logits, out = rows_of(victim), predict(victim, batch.pixels).double(), []
    for x, z, label in zip(batch.images.double().flatten(1), logits, batch.labels, strict=True):
        others = [k for k in range(len(w)) if k != label]
        out.append(min(plane_distance(x, w[k] - w[label], z[label] - z[k] + sure, norm) for k in others))
    return torch.stack(out)


def plane_distance(x, w, lead, norm):
    """How far the lead is lost; in L1 the heaviest channels go first, each as far as it has room."""
    if norm != "l1":
        return lead / (w.norm() if norm == "l2" else w.abs().sum())
    room, order = torch.where(w > 0, 1 - x, x), w.abs().argsort(descending=True)
    gain = (w.abs() * room)[order].cumsum(0)
    full = int((gain < lead).sum())
    left = lead - (gain[full - 1] if full else 0)
    return room[order[:full]].sum() + left / w.abs()[order[full]]


def nearest_target(victim, batch, targets):
    """L2 distance to the region of a target class, by trying every set of boundaries that may bind."""
    w, logits, out = rows_of(victim), predict(victim, batch.pixels).double(), []
    for z, target in zip(logits, targets, strict=True):
        others = [k for k in range(len(w)) if k != target]
        normals, leads = w[target] - w[others], z[others] - z[target]
        found = []
        for size in range(1, len(others) + 1):
            for chosen in itertools.combinations(range(len(others)), size):
                some = normals[list(chosen)]
                change = some.T @ torch.linalg.solve(some @ some.T, leads[list(chosen)])
                if bool((normals @ change >= leads - 1e-9).all()):
                    found.append(change.norm())
        out.append(min(found))
    return torch.stack(out)


def measured(hit, norm):
    value = getattr(hit.distance, norm).double()
    return value / 255 if norm == "linf" else value


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("name", "norm", "settings"), MINIMAL)
def test_minimal_norm_attacks_find_the_nearest_adversarial_of_a_linear_model(name, norm, settings, classes):
    victim = linear_classifier(size=8, classes=classes, seed=classes, scale=0.2)
    batch = far_batch(victim)
    least = nearest(victim, batch, norm)
    hit = attack(victim, batch, make(name, **settings))
    assert hit.success.all()
    ratio = measured(hit, norm) / least
    assert ratio.min() > 1 - 1e-4, "nothing is nearer than the nearest"
    assert ratio.max() < 1.25
    assert (hit.step >= 0).all()


@pytest.mark.parametrize(("name", "norm", "settings"), MINIMAL)
def test_minimal_norm_attacks_reach_the_least_likely_class(name, norm, settings):
    victim = linear_classifier(size=8, classes=4, seed=1, scale=0.5)
    batch = labelled_batch(victim, 12, seed=1)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]
    hit = attack(victim, batch, make(name, **settings), targets=targets)
    assert torch.equal(hit.logits.argmax(1), targets)
    assert hit.success.all()
    if norm == "l2":
        ratio = measured(hit, norm) / nearest_target(victim, batch, targets)
        assert ratio.min() > 1 - 1e-4
        assert ratio.max() < 1.25


@pytest.mark.parametrize("name", ["deepfool", "fab"])
def test_leading_classes_suffice_where_there_are_many(name):
    victim = linear_classifier(size=8, classes=6, seed=6, scale=0.2)
    batch = far_batch(victim)
    hit = attack(victim, batch, make(name, norm="l2", steps=10, classes=3))
    assert hit.success.all()
    assert (measured(hit, "l2") / nearest(victim, batch, "l2")).max() < 1.25
    assert hit.backwards.max() <= 2 * 10


@pytest.mark.parametrize(("name", "norm", "settings"), MINIMAL)
def test_minimal_norm_attacks_reach_the_confidence_asked_for(name, norm, settings):
    victim = linear_classifier(size=8, classes=4, seed=4, scale=0.2)
    batch = far_batch(victim)
    plain = attack(victim, batch, make(name, **settings))
    sure = attack(victim, batch, make(name, **settings), criterion=Criterion(margin=5.0))
    margin = untargeted(batch.labels).margin
    assert sure.success.all()
    assert margin(sure.logits).min() >= 5
    assert margin(plain.logits).max() < 5, "what was not asked for is not paid for"
    assert (measured(sure, norm) / nearest(victim, batch, norm, 5.0)).max() < 1.25


def test_carlini_wagner_treats_each_image_by_itself():
    victim = linear_classifier(size=8, classes=4, seed=4, scale=0.2)
    batch, method = far_batch(victim, 6), make("carlini-wagner", steps=60, searches=5)
    together = attack(victim, batch, method)
    assert together.forwards.unique().numel() > 1, "images give up at different times"
    for row in range(3):
        alone = attack(victim, batch.take([row]), method)
        assert torch.equal(alone.adversarial.pixels[0], together.adversarial.pixels[row])
        assert alone.forwards[0] == together.forwards[row]


def test_fab_restarts_never_lose_what_was_found(small):
    batch = labelled_batch(small, 10)
    one = attack(small, batch, make("fab", norm="l2", steps=15))
    two = attack(small, batch, make("fab", norm="l2", steps=15, restarts=2))
    assert (two.success >= one.success).all()
    both = one.success & two.success
    assert both.any()
    assert (two.distance.l2 - one.distance.l2)[both].max() < 0.02
    assert two.forwards.min() > one.forwards.max()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_beats_deepfool_on_a_curved_boundary(norm):
    victim, batch = trained(4, seed=1)
    quick = attack(victim, batch, make("deepfool", norm=norm))
    near = attack(victim, batch, make("fab", norm=norm, steps=30))
    both = quick.success & near.success
    assert torch.equal(near.success, ~near.skipped)
    ratio = (measured(near, norm) / measured(quick, norm).clamp_min(1e-9))[both]
    assert ratio.max() < 1.02
    assert ratio.mean() < (0.99 if norm == "linf" else 0.97), "whole levels leave less to gain"


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_projection_onto_a_plane_solves_the_linear_program(norm):
    rng = np.random.default_rng(0)
    x, w = rng.random((20, 12)), rng.normal(size=(20, 12))
    w[:, 0] = 0
    x[:3], rise = np.round(x[:3]), rng.normal(size=20)
    reach = np.where(rise[:, None] < 0, np.maximum(-w * (1 - x), w * x), np.maximum(w * (1 - x), -w * x)).sum(1)
    rise = np.clip(rise, -0.95 * reach, 0.95 * reach)
    given = [torch.from_numpy(a).view(20, 3, 2, 2) for a in (x, w)]
    change = onto_plane(*given, torch.from_numpy(rise), norm).flatten(1).numpy()
    assert (x + change).min() > -1e-9
    assert (x + change).max() < 1 + 1e-9
    assert np.allclose((w * change).sum(1), rise, atol=1e-6)
    eye, ones = np.eye(12), -np.ones((12, 1))
    for i in range(20):
        bound = ones if norm == "linf" else -eye  # one bound of all channels, or one of each
        count = bound.shape[1]
        found = linprog(
            np.r_[np.zeros(12), np.ones(count)],
            A_ub=np.vstack([np.hstack([eye, bound]), np.hstack([-eye, bound])]),
            b_ub=np.zeros(24),
            A_eq=np.r_[w[i], np.zeros(count)][None],
            b_eq=[rise[i]],
            bounds=[*zip(-x[i], 1 - x[i], strict=True), *[(0, None)] * count],
        )
        size = np.abs(change[i]).max() if norm == "linf" else np.abs(change[i]).sum()
        assert size == pytest.approx(found.fun, abs=1e-6)


def test_the_l2_projection_onto_a_plane_is_one_multiple_of_the_weights_clipped():
    """The optimality conditions: on the plane, and channels that are not at the edge move by t times their weight."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((30, 3, 4, 4), generator=generator, dtype=torch.float64)
    w = torch.randn((30, 3, 4, 4), generator=generator, dtype=torch.float64)
    rise = torch.linspace(-7, 7, 30, dtype=torch.float64)
    change = onto_plane(x, w, rise, "l2")
    assert torch.allclose((w * change).flatten(1).sum(1), rise)
    inside = (x + change > 1e-9) & (x + change < 1 - 1e-9)
    assert (~inside).any()
    for one, weight, free in zip(change, w, inside, strict=True):
        factor = (one / weight)[free]
        assert torch.allclose(factor, factor.mean().expand_as(factor))
        assert ((one / weight)[~free].abs() <= factor.mean().abs() + 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_plane_out_of_reach_leads_to_the_corner_and_no_slope_to_nothing(norm):
    x = torch.rand((2, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    w = torch.randn((2, 3, 2, 2), generator=torch.Generator().manual_seed(2))
    w[1] = 0
    change = onto_plane(x, w, torch.tensor([99.0, 99.0]), norm)
    assert torch.allclose(x[0] + change[0], (w[0] > 0).float(), atol=1e-6)
    assert not change[1].any()


def lead_left(victim, images, labels):
    """The label's lead over the other class of two, float64 [N]."""
    logits = images.double().flatten(1) @ rows_of(victim).T + victim.network.dense.bias.double()
    return -untargeted(labels).margin(logits)


@pytest.mark.parametrize("name", ["mifgsm", "apgd"])
def test_maximum_norm_attacks_reach_the_corner_of_the_ball_on_a_linear_model(name, linear):
    batch = labelled_batch(linear, 12)
    hit = attack(linear, batch, make(name, eps="2/255"))
    w = rows_of(linear)
    lowest = lead_left(linear, batch.images, batch.labels) - 2 / 255 * (w[1] - w[0]).abs().sum()
    assert (lowest > 0).any()
    assert torch.equal(hit.success, lowest < 0)
    left = lead_left(linear, hit.adversarial.images, batch.labels)
    assert torch.allclose(left[lowest > 0], lowest[lowest > 0], atol=1e-4)


def test_apgd_reaches_the_surface_of_the_l2_ball_on_a_linear_model():
    linear = linear_classifier(size=8, seed=2, scale=0.2)
    batch = far_batch(linear, 12)  # changes of many levels, of which rounding takes little
    lead, w = lead_left(linear, batch.images, batch.labels), rows_of(linear)
    eps = float(lead.median() / (w[1] - w[0]).norm())
    hit = attack(linear, batch, make("apgd", eps=eps, norm="l2", steps=20))
    ratio = lead / (w[1] - w[0]).norm() / eps
    assert hit.success[ratio < 0.98].all()
    assert not hit.success[ratio > 1].any()
    left = lead_left(linear, hit.adversarial.images, batch.labels)
    share = (lead - left) / (eps * (w[1] - w[0]).norm())
    assert share[ratio > 1].min() > 0.98
    assert (ratio > 1.05).any()


def saturating(seed=0, size=8):
    """Two classes and gradients whose size changes much along the way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Linear(3 * size * size, 12), nn.Linear(12, 2)
        first.weight.data *= 12
        network = nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)
    return wrap(network, classes=["a", "b"], size=size, mean=(0.5,) * 3)


def test_mifgsm_follows_the_published_recursion():
    victim = saturating()
    batch = labelled_batch(victim, 100)
    eps, steps, labels = 4 / 255, 4, batch.labels
    hit = attack(victim, batch, make("mifgsm", eps=eps, steps=steps))
    x, total, best = batch.images, torch.zeros_like(batch.images), torch.full((100,), -torch.inf)
    expected = x.clone()
    for step in range(steps + 1):
        leaf = x.clone().requires_grad_(True)
        logits = victim(leaf)
        margin = untargeted(labels).margin(logits.detach())
        expected[margin > best], best = x[margin > best], torch.maximum(margin, best)
        if step < steps:
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), leaf)
            total = total + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
            x = batch.images + (x + eps / steps * total.sign() - batch.images).clamp(-eps, eps)
    stands = ~hit.success
    assert stands.sum() > 5
    assert ((hit.adversarial.images - expected)[stands].abs() < 0.01 / 255).float().mean() > 0.999


def test_momentum_matters_and_none_is_the_basic_method(small):
    batch = labelled_batch(small, 6)
    eps, settings = "4/255", {"eps": "4/255", "steps": 4}
    basic = attack(small, batch, make("bim", eps=eps, step="1/255", steps=4))
    without = attack(small, batch, make("mifgsm", momentum=0.0, **settings))
    stands = ~basic.success
    assert stands.any()
    assert torch.equal(without.adversarial.pixels[stands], basic.adversarial.pixels[stands])
    heavy = attack(small, batch, make("mifgsm", **settings))
    assert not torch.equal(heavy.adversarial.pixels[stands], basic.adversarial.pixels[stands])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_apgd_is_never_weaker_than_one_step_of_the_same_radius(classes, seed):
    victim = small_classifier(classes=classes, seed=seed)
    batch = labelled_batch(victim, 24, seed=seed)
    margin = untargeted(batch.labels).margin
    for eps in (3 / 255, 12 / 255):
        fast = attack(victim, batch, make("fgsm", eps=eps, ramp=False))
        strong = attack(victim, batch, make("apgd", eps=eps, steps=10))
        ramp = attack(victim, batch, make("fgsm", eps=eps))
        assert (strong.success >= (fast.success | ramp.success)).all()
        stands = ~strong.success
        assert ((margin(strong.logits) - margin(fast.logits))[stands] > -1e-3).all()


class Hill(nn.Module):
    """The label leads by 1 + the squared distance to a summit: the best image is the summit itself."""

    def __init__(self, summit):
        super().__init__()
        self.summit = nn.Parameter(summit, requires_grad=False)

    def forward(self, x):
        lead = 1 + (x - self.summit).square().flatten(1).sum(1)
        return torch.stack([lead, torch.zeros_like(lead)], 1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.3)])
def test_apgd_shortens_its_steps_until_it_stands_on_the_summit(norm, eps):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(64, 192, (1, 3, 8, 8), generator=generator)
    summit = (pixels + torch.randint(-5, 6, pixels.shape, generator=generator)) / 255
    batch = Batch(ids=("valley",), pixels=pixels.to(torch.uint8), labels=torch.tensor([0]))
    hit = attack(wrap(Hill(summit), classes=["a", "b"], size=8), batch, make("apgd", eps=eps, norm=norm))
    assert not hit.success.any()
    assert (hit.adversarial.images - summit).abs().max() * 255 < 1.01
    assert ((hit.adversarial.images - summit).abs() * 255 < 0.5).float().mean() > 0.95


def test_apgd_reviews_its_steps_at_the_published_checkpoints():
    assert periods(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_apgd_reaches_the_least_likely_class_with_every_loss(loss):
    victim = linear_classifier(size=8, classes=4, seed=1, scale=0.5)
    batch = labelled_batch(victim, 12, seed=1)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]
    hit = attack(victim, batch, make("apgd", eps="20/255", loss=loss, steps=20), targets=targets)
    assert torch.equal(hit.success, hit.logits.argmax(1) == targets)
    assert hit.success.all()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_apgd_towards_one_class_after_another_works_with_any_number_of_classes(classes):
    victim = linear_classifier(size=8, classes=classes, seed=1, scale=0.5)
    batch = far_batch(victim, 12)
    eps = float(nearest(victim, batch, "linf").max()) + 2 / 255
    hit = attack(victim, batch, make("apgd", eps=eps, loss="dlr", target_classes=9, steps=10))
    assert hit.success.all()


def test_losses_that_need_more_classes_say_what_to_write(linear, small):
    with pytest.raises(InvalidInput, match=r"needs 3 classes or more, and there are 2\. Write loss='margin'"):
        attack(linear, labelled_batch(linear), make("apgd", loss="dlr"))
    batch = labelled_batch(small)
    with pytest.raises(InvalidInput, match=r"needs 4 classes or more, and there are 3\. Write loss='margin'"):
        attack(small, batch, make("apgd", loss="dlr"), targets=(batch.labels + 1) % 3)
    attack(small, batch, make("apgd", loss="dlr", steps=1))


def test_the_ratio_of_logits_has_no_scale_and_the_sign_of_the_goal():
    logits = torch.randn((50, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for goal in (untargeted(logits[:, :4].argmax(1)), Goal(labels=torch.arange(50) % 5, targeted=True)):
        value = dlr(logits, goal)
        assert torch.allclose(value, dlr(logits * 1000 + 7, goal))
        assert torch.equal(value > 0, goal.reached(logits))
    z = torch.tensor([[4.0, 3.0, 1.0, 0.0]])
    assert float(dlr(z, untargeted(torch.tensor([0])))) == pytest.approx(-(4 - 3) / (4 - 1))
    own, aims = untargeted(torch.tensor([0])), torch.tensor([2])
    assert float(towards("dlr", aims, 4)(z, own)) == pytest.approx(-(4 - 1) / (4 - (1 + 0) / 2))
    assert float(towards("margin", aims, 4)(z, own)) == -3
    assert float(towards("dlr", aims, 3)(z[:, :3], own)) == -3
    assert named("dlr", 3, targeted=False, who="x") is dlr


def test_apgd_asks_no_more_about_an_image_that_has_fallen(small):
    batch = labelled_batch(small, 16)
    eps = 9 / 255
    once = attack(small, batch, make("apgd", eps=eps, steps=10))
    thrice = attack(small, batch, make("apgd", eps=eps, steps=10, restarts=3))
    fell = once.success
    assert fell.any()
    assert not fell.all()
    assert torch.equal(once.forwards[fell], thrice.forwards[fell])
    assert torch.equal(once.adversarial.pixels[fell], thrice.adversarial.pixels[fell])
    assert (once.forwards[~fell] >= 11).all()
    assert (thrice.forwards[~thrice.success] > 2.5 * 11).all()


def test_a_loss_may_hold_one_value_per_question_when_the_budget_allows_only_some(linear):
    batch = labelled_batch(linear, 3)
    access = WhiteBox(linear, untargeted(batch.labels), batch.images, budget=Budget(forwards=1))
    access.logits(batch.images[:1], torch.tensor([0]))
    aims = torch.tensor([0, 1, 0])
    gradient, _ = access.gradient(batch.images, torch.arange(3), lambda z, _: z.gather(1, aims[:, None])[:, 0])
    w = rows_of(linear).float().view(2, 3, 12, 12)
    assert not gradient[0].any()
    assert torch.allclose(gradient[1:], w[aims[1:]])


def trained(classes, seed, size=8):
    """A small network, and images it has not seen: a faint pattern per class under noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        convolutions = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1)]
        network = nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(16 * (size // 2) ** 2, classes))
        pattern = 0.08 * torch.randn(classes, 3, size, size).sign()
        labels = torch.randint(classes, (512,))
        images, unseen = ((0.5 + pattern[labels] + 0.15 * torch.randn(512, 3, size, size)).clamp(0, 1) for _ in "ab")
        optimiser = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(60):
            some = torch.randint(512, (64,))
            optimiser.zero_grad()
            F.cross_entropy(network(images[some] - 0.5), labels[some]).backward()
            optimiser.step()
    victim = wrap(network.eval(), classes=[str(k) for k in range(classes)], size=size, mean=(0.5,) * 3)
    return victim, Batch.from_images(ids=[str(i) for i in range(24)], images=unseen[:24], labels=labels[:24])


@pytest.mark.parametrize(
    ("classes", "norm", "eps"), [(2, "linf", 6 / 255), (2, "l2", 0.35), (4, "linf", 4 / 255), (4, "l2", 0.25)]
)
def test_the_ensemble_is_never_weaker_than_long_pgd(monkeypatch, classes, norm, eps):
    """With the standard steps of APGD, and less of all else than the standard effort."""
    monkeypatch.setitem(EFFORTS, "quick", (100, 20, 300))
    victim, batch = trained(classes, seed=1)
    long = attack(victim, batch, make("pgd", eps=eps, norm=norm, step=eps / 4, steps=100, restarts=10))
    hit = attack(victim, batch, make("ensemble", eps=eps, norm=norm, effort="quick"))
    assert 0 < int(long.success.sum()) < long.attempted
    assert not (long.success & ~hit.success).any()
    size = hit.distance.linf / 255 if norm == "linf" else hit.distance.l2
    assert size.max() <= eps + 1e-6


def test_the_ensemble_finds_the_class_that_the_untargeted_gradient_overlooks():
    victim = small_classifier(classes=4, seed=0)
    batch = labelled_batch(victim, 24)
    long = attack(victim, batch, make("pgd", eps="4/255", step="1/255", steps=40, restarts=2))
    hit = attack(victim, batch, make("ensemble", eps="4/255", effort="quick"))
    assert (hit.success >= long.success).all()
    members = hit.trace["member"]
    assert (members == 1).any(), "the targeted member adds to the first"
    assert torch.equal(members >= 0, hit.success)
    assert torch.equal(hit.step >= 0, hit.success)
    assert hit.forwards[members == 0].max() < hit.forwards[members != 0].min(), "later members leave them alone"


@pytest.mark.parametrize("classes", [2, 4])
def test_the_ensemble_is_not_deceived_by_masked_gradients(classes):
    class Masked(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network((x * 255).round() / 255)  # a gradient of 0 everywhere

    open_, batch = trained(classes, seed=1)
    victim = wrap(Masked(open_.network), classes=open_.classes, size=8, mean=(0.5,) * 3)
    eps = 8 / 255
    assert not attack(victim, batch, make("pgd", eps=eps, random_start=False)).success.any()
    hit = attack(victim, batch, make("ensemble", eps=eps, effort="quick"))
    assert hit.success.any()
    assert (hit.trace["member"][hit.success] == 3).all()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_ensemble_reaches_targets(classes):
    victim = small_classifier(classes=classes, seed=2)
    batch = labelled_batch(victim, 8, seed=5)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]
    hit = attack(victim, batch, make("ensemble", eps="60/255", effort="quick"), targets=targets)
    assert torch.equal(hit.success, hit.logits.argmax(1) == targets)
    assert hit.success.float().mean() > 0.8


def test_with_pixels_the_threat_model_is_a_union(monkeypatch):
    victim = linear_classifier(size=8, classes=2, seed=3, scale=0.3)
    batch = labelled_batch(victim, 16, seed=1)
    monkeypatch.setattr("heatprint.attacks.ensemble.OnePixel", lambda pixels: make("one-pixel", pixels=pixels,
                        population=60, generations=6))  # fmt: skip
    both = attack(victim, batch, make("ensemble", eps="1/255", pixels=2, effort="quick"))
    member = both.trace["member"]
    few = member == 4
    assert few.any()
    assert both.success[few].all()
    assert (both.distance.l0[few] <= 2).all()
    assert (both.distance.linf[few] > 1).all()
    assert (both.distance.linf[~few & both.success] <= 1).all()


def test_members_draw_their_own_numbers_for_each_image(monkeypatch, small):
    """Whoever else stands, an image gets the same: the streams of a subset are those of its ids."""
    seen = []
    original = Streams.of
    monkeypatch.setattr(
        Streams, "of", lambda self, row, counter=0: seen.append((self.purpose, self.ids[row])) or original(self, row)
    )
    batch = labelled_batch(small, 6)
    hit = attack(small, batch, make("ensemble", eps="3/255", effort="quick"))
    drew = {(purpose.rpartition(":")[2], name) for purpose, name in seen}
    assert {member for member, _ in drew} == {"apgd-t", "square"}
    stood = {batch.ids[i] for i in range(6) if hit.trace["member"][i] in (-1, 3)}
    assert {name for member, name in drew if member == "square"} == stood


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mifgsm", {"momentum": -1.0}),
        ("mifgsm", {"eps": 8.0}),
        ("deepfool", {"steps": 0}),
        ("deepfool", {"norm": "l1"}),
        ("carlini-wagner", {"rate": 0.0}),
        ("carlini-wagner", {"searches": 0}),
        ("apgd", {"loss": "square"}),
        ("apgd", {"target_classes": -1}),
        ("fab", {"eta": 0.5}),
        ("fab", {"norm": "l0"}),
        ("ensemble", {"effort": "slow"}),
        ("ensemble", {"pixels": -1}),
        ("ensemble", {"norm": "l0"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        make(name, **settings)
