"""Adversarial training: the inner attack, the losses, the watch, and what the trained networks withstand."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from heatprint import attacks
from heatprint.attacks.pgd import PGD
from heatprint.core.errors import InvalidInput, UnknownName
from heatprint.core.registry import validated
from heatprint.core.values import Batch
from heatprint.defences import defend
from heatprint.defences.adversarial import watch as watching
from heatprint.defences.adversarial.fast import FastTraining
from heatprint.defences.adversarial.free import FreeTraining
from heatprint.defences.adversarial.inner import InnerAttack, attackable, divergence, usual_step
from heatprint.defences.adversarial.mart import MART, log_not_rival
from heatprint.defences.adversarial.mixed import MixedTraining, recoloured, worst_recoloured
from heatprint.defences.adversarial.pgd import PGDTraining
from heatprint.defences.adversarial.trades import TRADES
from heatprint.defences.adversarial.watch import CollapseWarning, Watch
from heatprint.defences.adversarial.weights import perturbed_weights
from heatprint.defences.regenerate import NamedAttack, Regenerate, RenewedLoss
from heatprint.defences.retrain import Retrain, successes
from heatprint.models import Training, train, wrap
from heatprint.models.augment import Augmentation
from heatprint.models.compose import fronted
from heatprint.models.lesson import CrossEntropy, Lesson
from heatprint.models.parts.bits import Bits
from heatprint.testing import labelled_batch

STILL = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, jitter=0.0)
FLIPS = replace(STILL, flip=True)
SHORT = Training(stages=((2, 16),), batch=8, lr=1e-3, augmentation=FLIPS)
QUIET = Watch(alarm=False, patience=0, score="last", steps=2)


def lesson_of(classifier, count=6, *, seed=0, smoothing=0.0, images=None, labels=None):
    """A lesson on a learning copy of a classifier's network, in training mode."""
    network = copy.deepcopy(classifier.trainable).requires_grad_(True).train()
    batch = labelled_batch(classifier, count)
    return Lesson(
        network=network, normalise=classifier.normalise, images=batch.images if images is None else images,
        labels=batch.labels if labels is None else labels, rows=torch.arange(count),
        epoch=0, label_smoothing=smoothing, rng=np.random.default_rng(seed),
    )  # fmt: skip


def without_dropout(lesson):
    for module in lesson.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return lesson


def norm_of(delta, norm):
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()


# the inner attack


@given(
    norm=st.sampled_from(["linf", "l2"]),
    start=st.sampled_from(["uniform", "gaussian", "clean"]),
    loss=st.sampled_from(["cross_entropy", "margin", "kl"]),
    eps=st.floats(0, 0.5),
    steps=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_perturbation_stays_in_the_ball_and_in_the_range_of_pixels(small, norm, start, loss, eps, steps, seed):
    if loss == "kl" and start == "clean":
        start = "uniform"
    images = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    lesson = lesson_of(small, 4, seed=seed, images=images, labels=torch.arange(4) % 3)
    found = InnerAttack(eps=eps, norm=norm, step=eps, steps=steps, start=start, loss=loss).images(lesson)
    assert found.min() >= 0
    assert found.max() <= 1
    assert bool((norm_of(found - images, norm) <= eps + 1e-6).all())
    assert not found.requires_grad


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", ["uniform", "gaussian", "clean"])
def test_on_a_linear_network_the_margin_rises_by_eps_times_the_dual_norm(linear, norm, start):
    lesson = lesson_of(linear)
    weight = linear.trainable.dense.weight
    own, other = weight[lesson.labels], weight[1 - lesson.labels]
    eps, steps = {"linf": 0.02, "l2": 0.5}[norm], 60
    dual = (other - own).abs().sum(1) if norm == "linf" else (other - own).square().sum(1).sqrt()

    def margin(images):
        logits = lesson.logits(images)
        return (logits.gather(1, 1 - lesson.labels[:, None]) - logits.gather(1, lesson.labels[:, None])).squeeze(1)

    attack = InnerAttack(eps=eps, norm=norm, step=usual_step(eps, 10), steps=steps, start=start, loss="margin")
    one = InnerAttack(eps=eps, norm=norm, step=eps, steps=1, start="clean", loss="margin")
    with torch.no_grad():
        risen, fgsm = (margin(a.images(lesson)) - margin(lesson.images) for a in (attack, one))
    assert torch.allclose(risen, eps * dual, rtol=2e-3)
    assert bool((risen >= fgsm * (1 - 2e-3)).all())


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "kl"])
def test_more_steps_raise_the_loss_further(small, loss):
    images = {
        steps: InnerAttack(eps=0.1, step=0.02, steps=steps, loss=loss).images(lesson_of(small)) for steps in (1, 15)
    }
    lesson = replace(lesson_of(small), network=copy.deepcopy(small.trainable))
    clean = lesson.logits(lesson.images)

    def value(x):
        logits = lesson.logits(x)
        return divergence(clean, logits) if loss == "kl" else F.cross_entropy(logits, lesson.labels, reduction="none")

    assert value(images[15]).mean() > value(images[1]).mean() > value(lesson.images).mean()


def test_the_random_starts_are_spread_over_the_ball(small):
    lesson = lesson_of(small, 2, images=torch.full((2, 3, 16, 16), 0.5), labels=torch.zeros(2, dtype=torch.long))
    still = {"step": 0.0, "steps": 1}
    even = InnerAttack(eps=0.1, **still).images(lesson) - 0.5
    assert even.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    near = InnerAttack(eps=0.1, start="gaussian", **still).images(lesson) - 0.5
    assert near.std() == pytest.approx(1e-3, rel=0.05)
    many = replace(lesson, images=torch.full((200, 3, 16, 16), 0.5), labels=torch.zeros(200, dtype=torch.long))
    length = norm_of(InnerAttack(eps=0.1, norm="l2", **still).images(many) - 0.5, "l2")
    assert length.mean() == pytest.approx(0.1 * 768 / 769, rel=1e-3)  # of a uniform point of a 768-dimensional ball


def test_the_attack_leaves_the_network_as_it_was(small):
    lesson = lesson_of(small)
    lesson.network.stem[1].eval()  # as whoever freezes statistics has it
    before = {k: v.clone() for k, v in lesson.network.state_dict().items()}
    modes, drawn = [m.training for m in lesson.network.modules()], torch.random.get_rng_state()
    for loss in ("cross_entropy", "kl"):
        InnerAttack(eps=0.1, step=0.1, steps=2, loss=loss).images(lesson)
    worst_recoloured(lesson, 2, 2)
    assert all(torch.equal(v, lesson.network.state_dict()[k]) for k, v in before.items())
    assert [m.training for m in lesson.network.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in lesson.network.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_equal_generators_give_equal_attacks(small):
    first, again, other = (
        InnerAttack(eps=0.1, step=0.05, steps=2).images(lesson_of(small, seed=seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_front_without_a_gradient_is_passed_straight_through(small):
    behind = fronted(small, Bits(3), "bits:3")
    lesson = lesson_of(behind)
    front = lesson.network
    attack = InnerAttack(eps=0.1, step=0.1, steps=1, start="clean", loss="margin")
    assert norm_of(attack.images(lesson) - lesson.images, "linf").min() > 0.09
    assert not front.straight_through


def test_the_divergence_is_that_of_torch_and_still_has_a_gradient_where_probabilities_saturate():
    first, second = torch.randn((2, 5, 4), generator=torch.Generator().manual_seed(0)).double()
    by_torch = F.kl_div(second.log_softmax(1), first.softmax(1), reduction="none").sum(1)
    assert torch.allclose(divergence(first, second), by_torch)
    assert torch.equal(divergence(first, first), torch.zeros(5).double())
    sure = torch.tensor([[25.0, 0.0]]).double()
    moved = (sure * 0.99).requires_grad_(True)
    divergence(sure, moved).sum().backward()
    assert moved.grad.abs().min() > 0


# the losses


def test_trades_is_cross_entropy_and_beta_times_the_divergence(small):
    lesson, other = without_dropout(lesson_of(small, smoothing=0.1)), without_dropout(lesson_of(small, smoothing=0.1))
    near = (lesson.images + 0.05).clamp(0, 1)
    loss, logits = TRADES(beta=3.0).loss_on(lesson, near)
    clean, moved = other.logits(other.images), other.logits(near)
    kl = F.kl_div(moved.log_softmax(1), clean.softmax(1), reduction="batchmean")
    expected = F.cross_entropy(clean, other.labels, label_smoothing=0.1) + 3 * kl
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(logits, clean)


def test_trades_without_beta_is_plain_training_bit_for_bit(small):
    data = labelled_batch(small, 24)
    plain, _ = train(small, data, SHORT, seed=5)
    same, _ = train(small, data, SHORT, objective=TRADES(beta=0.0), seed=5)
    other, _ = train(small, data, SHORT, objective=TRADES(beta=0.5, steps=1), seed=5)
    assert same.digest == plain.digest
    assert other.digest != plain.digest


def test_mart_is_the_sum_of_the_paper(small):
    lesson, other = without_dropout(lesson_of(small)), without_dropout(lesson_of(small))
    labels = (lesson.labels + torch.tensor([0, 1, 0, 2, 0, 1])) % 3  # some clean images are misclassified
    near = (lesson.images + 0.05).clamp(0, 1)
    loss, _ = MART(beta=5.0).loss_on(replace(lesson, labels=labels), near)
    q, p = other.logits(near).double().softmax(1), other.logits(other.images).double().softmax(1)
    total = 0.0
    for row, label in enumerate(labels.tolist()):
        rival = max(q[row, k] for k in range(3) if k != label)
        kl = sum(p[row, k] * (p[row, k] / q[row, k]).log() for k in range(3))
        total += -q[row, label].log() - (1 - rival).log() + 5 * kl * (1 - p[row, label])
    assert loss.item() == pytest.approx(total.item() / 6, rel=1e-4)


def test_the_second_term_of_mart_does_not_round_to_infinity():
    own = torch.tensor([[0], [0]])
    logits = torch.tensor([[0.0, 60.0, 1.0], [60.0, 0.0, 1.0]], requires_grad=True)
    value = log_not_rival(logits, own)
    value.sum().backward()
    assert value.tolist() == pytest.approx([np.log1p(np.e) - 60, 0.0], abs=1e-5)
    assert bool(logits.grad.isfinite().all())


def test_a_clean_share_mixes_two_losses(small):
    near = (lesson_of(small).images + 0.05).clamp(0, 1)
    made = {share: PGDTraining(clean_share=share).loss_on(without_dropout(lesson_of(small)), near)[0].item()
            for share in (0.0, 0.25)}  # fmt: skip
    clean = CrossEntropy().loss(without_dropout(lesson_of(small)))[0].item()
    assert made[0.25] == pytest.approx(0.25 * clean + 0.75 * made[0.0], rel=1e-5)


# weights


def test_perturbed_weights_have_the_gradient_of_moved_weights_and_move_nothing(small):
    lesson = without_dropout(lesson_of(small))
    before = {k: v.clone() for k, v in lesson.network.state_dict().items()}
    moved = perturbed_weights(lesson, lambda one: CrossEntropy().loss(one)[0], 0.1)
    assert all(torch.equal(v, lesson.network.state_dict()[k]) for k, v in before.items())  # nor batch norm's numbers
    loss, _ = CrossEntropy().loss(moved)
    loss.backward()
    parameters = dict(lesson.network.named_parameters())
    assert all(torch.equal(before[name], p) for name, p in parameters.items())

    slow = without_dropout(lesson_of(small))  # the published order: climb, overwrite, differentiate
    found, _ = CrossEntropy().loss(slow)
    gradients = dict(zip(parameters, torch.autograd.grad(found, [*slow.network.parameters()]), strict=True))
    with torch.no_grad():
        for name, p in slow.network.named_parameters():
            if p.ndim > 1:
                p += 0.1 * p.norm() * gradients[name] / gradients[name].norm()
    expected, _ = CrossEntropy().loss(slow)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() > found.item()
    for name, p in slow.network.named_parameters():
        assert torch.allclose(parameters[name].grad, p.grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("method", [PGDTraining, TRADES, MART])
def test_perturbed_weights_are_one_setting_of_each_method(small, method):
    plain, worse = (without_dropout(lesson_of(small)) for _ in range(2))
    calm, _ = method(steps=1).loss(plain)
    loss, _ = method(steps=1, awp=0.05).loss(worse)
    assert loss.item() > calm.item()
    assert plain.network.stem[1].num_batches_tracked == worse.network.stem[1].num_batches_tracked  # one pass of each


# free, fast, mixed


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_free_training_replays_a_batch_with_the_gradient_of_the_step_before(small, norm):
    lesson, eps = without_dropout(lesson_of(small)), 0.03
    method = FreeTraining(eps=eps, norm=norm, replays=3)
    first, _ = method.loss(lesson)
    plain = without_dropout(lesson_of(small))
    assert torch.equal(first, CrossEntropy().loss(plain)[0])  # the first of the replays is plain training
    first.backward()
    images = plain.images.clone().requires_grad_(True)
    loss = F.cross_entropy(lesson_logits(plain, images), plain.labels)
    (gradient,) = torch.autograd.grad(loss, images)
    step = gradient.sign() if norm == "linf" else gradient / norm_of(gradient, "l2").view(-1, 1, 1, 1)
    method.loss(lesson)[0].backward()
    assert torch.allclose(lesson.memory["attacked"], (plain.images + eps * step).clamp(0, 1), atol=1e-5)
    method.loss(lesson)
    assert bool((norm_of(lesson.memory["attacked"] - lesson.images, norm) <= eps + 1e-6).all())


def lesson_logits(lesson, images):
    """Logits in training mode of a network whose statistics do not move on."""
    return copy.deepcopy(lesson.network)(lesson.normalise(images))


def test_free_training_costs_what_plain_training_does():
    method = FreeTraining(replays=4, training=replace(SHORT, stages=((8, 8), (5, 16))))
    assert method.recipe().stages == ((2, 8), (2, 16))


def test_fast_training_takes_one_step_of_five_quarters_from_a_uniform_start(linear):
    lesson = lesson_of(linear, images=torch.full((6, 3, 12, 12), 0.5))
    same = lesson_of(linear, images=torch.full((6, 3, 12, 12), 0.5))
    loss, _ = FastTraining(eps=0.1).loss(lesson)
    weight = linear.trainable.dense.weight
    sign = (weight[1 - same.labels] - weight[same.labels]).sign().view(6, 3, 12, 12)
    start = torch.from_numpy(same.rng.random((6, 3, 12, 12), dtype=np.float32)) * 0.2 - 0.1
    by_hand = 0.5 + (start + 0.125 * sign).clamp(-0.1, 0.1)
    assert loss.item() == pytest.approx(F.cross_entropy(same.logits(by_hand), same.labels).item(), rel=1e-5)


def test_few_pixels_are_recoloured_and_saturated():
    images = torch.full((300, 3, 12, 12), 0.5)
    changed = recoloured(images, 3, np.random.default_rng(0))
    touched = (changed != images).any(1)
    counts = touched.flatten(1).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}
    assert set(changed.movedim(1, -1)[touched].flatten().tolist()) == {0.0, 1.0}


def test_of_several_draws_of_pixels_the_worst_is_kept(small):
    def margin(tries):
        lesson = lesson_of(small)
        images = worst_recoloured(lesson, 3, tries)
        with torch.no_grad(), attackable(lesson.network):
            logits = lesson.logits(images)
        other = logits.scatter(1, lesson.labels[:, None], -torch.inf).amax(1)
        return other - logits.gather(1, lesson.labels[:, None]).squeeze(1)

    one, many = margin(1), margin(12)
    assert bool((many >= one).all())  # the first draw is the same
    assert bool((many > one).any())


@pytest.mark.parametrize("draw", ["image", "batch"])
def test_a_mixed_batch_has_what_was_drawn(small, draw):
    images = torch.full((40, 3, 16, 16), 0.5)
    lesson = lesson_of(small, 40, images=images, labels=torch.arange(40) % 3)
    method = MixedTraining(eps=0.02, eps_l2=0.2, pixels=2, tries=1, steps=2, draw=draw)
    delta = method.adversarial(lesson) - images
    few = (delta != 0).any(1).flatten(1).sum(1) <= 2
    flat = (norm_of(delta, "linf") <= 0.02 + 1e-6) & ~few & (norm_of(delta, "l2") > 0.2 + 1e-5)
    round_ = ~few & ~flat & (norm_of(delta, "l2") <= 0.2 + 1e-5)
    counts = [int(kind.sum()) for kind in (few, flat, round_)]
    assert sum(counts) == 40
    assert (min(counts) > 0) if draw == "image" else (max(counts) == 40)
    assert bool((delta.flatten(1).abs().amax(1) > 0).all())


# the watch


def batch_of(count, *, size=8, ids=None):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=generator).to(torch.uint8)
    return Batch(ids=ids or tuple(f"a/{i}" for i in range(count)), pixels=pixels, labels=torch.arange(count) % 2)


@pytest.mark.parametrize(("count", "held_out"), [(9, 4), (100, 50), (300, 64), (2000, 100), (6000, 256)])
def test_some_images_are_held_out_by_their_ids_alone(count, held_out):
    data = batch_of(count, size=1)
    learnt, held = Watch().parts(data)
    assert (len(learnt), len(held)) == (count - held_out, held_out)
    assert set(learnt.ids) | set(held.ids) == set(data.ids)
    assert abs(int(held.labels.sum()) * 2 - held_out) <= 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    assert set(Watch().parts(data.take(order))[1].ids) == set(held.ids)


def test_accuracy_in_a_ball_is_that_of_the_closed_form(linear):
    data = labelled_batch(linear, 60, wrong=6)
    eps, weight = 2 / 255, linear.trainable.dense.weight
    own = data.labels[:, None]
    logits = linear(data.images)
    lead = (logits.gather(1, own) - logits.gather(1, 1 - own)).squeeze(1)
    dual = (weight[0] - weight[1]).abs().sum()
    found = Watch().measure(linear, data, (("linf", eps),), 0)
    assert found["clean"] == pytest.approx(0.9)
    assert 0.1 < found["pgd"] < 0.9
    assert found["fgsm"] == found["pgd"] == pytest.approx(float((lead > eps * dual).float().mean()), abs=1e-6)
    assert found["answers"] == 2
    assert found["score"] == found["pgd"]
    both = Watch(score="mean").measure(linear, data, (("linf", eps), ("l2", 1.0)), 0)
    assert both["pgd"] <= found["pgd"]
    assert both["score"] == pytest.approx((both["clean"] + both["pgd"]) / 2, abs=1e-6)


def test_one_answer_to_everything_scores_nothing(linear):
    data = labelled_batch(linear, 20)
    one = copy.deepcopy(linear.trainable)
    one.dense.bias.data[0] += 1000
    always = wrap(one, classes=linear.classes, size=12)
    found = Watch().measure(always, data, (("linf", 2 / 255),), 0)
    assert found["answers"] == 1
    assert found["pgd"] == found["clean"] > 0
    assert found["score"] == 0


def told(fgsm, pgd, answers=2, clean=0.9):
    return {"clean": clean, "fgsm": fgsm, "pgd": pgd, "answers": answers, "score": pgd}


@pytest.mark.parametrize(
    ("history", "before", "alarm"),
    [
        ([told(0.5, 0.45), told(0.98, 0.01)], None, "98.0% after one step and 1.0% after PGD"),
        ([told(0.9, 0.1)], None, "90.0% after one step"),
        ([told(0.5, 0.45), told(0.25, 0.2)], None, "fell from 45.0% to 20.0%"),
        ([told(0.5, 0.45), told(0.45, 0.3)], None, ""),
        ([told(0.5, 0.5, answers=1), told(0.3, 0.25)], None, ""),  # whoever answers one thing only had nothing to lose
        ([told(0.45, 0.05)], told(0.45, 0.05), ""),  # a plain network is no collapse
        ([told(0.85, 0.03)], told(0.45, 0.05), "85.0% after one step"),
        ([told(0.6, 0.3)], told(0.2, 0.0), ""),  # one step is learnt first; PGD follows
        ([told(0.6, 0.3), told(0.7, 0.29)], told(0.2, 0.0), "70.0% after one step"),
    ],
)
def test_the_alarm_on_planted_histories(history, before, alarm):
    found = Watch().collapse(history, before)
    assert (alarm in found) if alarm else not found


class Eager(nn.Module):
    """Deep enough to withstand single steps without withstanding anything."""

    def __init__(self, *widths, side=8):
        super().__init__()
        layers, width = [], 3
        for wide, stride in widths:
            layers += [nn.Conv2d(width, wide, 3, stride, 1), nn.BatchNorm2d(wide), nn.ReLU()]
            width = wide
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, 2))

    def forward(self, x):
        return self.layers(x)


def eager(*widths, side=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wrap(Eager(*widths, side=side), classes=("cats", "dogs"), size=16)


def two_clues(count, seed, *, right=0.9, noise=0.06, faint=0.015):
    """Images 16x16 with a plain clue that is right in a share `right`, and a faint one that always is.

    (Tsipras et al. 2019, section 2.1: the faint one is the better, and gone within a small ball.)
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    sign = (2 * labels - 1).float().view(-1, 1, 1, 1)
    images = 0.5 + noise * torch.randn((count, 3, 16, 16), generator=generator)
    plain = torch.where(torch.rand(count, generator=generator) < right, 1.0, -1.0).view(-1, 1, 1, 1)
    images[:, :, 4:12, 4:12] += 0.12 * sign * plain
    pattern = torch.where(torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(9)) < 0.5, -1.0, 1.0)
    images += faint * sign * pattern
    return Batch.from_images(ids=[f"{seed}/{i}" for i in range(count)], images=images.clamp(0, 1), labels=labels)


def test_fast_training_that_collapses_is_caught_and_the_best_epoch_kept():
    data = two_clues(300, 1, right=0.7, noise=0.1, faint=0.06)
    recipe = Training(
        stages=((7, 16),), lr=2e-3, schedule="constant", weight_decay=0.0, label_smoothing=0.0, augmentation=STILL
    )
    notes = []
    method = FastTraining(eps=16 / 255, alpha=2.0, training=recipe)
    with pytest.warns(CollapseWarning, match="collapsed in epoch") as caught:
        found = defend(
            eager((16, 1), (16, 1), (32, 2), (32, 1)), data, method, seed=1,
            progress=lambda done, total, note="": notes.append((done, total, str(note))),
        )  # fmt: skip
    assert notes[-1][2] in str(caught[0].message)
    assert not any(note.startswith("epoch 7/7") for _, _, note in notes)  # it ended before its last epoch
    assert notes[-1][0] == notes[-1][1]  # and is done
    history = [n for _, _, n in notes if n.startswith("epoch")]
    kept = Watch().measure(found, Watch().parts(data)[1], (("linf", 16 / 255),), 1)
    spelled = f"clean {kept['clean']:.1%}, FGSM {kept['fgsm']:.1%}, PGD {kept['pgd']:.1%}"
    assert spelled in notes[-1][2]
    assert any(spelled in note for note in history)


# whole trainings


def test_adversarial_training_raises_accuracy_after_pgd_where_plain_training_does_not():
    data, test, ball = two_clues(300, 1), two_clues(200, 2), (("linf", 4 / 255),)
    recipe = Training(stages=((6, 16),), lr=3e-3, label_smoothing=0.0, augmentation=STILL)
    plain, _ = train(eager((8, 2), (16, 2), side=4), data, replace(recipe, stages=((10, 16),)), seed=0)
    control = defend(plain, data, Retrain(training=recipe), seed=0)
    before = Watch().measure(control, test, ball, 0)
    assert before["clean"] > 0.95
    assert before["pgd"] < 0.4
    made = {
        "pgd": PGDTraining(eps=4 / 255, steps=4, training=recipe, watch=QUIET),
        "trades": TRADES(eps=4 / 255, steps=4, training=recipe, watch=QUIET),
        "mart": MART(eps=4 / 255, steps=4, training=recipe, watch=QUIET),
        "free": FreeTraining(eps=4 / 255, training=replace(recipe, stages=((24, 16),)), watch=QUIET),
    }
    for name, method in made.items():
        after = Watch().measure(defend(plain, data, method, seed=0), test, ball, 0)
        assert after["pgd"] > before["pgd"] + 0.3, (name, before, after)
        assert after["clean"] > 0.85, (name, after)


METHODS = {
    "pgd": PGDTraining(steps=1, awp=0.01, training=SHORT, watch=QUIET),
    "trades": TRADES(steps=1, training=SHORT, watch=Watch(steps=2, alarm=False)),
    "fast": FastTraining(training=SHORT, watch=Watch(steps=2, gap=1.0, fall=1.0)),
    "free": FreeTraining(replays=2, training=replace(SHORT, stages=((4, 16),)), watch=QUIET),
    "mixed": MixedTraining(steps=1, tries=2, training=SHORT, watch=QUIET),
    "regenerate": Regenerate(
        methods=(NamedAttack(method="fgsm"),), sample=8, training=SHORT, watch=Watch(steps=2, alarm=False, score="mean")
    ),
}


@pytest.mark.filterwarnings("ignore::heatprint.defences.adversarial.watch.CollapseWarning")
@pytest.mark.parametrize("name", METHODS)
def test_a_killed_training_goes_on_to_the_same_bits(small, name, tmp_path):
    data, file = labelled_batch(small, 24), tmp_path / "state"
    whole = defend(small, data, METHODS[name], seed=1)
    seen = []

    def killer(done, total, note=""):
        seen.append(str(note))
        if str(note).startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        defend(small, data, METHODS[name], seed=1, checkpoint=file, progress=killer)
    assert file.exists()
    assert defend(small, data, METHODS[name], seed=1, checkpoint=file).digest == whole.digest
    assert whole.digest != small.digest
    assert any("before training: clean" in note for note in seen)
    assert any(note.startswith("epoch 1/2 (after epoch 1/2: clean") and "PGD" in note for note in seen)


def test_a_loss_that_is_not_finite_is_an_error(small):
    data = labelled_batch(small, 24)
    method = PGDTraining(steps=1, training=replace(SHORT, lr=1e30, optimiser="sgd", schedule="constant"), watch=QUIET)
    with pytest.raises(InvalidInput, match="loss of epoch 1 is not finite"):
        defend(small, data, method, seed=0)


def test_a_network_that_answers_one_thing_only_is_told(linear, monkeypatch):
    data = replace(labelled_batch(linear, 24), labels=torch.zeros(24, dtype=torch.long))
    recipe = replace(SHORT, stages=((2, 12),), lr=0.05)
    with pytest.warns(CollapseWarning, match="same class to all 12 held-out"):
        defend(linear, data, PGDTraining(steps=1, training=recipe, watch=Watch(steps=2, alarm=False)), seed=0)


def test_sizes_that_do_not_fit_are_refused_before_anything_is_trained(small):
    data = labelled_batch(small, 24)
    with pytest.raises(InvalidInput, match=r"Write stages ending in \(4, 0\)"):
        defend(small, data, PGDTraining(training=replace(SHORT, stages=((4, 112),))), seed=0)
    larger = data.with_pixels(torch.zeros((24, 3, 20, 20), dtype=torch.uint8))
    with pytest.raises(InvalidInput, match="Load them with size=16"):
        defend(small, larger, PGDTraining(training=SHORT), seed=0)
    with pytest.raises(InvalidInput, match="too few to hold some out"):
        defend(small, data.take([0, 1, 2]), PGDTraining(training=SHORT), seed=0)


@pytest.mark.parametrize(
    ("method", "wrong", "said"),
    [
        (PGDTraining, {"eps": 8}, "'8/255'"),
        (PGDTraining, {"steps": 0}, "steps = 0"),
        (PGDTraining, {"awp": 1.0}, "awp = 1.0"),
        (PGDTraining, {"clean_share": 1.0}, "'retrain' without attacks"),
        (TRADES, {"beta": -1.0}, "beta = -1.0"),
        (MART, {"beta": float("nan")}, "beta = nan"),
        (FastTraining, {"alpha": 0.0}, "alpha = 0.0"),
        (FastTraining, {"watch": Watch(alarm=False)}, "cannot be switched off"),
        (FreeTraining, {"replays": 1}, "first of them sees clean images"),
        (MixedTraining, {"kinds": ()}, "one or more"),
        (MixedTraining, {"kinds": ("l1",)}, "linf, l2 and pixels"),
        (MixedTraining, {"draw": "images"}, "'image' or 'batch'"),
        (Watch, {"score": "best"}, "score = 'best'"),
        (MixedTraining, {"tries": 0}, "tries = 0"),
        (Watch, {"steps": 1}, "one step is FGSM"),
        (Watch, {"gap": 0.0}, "gap = 0.0"),
        (Watch, {"patience": -1}, "patience = -1"),
        (InnerAttack, {"eps": 0.1, "step": 0.1, "steps": 1, "loss": "kl", "start": "clean"}, "zero at the clean image"),
        (Regenerate, {"methods": ()}, "at least one attack"),
        (Regenerate, {"methods": (NamedAttack(method="fsgm"),)}, "Did you mean 'fgsm'"),
        (Retrain, {"eps": 2}, "'2/255'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(method, wrong, said):
    with pytest.raises(InvalidInput, match=said):
        method(**wrong)


def test_settings_may_come_from_a_file():
    made = validated("defences: 'pgd'", PGDTraining, {"eps": "4/255", "step": "1/255", "watch": {"score": "mean"}})
    assert (made.eps, made.step, made.watch.score) == (4 / 255, 1 / 255, "mean")
    named = validated("x", Regenerate, {"methods": [{"method": "pgd", "settings": {"eps": "2/255"}}]})
    assert named.methods[0].make() == PGD(eps=2 / 255)
    with pytest.raises(UnknownName, match="'beta'"):
        validated("defences: 'trades'", TRADES, {"betta": 1})


# retraining


def test_retraining_without_a_success_is_the_control_and_failures_may_be_learnt(small):
    data = labelled_batch(small, 24, wrong=2)
    nothing = attacks.attack(small, data, PGD(eps=0.0, steps=1))
    assert int(nothing.success.sum()) == 0
    control = defend(small, data, Retrain(training=SHORT), seed=0)
    empty = defend(small, data, Retrain(attacks=("pgd",), training=SHORT), attacked={"pgd": nothing}, seed=0)
    assert empty.digest == control.digest
    assert len(successes(nothing, "pgd", failed=True)) == 22  # those it did not skip
    all_ = Retrain(attacks=("pgd",), successes_only=False, training=SHORT)
    assert defend(small, data, all_, attacked={"pgd": nothing}, seed=0).digest != control.digest


@pytest.mark.filterwarnings("ignore::heatprint.defences.adversarial.watch.CollapseWarning")
def test_watched_retraining_learns_no_copy_of_an_image_it_is_watched_by(small, monkeypatch):
    data = labelled_batch(small, 24)
    made = attacks.attack(small, data, PGD(eps=0.2, steps=3))
    assert int(made.success.sum()) > 12
    seen = {}

    def record(classifier, learnt, *args, **settings):
        seen["ids"] = learnt.ids
        return train(classifier, learnt, *args, **settings)

    monkeypatch.setattr(watching, "train", record)
    defend(small, data, Retrain(attacks=("pgd",), training=SHORT, watch=QUIET), attacked={"pgd": made}, seed=0)
    held = set(QUIET.parts(data)[1].ids)
    assert any(i.startswith("pgd:") for i in seen["ids"])
    assert not {i.removeprefix("pgd:") for i in seen["ids"]} & held


def test_regenerated_adversarials_fool_the_weights_of_their_epoch(small):
    data = labelled_batch(small, 24)
    lesson = lesson_of(small, 24)
    method = NamedAttack(method="pgd", settings={"eps": 0.2, "steps": 3})
    objective = RenewedLoss(methods=(method, method), sample=10, successes_only=True, like=small, data=data)
    rows, pixels = objective._attacked(lesson)
    assert 0 < len(rows) <= 20
    now = wrap(lesson.network, classes=small.classes, size=16, mean=small.mean, std=small.std)
    assert bool((now(pixels.float() / 255).argmax(1) != data.labels[rows]).all())


def test_a_batch_is_learnt_with_the_adversarials_of_its_images(small):
    data = labelled_batch(small, 24)
    method = NamedAttack(method="pgd", settings={"eps": 0.2, "steps": 3})
    objective = RenewedLoss(methods=(method,), sample=24, successes_only=True, like=small, data=data)
    rng = np.random.default_rng(0)
    some = torch.tensor([5, 3, 20])
    base = replace(without_dropout(lesson_of(small, 24)), rng=rng)
    lesson = replace(base, images=data.images[some], labels=data.labels[some], rows=some)
    loss, logits = objective.loss(lesson)
    rows, pixels = objective._rows, objective._pixels
    chosen = [k for k in range(len(rows)) if int(rows[k]) in some.tolist()]
    assert chosen
    images = torch.cat([data.images[some], pixels[chosen].float() / 255])
    same = without_dropout(lesson_of(small, 24))
    expected = F.cross_entropy(same.logits(images), torch.cat([data.labels[some], data.labels[rows[chosen]]]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(logits) == 3
    objective.loss(lesson)
    assert objective._pixels is pixels  # once an epoch
    objective.loss(replace(lesson, epoch=1, rng=np.random.default_rng(1)))
    assert objective._pixels is not pixels


def test_regeneration_where_nothing_succeeds_is_training_on_clean_images(small):
    data = labelled_batch(small, 24)
    idle = NamedAttack(method="pgd", settings={"eps": 0.0, "steps": 1})
    objective = RenewedLoss(methods=(idle,), sample=24, successes_only=True, like=small, data=data)
    loss, _ = objective.loss(without_dropout(lesson_of(small)))
    assert loss.item() == pytest.approx(CrossEntropy().loss(without_dropout(lesson_of(small)))[0].item(), rel=1e-6)
    with pytest.raises(InvalidInput, match="resampling would undo"):
        defend(small, data, Regenerate(methods=(idle,), training=replace(SHORT, stages=((1, 8), (1, 16)))), seed=0)


@pytest.mark.filterwarnings("ignore::heatprint.defences.adversarial.watch.CollapseWarning")
def test_a_defence_on_a_defence_is_a_training_through_its_front(small):
    behind = fronted(small, Bits(3), "bits:3")
    data = labelled_batch(behind, 24)
    found = defend(behind, data, PGDTraining(steps=1, training=SHORT, watch=QUIET), seed=0)
    assert found.digest != behind.digest
    assert not any(getattr(m, "straight_through", False) for m in found.trainable.modules())
