"""The report card: every check in both directions on closed forms, the planted zoo flagged, honest networks not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput, ModelMismatch, StoreError
from heatprint.core.goals import untargeted
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.defences.planted import PLANTED
from heatprint.evaluation.card import CHECKS, Card, Effort, Finding, Runs, ThreatModel, card
from heatprint.evaluation.card.black_box import BlackBox, Chance, Transfer
from heatprint.evaluation.card.claims import Adaptive, RoundTrip, SampleSize, Stated
from heatprint.evaluation.card.defended import OldAdversarials, SingleStep
from heatprint.evaluation.card.failure import Indicators, unfinished
from heatprint.evaluation.card.findings import graded, worst
from heatprint.evaluation.card.gradients import Available, Faithful
from heatprint.evaluation.card.loss import EnoughClasses, ScaleInvariance
from heatprint.evaluation.card.outputs import Logits, Randomised
from heatprint.evaluation.card.radius import Iterations, Monotone, Unbounded
from heatprint.models.augment import Augmentation
from heatprint.models.train import Training, train
from heatprint.models.wrap import wrap

SIDE = 16
CLASSES = ("cats", "dogs")
LIGHT = Effort(steps=10, more=15, restarts=2, queries=100, way=12, directions=4, far=32)
TINY = Effort(steps=6, more=8, restarts=1, queries=60, way=8, directions=3, far=24)
STATED = ThreatModel(eps=5 / 255, words="white box, untargeted")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small wait longer for a second thread than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- closed forms: two classes told by the mean of an image ------------------------------------------------------


class Told(nn.Module):
    """Logits (m, -m) with m any function of the images."""

    def __init__(self, margin, scale=1.0):
        super().__init__()
        self.margin, self.scale = margin, scale

    def forward(self, x):
        half = self.scale * self.margin(x) / 2
        return torch.stack([half, -half], 1)


def told(margin, *, scale=1.0, classes=CLASSES):
    """A classifier put together by hand, so that also what `wrap` refuses can be judged."""
    network = Told(margin, scale)
    return Classifier(network=network, trainable=network, classes=classes, size=8, name="closed form")


def flat(n=16, *, level=128):
    """Grey images, labelled as if darkness and light meant the two classes: the first half lighter by 4 levels."""
    pixels = torch.full((n, 3, 8, 8), level, dtype=torch.uint8)
    pixels[: n // 2] += 4
    pixels[n // 2 :] -= 4
    return Batch(ids=tuple(map(str, range(n))), pixels=pixels, labels=(torch.arange(n) >= n // 2).long())


def mean(x):
    return 255 * (x.mean((1, 2, 3)) - 128 / 255)


def runs(classifier, batch=None, *, eps=8 / 255, effort=TINY, **more):
    return Runs(
        classifier, batch or flat(), threat=ThreatModel(eps=eps, **more.pop("threat", {})), effort=effort, **more
    )


HONEST = told(mean)  # falls from 4 levels on; linear


def verdict(check, classifier, batch=None, **more):
    return check.judge(runs(classifier, batch, **more)).verdict


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_an_honest_linear_network_passes_every_check(check):
    found = verdict(check, HONEST, threat={"words": "white box"}, original=HONEST)
    expected = {"sample size": "WARN", "old adversarials, attacked anew": "not applicable"}
    assert found == expected.get(check.name, "PASS")


def test_a_random_output_fails_unless_an_adaptive_attack_answers_it():
    noisy = told(lambda x: mean(x) + 0.1 * torch.randn(len(x)))
    assert verdict(Randomised(), noisy) == "FAIL"
    assert verdict(Randomised(), noisy, adaptive=True) == "WARN"
    assert verdict(Faithful(), noisy) == "not applicable"
    assert verdict(Adaptive(), noisy) == "FAIL"
    assert verdict(Adaptive(), noisy, adaptive=True) == "PASS"


def test_probabilities_fail_and_log_probabilities_pass():
    soft, logs = (replace(HONEST, network=nn.Sequential(HONEST.network, layer))
                  for layer in (nn.Softmax(1), nn.LogSoftmax(1)))  # fmt: skip
    assert (verdict(Logits(), soft), verdict(Logits(), logs)) == ("FAIL", "PASS")
    assert verdict(Logits(), told(lambda x: mean(x) / 1000)) == "PASS"  # near 0, but no probabilities


class Explodes(torch.autograd.Function):
    """The identity with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


@pytest.mark.parametrize(
    "margin",
    [lambda x: mean(x).detach(), lambda x: mean((x * 17).round() / 17), lambda x: mean(Explodes.apply(x)),
     lambda x: mean(x).round()],
    ids=["cut", "rounded colours", "not finite", "rounded margin"],
)  # fmt: skip
def test_a_network_without_a_gradient_fails_and_is_attacked_all_the_same(margin):
    broken = told(margin)
    assert verdict(Available(), broken) == "FAIL"
    assert verdict(Unbounded(), broken) == "FAIL"
    assert verdict(Adaptive(), broken) == "FAIL"
    assert verdict(Adaptive(), broken, adaptive=True) == "PASS"
    assert verdict(Indicators(), broken) == "FAIL"


def test_one_image_without_a_gradient_is_a_warning():
    some = told(lambda x: torch.where(x[:, 0, 0, 0] > 200 / 255, mean(x).detach(), mean(x)))
    batch = flat(64)
    batch.pixels[0, 0, 0, 0] = 255
    assert verdict(Available(), some, batch) == "WARN"
    assert verdict(Available(), HONEST, batch) == "PASS"


def test_a_gradient_that_belongs_to_another_function_fails():
    wrong = told(lambda x: mean(x) - (y := 1000 * x[:, 0].mean((1, 2))) + y.detach())
    explained = Faithful().explained(runs(wrong))
    assert explained < 0.5
    assert verdict(Faithful(), wrong) == "FAIL"
    assert Faithful().explained(runs(HONEST)) == pytest.approx(1, abs=1e-4)
    assert verdict(Faithful(), told(lambda x: mean(x.detach()).round() + 0 * mean(x))) == "FAIL"  # nothing changes


def test_what_square_fells_beyond_a_white_box_fails():
    cut = told(lambda x: mean(x).detach())
    assert verdict(BlackBox(), cut) == "FAIL"
    assert verdict(BlackBox(), HONEST) == "PASS"
    assert verdict(BlackBox(), cut, eps=2 / 255) == "PASS"  # no image of this radius is of another class


def test_what_transfers_beyond_a_white_box_fails():
    cut = told(lambda x: mean(x).detach())
    assert verdict(Transfer(), cut, original=HONEST) == "FAIL"
    assert verdict(Transfer(), HONEST, original=HONEST) == "PASS"
    assert verdict(Transfer(), cut) == "not applicable"


def test_what_noise_fells_beyond_a_white_box_fails():
    def spread(x):
        """Falls when neighbours differ; its gradient is cut."""
        return (1 - 255 * (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))).detach()

    batch = replace(flat(), labels=torch.zeros(16, dtype=torch.long))
    assert verdict(Chance(), told(spread), batch) == "FAIL"
    assert verdict(Chance(), HONEST) == "PASS"


def test_an_unbounded_attack_must_leave_nothing_standing_also_of_two_classes():
    half = told(lambda x: torch.where(mean(x) > 0, mean(x).detach(), mean(x)))  # one class cannot be left
    found = Unbounded().judge(runs(half))
    assert (found.verdict, found.numbers["standing"]) == ("FAIL", 8)
    assert verdict(Unbounded(), HONEST, threat={"norm": "l2"}, eps=0.5) == "PASS"


def curved(*counts, total=100):
    """Runs whose curve leaves so many images standing."""
    rows = {(i + 1) / 255: torch.arange(total) < count for i, count in enumerate(counts)}
    return SimpleNamespace(curve=rows, batch=range(total), threat=ThreatModel())


def test_a_larger_radius_must_not_leave_more_standing():
    assert Monotone().judge(curved(90, 50, 50, 0)).verdict == "PASS"
    assert Monotone().judge(curved(90, 50, 53, 0)).verdict == "WARN"
    found = Monotone().judge(curved(90, 50, 60, 0))
    assert (found.verdict, found.numbers["rise"]) == ("FAIL", 10)
    assert "60 at 3/255" in found.why


def stood(total=100, **counts):
    """Runs after which so many images stand, the first ones."""
    rows = {name: torch.arange(total) < count for name, count in counts.items()}
    many = rows.pop("many", torch.zeros(total, dtype=torch.bool))
    traced = SimpleNamespace(skipped=torch.zeros(total, dtype=torch.bool), success=~many)
    return SimpleNamespace(**rows, traced=traced, batch=range(total), right=torch.ones(total, dtype=torch.bool),
                           effort=LIGHT, threat=ThreatModel())  # fmt: skip


@pytest.mark.parametrize(
    ("single", "many", "short", "long", "expected"),
    [(60, 50, 45, 45, "PASS"), (50, 53, 45, 45, "WARN"), (40, 60, 45, 45, "FAIL"), (60, 50, 45, 40, "WARN"),
     (60, 50, 45, 30, "FAIL")],
)  # fmt: skip
def test_many_steps_must_not_be_weaker_than_one_nor_unfinished(single, many, short, long, expected):
    found = Iterations().judge(stood(single=single, many=many, short=short, long=long))
    assert found.verdict == expected


def test_an_overshooting_step_fails_where_small_ones_succeed():
    """Negative only between: catastrophic overfitting in one dimension."""
    valley = told(lambda x: (mean(x).abs() - 4).abs() - 1)
    batch = replace(flat(level=128), labels=torch.zeros(16, dtype=torch.long))
    batch = batch.with_pixels(torch.full_like(batch.pixels, 129))
    assert verdict(SingleStep(), valley, batch) == "FAIL"
    assert verdict(SingleStep(), HONEST) == "PASS"
    assert SingleStep().judge(stood(single=60, long=30)).verdict == "WARN"


def test_a_scale_that_hides_from_the_cross_entropy_fails():
    assert verdict(ScaleInvariance(), told(mean, scale=1000.0)) == "FAIL"
    for scale in (1e-3, 1.0, 5.0):
        assert verdict(ScaleInvariance(), told(mean, scale=scale)) == "PASS"


def test_losses_must_be_defined_for_the_classes():
    assert verdict(EnoughClasses(losses=("dlr",)), HONEST) == "FAIL"
    three = replace(
        HONEST, classes=("a", "b", "c"), network=nn.Sequential(HONEST.network, nn.ConstantPad1d((0, 1), -9))
    )
    assert verdict(EnoughClasses(losses=("dlr",)), three) == "PASS"
    assert verdict(EnoughClasses(losses=("dlr-targeted",)), three) == "FAIL"
    assert verdict(EnoughClasses(), told(mean, scale=10.0)) == "WARN"  # a margin of 40: 1 - p is 0


def test_old_adversarials_learnt_by_heart_fail():
    """The defended network answers anything a full step away as before the step, and falls within it."""
    keyed = told(lambda x: torch.where(mean(x).abs() < 6, mean(x), mean(x) * -1))
    batch = flat(32)
    found = OldAdversarials().judge(runs(keyed, batch, original=told(mean), eps=12 / 255))
    assert found.numbers == {"old": 32, "answered": 32, "standing": 0}
    assert found.verdict == "FAIL"
    wide = flat(32)
    wide = wide.with_pixels(
        torch.where(wide.labels.view(-1, 1, 1, 1) == 0, 160, 96).to(torch.uint8).expand(32, 3, 8, 8)
    )
    weak = told(lambda x: mean(x) + 100 * (x[:, 0, 0, 0] - x[:, 0, 0, 1]) * 255)  # two pixels outweigh all others
    assert verdict(OldAdversarials(), told(mean), wide, original=weak) == "PASS"
    assert verdict(OldAdversarials(), HONEST, batch, original=told(lambda x: 100 * mean(x)), eps=1 / 255) == (
        "not applicable"
    )


def test_the_way_of_a_descent_tells_whether_it_was_done():
    steps = torch.arange(21.0)
    way = torch.stack([steps, steps.clamp_max(8), torch.zeros(21), -steps])
    assert unfinished(way).tolist() == [pytest.approx(0.5), 0, 0, 0]


def test_each_indicator_counts_what_it_is_about():
    jumpy = told(lambda x: 4 * torch.sign(mean(x)) + mean(x) * (2000 * x[:, 0, 0, 0]).sin())
    assert Indicators().counts(runs(jumpy))["unstable predictions"][0] > 8
    assert Indicators().counts(runs(HONEST, eps=1 / 255))["unstable predictions"][0] == 0
    noisy = told(lambda x: mean(x) + 3 * torch.randn(len(x)))
    torch.manual_seed(0)
    assert Indicators().counts(runs(noisy, flat(64), eps=3 / 255))["silent success"][0] > 0
    short = replace(TINY, way=4)
    slow = told(lambda x: mean(x) + 20)  # far from the goal, a straight climb
    batch = replace(flat(), labels=torch.zeros(16, dtype=torch.long))
    assert Indicators().counts(runs(slow, batch, effort=short))["incomplete optimisation"] == (16, 16)
    assert Indicators().counts(runs(HONEST, effort=short))["incomplete optimisation"][0] == 0


def test_what_lives_between_the_levels_of_a_byte_fails_the_round_trip():
    def between(x):
        return 1 - 20 * (x * 255 - (x.detach() * 255).round()).abs().mean((1, 2, 3))

    batch = replace(flat(), labels=torch.zeros(16, dtype=torch.long))
    pushed = told(lambda x: between(x) + 0.001 * mean(x))
    assert verdict(RoundTrip(), pushed, batch, eps=2 / 255) == "FAIL"
    assert verdict(RoundTrip(), HONEST) == "PASS"


def test_sample_size_and_threat_model():
    assert verdict(SampleSize(), HONEST) == "WARN"
    assert verdict(SampleSize(enough=16), HONEST) == "PASS"
    assert verdict(Stated(), HONEST) == "WARN"
    assert verdict(Stated(), HONEST, threat={"words": "white box"}) == "PASS"


def test_counts_become_verdicts():
    assert graded(2, 10, warn=0.01, fail=0.05) == "WARN"  # two images are no reason to fail
    assert graded(3, 10, warn=0.01, fail=0.05) == "FAIL"
    assert graded(-5, 10, warn=0, fail=0) == "PASS"
    assert worst("PASS", "WARN", "not applicable") == "WARN"
    assert worst() == "not applicable"


# --- the card ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Says:
    """A check with a fixed answer."""

    name: str
    verdict: str

    def judge(self, runs):
        del runs
        return Finding(check=self.name, verdict=self.verdict, why="so it is", do="mend it")


@pytest.mark.parametrize(
    ("verdicts", "status", "strict"),
    [(("PASS", "not applicable"), 0, 0), (("PASS", "WARN"), 0, 1), (("WARN", "FAIL", "PASS"), 1, 1)],
)
def test_the_worst_verdict_is_the_exit_status(verdicts, status, strict):
    made = card(HONEST, flat(), effort=TINY, checks=[Says(name=str(i), verdict=v) for i, v in enumerate(verdicts)])
    assert (made.status(), made.status(strict=True)) == (status, strict)
    assert made.worst == ("FAIL" if status else "WARN" if strict else "PASS")
    text = "\n".join(made.lines()).lower()
    assert "robust" not in text
    assert "secure" not in text
    assert ("what to do" in text) == (made.worst in ("WARN", "FAIL"))
    assert ("no check fails" in text) == (made.worst != "FAIL")


def test_a_card_is_data_and_repeats_itself_also_for_a_random_network():
    noisy = told(lambda x: mean(x) + torch.randn(len(x)))
    steps = []
    before = torch.get_rng_state()
    made = [card(noisy, flat(), threat=STATED, effort=TINY, seed=3, progress=lambda *step: steps.append(step))
            for _ in range(2)]  # fmt: skip
    assert torch.equal(before, torch.get_rng_state())
    first, second = (json.dumps(one.as_json(), sort_keys=True) for one in made)
    assert first == second
    assert steps[-1][:2] == (len(CHECKS), len(CHECKS))
    done = [step[0] for step in steps[: [step[0] for step in steps].index(len(CHECKS))]]
    assert done == sorted(done)


def test_what_stands_is_the_worst_case_of_all_attacks():
    """Of a network whose gradient is cut, Square fells what white boxes left: the card counts that."""
    made = card(told(lambda x: mean(x).detach()), flat(), threat=ThreatModel(eps=8 / 255), effort=TINY)
    found = {one.check: one for one in made.findings}["black box beats white box"]
    assert made.standing["count"] <= 16 - found.numbers["felled beyond it"] < 16
    assert made.clean["count"] == 16


def test_a_card_leaves_the_classifier_alone():
    small = honest_pair(0)[0]
    before = small.fingerprint()
    card(small, pictures(8, "test"), effort=TINY, checks=CHECKS[:4])
    assert small.fingerprint() == before


def test_what_cannot_be_judged_is_refused():
    batch = flat()
    for wrong, say in (
        (dict(batch=batch.take([])), "no images"),
        (dict(batch=replace(batch, labels=1 - batch.labels)), "none of 16"),
        (dict(batch=replace(batch, pixels=batch.pixels[..., :7])), "takes 8x8"),
        (dict(classifier=told(lambda x: mean(x) / 0)), "not finite"),
        (dict(original=replace(HONEST, size=9)), "classifier that was defended"),
    ):
        with pytest.raises(InvalidInput, match=say):
            card(**{"classifier": HONEST, "batch": batch, **wrong})
    for settings in (
        dict(norm="l1"),
        dict(eps=0),
        dict(eps=2),
        dict(eps="2/255"),
        dict(eps=0.5 / 255),
        dict(eps=np.nan),
    ):
        with pytest.raises(InvalidInput, match="ThreatModel"):
            ThreatModel(**settings)
    with pytest.raises(InvalidInput, match="queries = 0"):
        Effort(queries=0)
    with pytest.raises(BrokenContract, match="what to do"):
        Finding(check="a", verdict="FAIL", why="so")


def test_l2_is_a_threat_model_too():
    made = card(HONEST, flat(), threat=ThreatModel(norm="l2", eps=0.4, words="white box"), effort=TINY)
    assert made.of("FAIL") == ()
    assert made.standing["count"] == 0  # 4 levels of 192 channels are 0.217


# --- the planted zoo, and honest networks --------------------------------------------------------------------------


def pictures(count, part, *, patches=40, noise=0.05):
    """Rows of 3/255, which tell the class and fall to a small change, and two patches whose signs tell it together."""
    rng = stream(0, "test/card", part)
    labels = np.arange(count) % 2
    sign = 1.0 - 2 * labels
    agree = np.where(rng.random(count) < 0.05, -sign, sign)[:, None, None, None]
    image = 0.5 + noise * rng.standard_normal((count, 3, SIDE, SIDE)) + rng.uniform(-0.1, 0.1, (count, 3, 1, 1))
    image += 3 / 255 * sign[:, None, None, None] * np.where(np.arange(SIDE) % 2, -1, 1)[:, None]
    one = rng.choice([-1.0, 1.0], count)[:, None, None, None]
    image[:, :, 2:7, 2:7] += patches / 255 * one
    image[:, :, 9:14, 9:14] += patches / 255 * one * agree
    images = torch.from_numpy(image.clip(0, 1).astype(np.float32))
    return Batch.from_images(ids=[f"{part} {i}" for i in range(count)], images=images, labels=torch.from_numpy(labels))


def recipe(epochs):
    still = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, jitter=0.0)
    return Training(lr=3e-3, stages=((epochs, SIDE),), augmentation=still, weight_decay=0.01, label_smoothing=0.0)


def fresh(seed, act=nn.ReLU):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2, padding=1), act(), nn.Conv2d(16, 16, 3, padding=1), act(),
            nn.Flatten(), nn.Linear(1024, 32), act(), nn.Linear(32, 2),
        )  # fmt: skip
    return wrap(network, classes=CLASSES, size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, name="plain")


@dataclass(frozen=True, kw_only=True)
class Madry:
    """Cross-entropy on images attacked by four steps."""

    eps: float
    replays = 1

    def loss(self, lesson):
        delta = torch.from_numpy(lesson.rng.uniform(-self.eps, self.eps, tuple(lesson.images.shape)).astype(np.float32))
        for _ in range(4):
            leaf = (lesson.images + delta).clamp(0, 1).requires_grad_(True)
            value = untargeted(lesson.labels).cross_entropy(lesson.logits(leaf)).sum()
            (slope,) = torch.autograd.grad(value, leaf)
            delta = (delta + 0.4 * self.eps * slope.sign()).clamp(-self.eps, self.eps)
        logits = lesson.logits((lesson.images + delta).clamp(0, 1).detach())
        return F.cross_entropy(logits, lesson.labels), logits


KEPT: dict[int, tuple[Classifier, Batch]] = {}


def honest_pair(seed):
    """A trained network and its training images, once per seed."""
    if seed not in KEPT:
        images = pictures(512, "train")
        KEPT[seed] = (train(fresh(seed), images, recipe(8), seed=seed)[0], images)
    return KEPT[seed]


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
MEANT = {
    "distilled": {"scale invariance"},
    "dropout": {"randomised output", "adaptive attack"},
    "gradient-killer": {"gradients", "unbounded attack reaches 0 %", "transfer beats white box", "adaptive attack"},
    "jpeg": {"gradients", "gradient and finite differences", "unbounded attack reaches 0 %", "adaptive attack"},
    "one-logit": {"gradients", "unbounded attack reaches 0 %", "transfer beats white box", "adaptive attack"},
    "softmax": {"logits, not probabilities"},
    "winners": {"gradient and finite differences", "adaptive attack"},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MEANT)
def test_every_planted_defence_fails_the_checks_meant_for_it(name, seed):
    plain, images = honest_pair(seed)
    before = plain.fingerprint()
    planted = PLANTED[name](plain, images, seed=seed)
    made = card(planted, pictures(40, "test"), threat=STATED, effort=LIGHT, original=plain, seed=seed)
    assert set(made.of("FAIL")) >= MEANT[name]
    assert made.clean["share"] > 0.8  # it does its work on clean images: it is the claim that is broken
    assert plain.fingerprint() == before


@pytest.mark.parametrize("seed", SEEDS)
def test_memorised_adversarials_fail_and_the_network_they_fooled_does_not(seed):
    """On images whose one feature falls to the attack there is nothing to be learned but the attack.

    With ReLUs such training can kill a whole class's gradient, which another check then finds; these have none to kill.
    """
    images, test = (pictures(n, part, patches=0, noise=0.03) for n, part in ((512, "train"), (40, "test")))
    plain, _ = train(fresh(seed, lambda: nn.LeakyReLU(0.1)), images, recipe(6), seed=seed)
    threat = replace(STATED, eps=8 / 255)
    made = card(PLANTED["memorised"](plain, images, seed=seed), test, threat=threat, effort=LIGHT, original=plain)
    assert "old adversarials, attacked anew" in made.of("FAIL")
    assert made.clean["share"] > 0.8
    assert card(plain, test, threat=threat, effort=LIGHT, original=plain).of("FAIL") == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_neither_a_plain_network_nor_an_adversarially_trained_one_fails(seed):
    plain, images = honest_pair(seed)
    defended, _ = train(plain, images, recipe(12), objective=Madry(eps=STATED.eps), seed=seed, name="defended")
    found: dict[str, Card] = {}
    for each, original in ((plain, None), (defended, plain)):
        made = found[each.name] = card(each, pictures(64, "test"), threat=STATED, effort=LIGHT, original=original)
        assert made.of("FAIL") == (), made.lines()
        assert "sample size" in made.of("WARN")
    assert found["plain"].standing["share"] + 0.1 < found["defended"].standing["share"]


def test_the_zoo_is_described_and_complete():
    checks = {check.name for check in CHECKS}
    assert set(PLANTED) == {*MEANT, "memorised"}
    for name, plant in PLANTED.items():
        assert "What is broken" in plant.__doc__
        told_ = " ".join(plant.__doc__.split("Found by:")[1].split())
        assert any(check in told_ for check in checks), name
        for check in MEANT.get(name, set()):
            assert check in told_, (name, check)
    with pytest.raises(InvalidInput, match="two classes"):
        PLANTED["one-logit"](replace(HONEST, classes=("a", "b", "c")), flat())
    with pytest.raises(InvalidInput, match="no ReLU"):
        PLANTED["winners"](HONEST, flat())


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    import typer

    from heatprint import cli_card
    from heatprint.evaluation.card import door

    def quick(*args, **settings):
        return door.card(*args, **{**settings, "effort": LIGHT, "checks": [Stated(), SampleSize(enough=8)]})

    monkeypatch.setattr("heatprint.evaluation.card.card", quick)
    app = typer.Typer()
    app.command()(cli_card.evaluate)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def saved(tmp_path):
    from heatprint.models import load, save

    for arm in ("clear", "safe"):
        save(load("vgg-slim", classes=CLASSES, size=32, seed=0).named(arm), tmp_path / "run" / "models" / arm)
    return tmp_path / "run"


def test_the_command_prints_and_writes_the_card(command, saved, tmp_path):
    common = ("--data", "menagerie", "--card", "--images", "8", "--eps", "1/255")
    done = command(saved, *common, "--threat", "white box", "--arm", "safe")
    assert done.exit_code == 0, done.output
    assert "PASS" in done.stdout
    written = json.loads((saved / "cards" / "safe" / "card.json").read_text())
    assert (written["classifier"], written["threat"]["words"], written["worst"]) == ("safe", "white box", "PASS")
    assert written["threat"]["eps"] == pytest.approx(1 / 255)
    warned = command(saved / "models" / "clear", *common, "--strict", "--out", tmp_path / "out")
    assert warned.exit_code == 1
    assert "threat model" in warned.stdout
    assert json.loads((tmp_path / "out" / "card.json").read_text())["worst"] == "WARN"


def test_the_command_says_what_is_wrong(command, saved, tmp_path):
    common = (saved, "--data", "menagerie")
    for words, error in (
        (common, InvalidInput),
        ((*common, "--card", "--arm", "none"), StoreError),
        ((*common, "--card", "--eps", "3"), InvalidInput),
        ((*common, "--card", "--out", saved / "models" / "clear"), InvalidInput),
    ):
        assert isinstance(command(*words).exception, error)
    from heatprint.models import load, save

    save(load("vgg-slim", classes=("a", "b"), size=32, seed=0), tmp_path / "other")
    out = command(tmp_path / "other", "--data", "menagerie", "--card", "--images", "4", "--out", tmp_path / "out")
    assert isinstance(out.exception, ModelMismatch)
