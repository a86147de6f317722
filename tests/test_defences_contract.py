"""The contract of the room `defences`: every registered method keeps it, and no broken promise slips through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from heatprint import defences
from heatprint.attacks import attack
from heatprint.attacks.pgd import PGD
from heatprint.core.digest import digest
from heatprint.core.errors import BrokenContract, InvalidInput, ModelMismatch
from heatprint.data.sources import draw_batch
from heatprint.defences import DEFENCES, defend
from heatprint.defences.adversarial.watch import Watch
from heatprint.defences.distil import Distil
from heatprint.defences.regenerate import NamedAttack
from heatprint.defences.retrain import FINE_TUNE
from heatprint.models import load, wrap
from heatprint.models.checkpoint import save
from heatprint.models.parts.bits import Bits
from heatprint.testing import check_defence

pytestmark = pytest.mark.filterwarnings("ignore::heatprint.defences.adversarial.watch.CollapseWarning")

SHORT = replace(FINE_TUNE, stages=((1, 0),), batch=8, label_smoothing=0.0)
WATCH = Watch(steps=2, gap=1.0, fall=1.0)
WATCHED = {"training": SHORT, "watch": WATCH}
QUICK = {
    "contractive": {"training": SHORT},
    "denoise": {"training": SHORT, "steps": 1, "channels": 2},
    "distil": {"training": SHORT},
    "dropout": {"passes": 2},
    "ensemble": {"training": SHORT, "members": 2, "attacks": ("pgd",)},
    "fast": WATCHED,
    "free": {**WATCHED, "replays": 2},
    "mart": {**WATCHED, "steps": 1},
    "mixed": {**WATCHED, "steps": 1, "tries": 1},
    "pgd": {**WATCHED, "steps": 1, "awp": 0.01},
    "regenerate": {**WATCHED, "methods": (NamedAttack(method="fgsm"),), "sample": 8},
    "retrain": {"training": SHORT, "attacks": ("fgsm", "pgd")},
    "smoothing": {"training": SHORT, "draws": 2},
    "trades": {**WATCHED, "steps": 1},
    "transform": {"strength": 3},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks wait for a second thread longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", DEFENCES.names())
def test_every_defence_keeps_its_contract(name):
    check_defence(DEFENCES.load(name)(**QUICK.get(name, {})))


@pytest.fixture(scope="module")
def start():
    return load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)


@pytest.fixture(scope="module")
def images():
    return draw_batch(16, "training_set", size=32, seed=0)


TRAINED = sorted(name for name, settings in QUICK.items() if "training" in settings)


def failed(method, start, images):
    """Attacks without a success, under each name the method learns from."""
    return {name: attack(start, images, PGD(eps=0.0, steps=1)) for name in getattr(method, "attacks", ())}


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_that_overflows_is_an_error_that_says_so(name, start, images):
    much = replace(SHORT, lr=1e30, optimiser="sgd", schedule="constant", stages=((2, 0),))
    method = DEFENCES.load(name)(**{**QUICK[name], "training": much})
    with pytest.raises((InvalidInput, ModelMismatch), match="not finite"):
        defend(start, images, method, attacked=failed(method, start, images))


@pytest.mark.parametrize("name", TRAINED)
def test_the_usual_recipe_ends_at_the_size_of_the_classifier(name):
    usual = DEFENCES.load(name)(**{k: v for k, v in QUICK[name].items() if k != "training"}).training
    assert usual.stages[-1][1] == 0


@pytest.mark.parametrize("name", ["pgd", "regenerate", "retrain"])
def test_size_0_is_the_size_of_the_classifier(name, start, images):
    spelled = replace(SHORT, stages=((1, 32),))
    one, two = (DEFENCES.load(name)(**{**QUICK[name], "training": recipe}) for recipe in (SHORT, spelled))
    attacked = failed(one, start, images)
    found = defend(start, images, one, attacked=attacked).digest
    assert found == defend(start, images, two, attacked=attacked).digest
    assert found != start.digest


def test_an_attack_without_a_success_teaches_an_ensemble_nothing(start, images):
    method = DEFENCES.load("ensemble")(**QUICK["ensemble"])
    control = replace(method, attacks=())
    found = defend(start, images, method, attacked=failed(method, start, images))
    assert found.digest == defend(start, images, control).digest


def test_an_image_left_over_is_no_step_and_progress_still_reaches_its_end(start):
    told = []
    defend(start, draw_batch(17, "training_set", size=32, seed=0), DEFENCES.load("contractive")(training=SHORT),
           progress=lambda done, total, note="": told.append((done, total)))  # fmt: skip
    assert told[-1] == (2, 2)


def test_a_defence_that_changes_its_argument_is_refused_at_the_door(start, images):
    """The networks themselves are looked at: the digest of a classifier is computed once."""
    for part in ("network", "trainable"):
        victim = replace(start, network=copy.deepcopy(start.network), trainable=copy.deepcopy(start.trainable))

        def spoils(classifier, seed, part=part):
            next(getattr(classifier, part).parameters()).data += 1e-3
            return shifted(classifier, seed)

        with pytest.raises(BrokenContract, match="changed its argument"):
            defend(victim, images, Own(how=spoils))


# A teacher that changes


def test_a_teacher_is_part_of_what_results_are_kept_by(start, images, tmp_path):
    save(start, tmp_path)
    first = Distil(teacher=str(tmp_path), training=SHORT)
    assert digest(first) == digest(Distil(teacher=str(tmp_path), training=SHORT))
    assert first.taught_by == start.digest
    save(load("vgg-slim", classes=start.classes, size=32, seed=1), tmp_path)
    second = Distil(teacher=str(tmp_path), training=SHORT)
    assert digest(first) != digest(second)
    assert digest(DEFENCES.make("distil", teacher=str(tmp_path), training=vars(SHORT))) == digest(second)
    with pytest.raises(InvalidInput, match="another classifier than when the method was made"):
        defend(start, images, first)
    assert defend(start, images, second).classes == start.classes


# Broken defences


@dataclass(frozen=True, kw_only=True)
class Own:
    """A defence by a function of the classifier and the seed."""

    how: Callable
    strength: float = 1.0
    attacks: tuple = ()
    refuses: bool = True

    def __post_init__(self):
        if self.refuses and not self.strength >= 0:
            raise InvalidInput("Own: strength must be 0 or more.")

    def protect(self, classifier, train_batch, attacked, *, seed, checkpoint, progress):
        self.aside(train_batch, checkpoint, progress)
        return self.how(classifier, seed)

    def aside(self, train_batch, checkpoint, progress):
        """What is done beside the defence itself."""
        progress(1, 1)


def remade(classifier, network):
    return wrap(network, classes=classifier.classes, size=classifier.size, mean=classifier.mean, std=classifier.std,
                architecture=classifier.architecture)  # fmt: skip


def shifted(classifier, seed, by=0.01):
    """A defence that keeps every promise: weights moved a little."""
    network = copy.deepcopy(classifier.trainable)
    draws = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.data += by * torch.randn(weight.shape, generator=draws)
    return remade(classifier, network)


def learning(classifier, seed):
    safe = shifted(classifier, seed)
    safe.network.train()
    return safe


def unfrozen(classifier, seed):
    safe = shifted(classifier, seed)
    safe.trainable.requires_grad_(True)
    return safe


def unsaved(classifier, seed):
    return replace(shifted(classifier, seed), architecture="")


def misread(classifier, seed):
    """Its architecture says less than it does: a filter that is forgotten when it is loaded."""
    safe = shifted(classifier, seed)
    return replace(safe, network=torch.nn.Sequential(Bits(3), safe.network).eval())


def hooked(classifier, seed):
    classifier.network.register_forward_hook(lambda *_: None)
    return shifted(classifier, seed)


def renamed(classifier, seed):
    return replace(shifted(classifier, seed), classes=("dogs", "cats"))


def endless(classifier, seed):
    safe = shifted(classifier, seed)
    with torch.no_grad():
        [*safe.network.parameters()][-1][0] = torch.inf
    return safe


def once(classifier, seed):
    if classifier.name != "vgg-slim":
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    return shifted(classifier, seed)


BROKEN = {
    "changed its argument": hooked,
    "changed the classes": renamed,
    "finite logits": endless,
    "in evaluation mode": learning,
    "frozen and without gradients": unfrozen,
    "can be saved": unsaved,
    "answers the same when it is loaded": misread,
    "repeats itself": lambda classifier, seed: shifted(classifier, int(torch.randint(1000, ()))),
    "stands on a defended classifier": once,
}


def test_a_defence_of_ones_own_passes(start):
    check_defence(Own(how=shifted))
    check_defence(Own(how=shifted, attacks=("mine",)), start)
    own = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    check_defence(Own(how=shifted), wrap(own, classes=("a", "b"), size=16))  # which cannot be saved


@pytest.mark.parametrize("promise", BROKEN)
def test_a_defence_that_breaks_a_promise_is_refused(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_defence(Own(how=BROKEN[promise]))


def test_a_clear_error_on_a_defended_classifier_is_as_good():
    def refuses(classifier, seed):
        if classifier.name != "vgg-slim":
            raise InvalidInput("Own: one defence is enough.")
        return shifted(classifier, seed)

    check_defence(Own(how=refuses))


def leaves(train_batch, checkpoint, progress):
    progress(1, 1)
    if checkpoint is not None:
        checkpoint.with_name("more").write_text("x")


def writes(train_batch, checkpoint, progress):
    progress(1, 1)
    train_batch.pixels[0] = 0


def stops_short(train_batch, checkpoint, progress):
    progress(1, 2)


def turns_back(train_batch, checkpoint, progress):
    progress(2, 2)
    progress(1, 2)
    progress(2, 2)


ASIDE = {
    "leaves no file behind": leaves,
    "writes nothing into the images": writes,
    "progress up to the total": stops_short,
    "never goes back": turns_back,
    "tells its progress": lambda train_batch, checkpoint, progress: None,
}


@pytest.mark.parametrize("promise", ASIDE)
def test_what_is_done_beside_the_defence_is_watched(promise):
    class Beside(Own):
        aside = staticmethod(ASIDE[promise])

    with pytest.raises(BrokenContract, match=promise):
        check_defence(Beside(how=shifted))


def test_settings_that_cannot_be_meant_must_be_refused():
    with pytest.raises(BrokenContract, match=r"refuses strength = -1\.0 by InvalidInput"):
        check_defence(Own(how=shifted, refuses=False))


def test_the_room_lists_its_methods():
    assert set(QUICK) <= set(defences.names())
