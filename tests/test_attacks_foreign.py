"""Attacks of torchattacks, Foolbox and ART through our door: their results, our counts, nobody's state."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from heatprint.attacks import ATTACKS, adapt, attack, make
from heatprint.attacks.access import ScoreAccess, WhiteBox
from heatprint.attacks.foreign.view import Spent, View, seeded
from heatprint.attacks.ledger import Budget
from heatprint.core.digest import digest
from heatprint.core.errors import BrokenContract, InvalidInput, MissingExtra, UnknownName
from heatprint.core.goals import untargeted
from heatprint.core.lattice import to_pixels
from heatprint.core.streams import stream
from heatprint.models import predict, wrap
from heatprint.study.recipe import AttackTable
from heatprint.testing import Residual, check_attack, labelled_batch, linear_classifier, small_classifier

EPS = 8 / 255


class Whole(nn.Module):
    """A classifier as an ordinary network of images in [0, 1], for the libraries alone."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier, self.network, self.calls = classifier, classifier.network, 0

    def forward(self, images):
        self.calls += len(images)
        return self.classifier(images)


def art_estimator(network, classes, size):
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=network,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, size, size),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def alone(library, classifier, batch, one_step):
    """What the library makes of a batch without us, before rounding, and the object that made it."""
    network = Whole(classifier).eval()
    if library == "torchattacks":
        ta = pytest.importorskip("torchattacks")
        made = ta.FGSM(network, eps=EPS) if one_step else ta.PGD(network, eps=EPS, steps=5, random_start=False)
        return made(batch.images, batch.labels).detach(), made
    if library == "foolbox":
        fb = pytest.importorskip("foolbox")
        made = fb.attacks.LinfFastGradientAttack() if one_step else fb.attacks.LinfPGD(steps=5, random_start=False)
        victim = fb.PyTorchModel(network, bounds=(0, 1), device="cpu")
        return made(victim, batch.images, batch.labels, epsilons=EPS)[1], made
    pytest.importorskip("art")
    from art.attacks import evasion

    victim = art_estimator(network, len(classifier.classes), classifier.size)
    if one_step:
        made = evasion.FastGradientMethod(victim, eps=EPS)
    else:
        made = evasion.ProjectedGradientDescent(victim, eps=EPS, eps_step=2 / 255, max_iter=5, verbose=False)
    return torch.from_numpy(made.generate(batch.images.numpy(), batch.labels.numpy())), made


NAMED = {
    ("torchattacks", True): {"attack": "FGSM", "settings": {"eps": "8/255"}},
    ("torchattacks", False): {"attack": "PGD", "settings": {"eps": "8/255", "steps": 5, "random_start": False}},
    ("foolbox", True): {"attack": "FGSM", "eps": "8/255"},
    ("foolbox", False): {"attack": "LinfPGD", "eps": "8/255", "settings": {"steps": 5, "random_start": False}},
    ("art", True): {"attack": "FastGradientMethod", "settings": {"eps": "8/255"}},
    ("art", False): {"settings": {"eps": "8/255", "eps_step": "2/255", "max_iter": 5}},
}
CASES = [pytest.param(*case, id=f"{case[0]}-{'fgsm' if case[1] else 'pgd'}") for case in NAMED]


@pytest.mark.parametrize(("library", "one_step"), CASES)
def test_our_door_gives_their_own_result_and_leaves_their_object_alone(library, one_step):
    victim, batch = small_classifier(), labelled_batch(small_classifier(), 6)
    theirs, made = alone(library, victim, batch, one_step)
    network = next(v for v in (getattr(made, "model", None), getattr(made, "estimator", None), made) if v is not None)
    calls, kept = getattr(network, "calls", None), {k: id(v) for k, v in vars(made).items()}
    named = make(library, **NAMED[library, one_step])
    object_ = adapt(made, eps=EPS if library == "foolbox" else None)
    for method in (named, object_):
        hit = attack(victim, batch, method)
        assert torch.equal(hit.adversarial.pixels, to_pixels(theirs))
        assert torch.equal(hit.backwards, torch.full((6,), 1 if one_step else 5))
        extra = {"foolbox": 1, "art": 0 if one_step else 2}.get(library, 0)  # their own predictions before and after
        assert torch.equal(hit.forwards, hit.backwards + extra)
        assert method.taxonomy.scope == "batch"
        assert method.taxonomy.frequency == ("one-time" if one_step else "iterative")
    assert getattr(network, "calls", None) == calls, "the object's own network is not asked"
    assert {k: id(v) for k, v in vars(made).items()} == kept
    assert digest(object_) != digest(named)


def test_equal_objects_have_equal_digests_and_other_settings_another():
    ta = pytest.importorskip("torchattacks")
    network = Whole(small_classifier())
    one, same, other = (adapt(ta.MultiAttack([ta.PGD(network, eps=e), ta.FGSM(network)])) for e in (0.1, 0.1, 0.2))
    assert digest(one) == digest(same) != digest(other)


def test_a_nested_object_asks_only_our_classifier():
    """MultiAttack holds attacks that hold the network: every reference must be replaced, in the copy alone."""
    ta = pytest.importorskip("torchattacks")
    network, victim = Whole(small_classifier(seed=5)), small_classifier()
    inner = [ta.FGSM(network, eps=EPS), ta.PGD(network, eps=EPS, steps=4)]
    made, batch = ta.MultiAttack(inner), labelled_batch(victim, 5)
    hit = attack(victim, batch, adapt(made))
    assert network.calls == 0
    assert (hit.forwards > 0).all()
    assert all(one.model is network for one in inner)


def test_their_normalisation_is_off():
    """The network normalises inside; an object set to normalise would do it twice."""
    ta = pytest.importorskip("torchattacks")
    torch.manual_seed(0)
    victim = wrap(Residual(3), classes="abc", size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    batch = labelled_batch(victim, 4)
    plain, normalising = ta.FGSM(Whole(victim).eval(), eps=EPS), ta.FGSM(Whole(victim).eval(), eps=EPS)
    normalising.set_normalization_used(mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    expected = to_pixels(plain(batch.images, batch.labels))
    assert torch.equal(attack(victim, batch, adapt(normalising)).adversarial.pixels, expected)
    assert normalising._normalization_applied is True


BLACK = {
    "torchattacks square": ("torchattacks", {"attack": "Square", "settings": {"n_queries": 15, "eps": 0.1}}),
    "torchattacks one-pixel": (
        "torchattacks",
        {"attack": "OnePixel", "norm": "l0", "batch": 1, "settings": {"steps": 2, "popsize": 10}},
    ),
    "art square": ("art", {"attack": "SquareAttack", "settings": {"max_iter": 12, "eps": 0.1}}),
    "foolbox noise": ("foolbox", {"attack": "LinfAdditiveUniformNoiseAttack", "eps": 0.1}),
}


@pytest.mark.parametrize("case", BLACK)
def test_black_box_attacks_run_on_scores_alone(case):
    library, settings = BLACK[case]
    pytest.importorskip(library)
    method = make(library, knowledge="score", **settings)
    check_attack(method)
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 5), method)
    assert not hit.backwards.any()
    assert (hit.forwards > 0).all()
    if settings.get("norm") == "l0":
        assert int(hit.distance.l0.max()) == 1


@pytest.mark.parametrize("library", ["art", "foolbox"])
def test_label_only_attacks_run_on_decisions_alone(library):
    pytest.importorskip(library)
    settings = {
        "art": {"attack": "HopSkipJump", "settings": {"max_iter": 2, "max_eval": 40, "init_eval": 10, "norm": 2}},
        "foolbox": {"attack": "BoundaryAttack", "eps": None, "settings": {"steps": 30}},
    }[library]
    method = make(library, knowledge="label", norm="l2", batch=1, **settings)
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 4), method)
    assert hit.success.float().mean() >= 0.5
    assert not hit.backwards.any()
    assert torch.equal(hit.step[hit.success] >= 0, torch.ones(int(hit.success.sum())).bool())


def test_an_undeclared_gradient_is_refused():
    pytest.importorskip("torchattacks")
    victim = small_classifier()
    with pytest.raises(BrokenContract, match="Declare knowledge='white box'"):
        attack(victim, labelled_batch(victim, 3), make("torchattacks", attack="PGD", knowledge="score"))


AIMED = {
    "torchattacks": {"settings": {"eps": 0.3, "alpha": 0.02, "steps": 30}},
    "foolbox": {"eps": 0.3, "settings": {"steps": 30}},
    "art": {"settings": {"eps": 0.3, "eps_step": 0.02, "max_iter": 30}},
}


@pytest.mark.parametrize("library", AIMED)
def test_targets_are_honoured(library):
    pytest.importorskip(library)
    victim = linear_classifier(classes=4)
    batch = labelled_batch(victim, 6)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]  # the least likely class
    hit = attack(victim, batch, make(library, **AIMED[library]), targets=targets)
    assert hit.success.all()
    assert torch.equal(hit.logits.argmax(1), targets)


def test_who_cannot_aim_says_so():
    pytest.importorskip("foolbox")
    pytest.importorskip("torchattacks")
    victim = linear_classifier(classes=4)
    batch = labelled_batch(victim, 3)
    targets = (batch.labels + 1) % 4
    with pytest.raises(InvalidInput, match="LinfFastGradientAttack cannot aim"):
        attack(victim, batch, make("foolbox", attack="LinfFastGradientAttack"), targets=targets)
    method = make("torchattacks", attack="DeepFool", norm="l2")
    assert method.taxonomy.specificity == "untargeted"
    with pytest.raises(InvalidInput, match="cannot aim"):
        attack(victim, batch, method, targets=targets)


@pytest.mark.parametrize("library", ["art", "foolbox", "torchattacks"])
def test_two_classes(library):
    pytest.importorskip(library)
    victim = linear_classifier(classes=2)
    hit = attack(victim, labelled_batch(victim, 4), make(library))
    assert hit.success.all()


def test_a_minimal_attack_of_foolbox_has_no_radius():
    pytest.importorskip("foolbox")
    victim = linear_classifier()
    batch = labelled_batch(victim, 8)
    hit = attack(victim, batch, make("foolbox", attack="L2DeepFoolAttack", eps=None, norm="l2"))
    dense = victim.network.dense
    gap = dense.weight[1] - dense.weight[0]
    nearest = (batch.images.flatten(1) @ gap + dense.bias[1] - dense.bias[0]).abs() / gap.norm()
    assert hit.step.ge(0).all()
    assert (hit.distance.l2.float() - nearest).abs().max() < 0.06  # overshoot and the rounding of the door
    with pytest.raises(InvalidInput, match="LinfPGD needs a radius"):
        make("foolbox", eps=None)


@pytest.mark.parametrize("eps", [0.03, 1.6 / 255])
@pytest.mark.parametrize("library", ["foolbox", "torchattacks", "art"])
def test_rounding_never_leaves_the_radius(library, eps):
    pytest.importorskip(library)
    settings = {
        "foolbox": {"eps": eps},
        "torchattacks": {"settings": {"eps": eps}},
        "art": {"settings": {"eps": eps, "eps_step": eps / 4, "max_iter": 5}},
    }[library]
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 4), make(library, **settings))
    assert int(hit.distance.linf.max()) == int(eps * 255)


@pytest.mark.parametrize("library", ["foolbox", "torchattacks", "art"])
def test_seeds_repeat_and_the_callers_random_state_stays(library):
    pytest.importorskip(library)
    settings = {"art": {"settings": {"num_random_init": 1, "max_iter": 2}}}.get(library, {})
    victim = small_classifier()
    batch, method = labelled_batch(victim, 4), make(library, **settings)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one = attack(victim, batch, method, seed=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    torch.rand(3), np.random.rand(3)
    assert torch.equal(attack(victim, batch, method, seed=1).adversarial.pixels, one.adversarial.pixels)
    assert not torch.equal(attack(victim, batch, method, seed=2).adversarial.pixels, one.adversarial.pixels)


def test_the_random_state_is_put_back_after_an_error():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    def stopped():
        with seeded(stream(0, "x")):
            torch.rand(1), np.random.rand(1)
            raise Spent

    with pytest.raises(Spent):
        stopped()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("library", ["foolbox", "torchattacks", "art"])
def test_one_image_a_call_does_not_depend_on_the_batch(library):
    pytest.importorskip(library)
    settings = {
        "art": {"settings": {"max_iter": 3, "num_random_init": 1}},
        "foolbox": {"settings": {"steps": 5}},
        "torchattacks": {"settings": {"steps": 5}},
    }[library]
    method = make(library, batch=1, **settings)
    assert method.taxonomy.scope == "image"
    check_attack(method)


@pytest.mark.parametrize("library", ["foolbox", "torchattacks", "art"])
def test_a_spent_budget_stops_the_attack_with_the_best_image_it_asked_about(library, monkeypatch):
    pytest.importorskip(library)
    victim = small_classifier()
    batch, calls = labelled_batch(victim, 4), []
    plain = View.forward
    monkeypatch.setattr(View, "forward", lambda self, images: calls.append(len(images)) or plain(self, images))
    hit = attack(victim, batch, make(library), budget=Budget(forwards=4))
    assert torch.equal(hit.forwards, torch.full((4,), 4))
    assert len(calls) == 5, "the first call that nothing answers ends it"
    assert (hit.distance.linf > 0).all()
    free = attack(victim, batch, make(library), budget=Budget(backwards=2))
    assert torch.equal(free.backwards, torch.full((4,), 2))


def test_gradients_through_the_view_are_those_of_the_network_and_are_counted():
    victim = small_classifier()
    batch = labelled_batch(victim, 5)
    images, rows = batch.images, torch.arange(5)
    access = WhiteBox(victim, untargeted(batch.labels), images, budget=Budget(forwards=2, backwards=1))
    view = View(access, images, rows, untargeted(batch.labels), "white box")
    leaf, mirror = images.clone().requires_grad_(True), images.clone().requires_grad_(True)
    view(leaf).square().sum().backward()
    victim(mirror).square().sum().backward()
    assert torch.allclose(leaf.grad, mirror.grad, rtol=1e-4, atol=1e-6)
    assert access.ledger.forwards.tolist() == access.ledger.backwards.tolist() == [1] * 5
    again = images.clone().requires_grad_(True)
    view(again).sum().backward()
    assert not again.grad.any(), "the budget of backward passes is spent"
    assert access.ledger.forwards.tolist() == [2] * 5
    with torch.no_grad(), pytest.raises(Spent):
        view(images)
    last = images.clone().requires_grad_(True)
    access.differentiable(last, rows).sum().backward()  # refused: the clean answer, with a way back
    assert not last.grad.any()
    with pytest.raises(BrokenContract, match="asked for a gradient"):
        ScoreAccess(victim, untargeted(batch.labels), images).differentiable(images, rows)


def test_queries_are_booked_on_the_nearest_image():
    victim = small_classifier()
    batch = labelled_batch(victim, 4)
    images, goal = batch.images, untargeted(batch.labels)
    access = ScoreAccess(victim, goal, images)
    view = View(access, images, torch.arange(4), goal, "score")
    view(images[[2, 0]] + 0.02)
    assert access.ledger.forwards.tolist() == [1, 0, 1, 0]
    view(images + 0.02)
    assert access.ledger.forwards.tolist() == [2, 1, 2, 1]
    view(images[[3, 3, 3, 3]] + 0.01)  # a population of one image, by chance as many as are attacked
    assert access.ledger.forwards.tolist() == [2, 1, 2, 5]
    view(torch.rand(images.shape, generator=torch.Generator().manual_seed(0)))  # noise: near none, so by place
    assert access.ledger.forwards.tolist() == [3, 2, 3, 6]
    assert view(images[:0]).shape == (0, 3)


def test_unknown_names_are_answered_with_the_nearest():
    pytest.importorskip("foolbox")
    for library, wrong, near in (("torchattacks", "PDG", "PGD"), ("art", "HopSkipJumps", "HopSkipJump")):
        pytest.importorskip(library)
        with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
            ATTACKS.load(library)(attack=wrong)
        with pytest.raises(InvalidInput, match=f"Did you mean '{near}'"):
            make(library, attack=wrong)
    with pytest.raises(InvalidInput, match="Did you mean 'alpha'"):
        make("torchattacks", settings={"alhpa": 1})
    with pytest.raises(InvalidInput, match="Did you mean 'L2DeepFoolAttack'"):
        make("foolbox", attack="L2DeepFool", eps=None)
    with pytest.raises(InvalidInput, match="batch"):
        make("torchattacks", batch=0)
    with pytest.raises(InvalidInput, match="knowledge"):
        make("torchattacks", knowledge="grey box")


@pytest.mark.parametrize(
    ("library", "package", "extra"),
    [
        ("torchattacks", "torchattacks", "torchattacks"),
        ("foolbox", "foolbox", "bench"),
        ("art", "adversarial-robustness-toolbox", "bench"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(library, package, extra, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # what Python takes for "not there"
    with pytest.raises(MissingExtra, match=rf"'{package}'.*heatprint\[{extra}\]"):
        make(library)


def test_what_is_no_attack_is_refused():
    with pytest.raises(InvalidInput, match="not an attack object"):
        adapt(nn.Linear(1, 1))
    ta = pytest.importorskip("torchattacks")
    with pytest.raises(InvalidInput, match="is for Foolbox"):
        adapt(ta.PGD(nn.Linear(1, 1)), eps=0.1)


def test_an_art_object_for_other_units_is_refused():
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod

    estimator = art_estimator(Whole(small_classifier()), 3, 16)
    estimator._clip_values = np.array([0.0, 255.0])
    with pytest.raises(InvalidInput, match="clip_values"):
        adapt(FastGradientMethod(estimator, eps=8.0))


def test_a_recipe_can_name_them():
    pytest.importorskip("torchattacks")
    table = AttackTable(
        name="pgd", method="torchattacks", settings={"attack": "PGD", "settings": {"eps": "4/255", "steps": 3}}
    )
    method = table.make()
    assert method.settings == {"eps": 4 / 255, "steps": 3}
    assert digest(method) == digest(table.make())
    assert method.version[0].isdigit()
