"""The door and the ledger: budgets, criteria, counts, streams, targets; FGSM's exact gain; the corner search."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from heatprint.attacks import attack, attack_every_target, door, make
from heatprint.attacks.access import ScoreAccess
from heatprint.attacks.ledger import Budget, Ledger, Spent, Tally
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion, targeted, untargeted
from heatprint.core.values import Batch
from heatprint.evaluation.attacks import curve, flows
from heatprint.models import predict
from heatprint.testing import labelled_batch, linear_classifier, small_classifier


@pytest.fixture
def four():
    return small_classifier(classes=4, seed=2)


def test_the_ledger_counts_each_image_and_notes_the_query_of_its_first_hit():
    ledger = Ledger(3)
    assert ledger.admit(torch.tensor([0, 0, 2])) is None
    ledger.hits(torch.tensor([0, 0, 2]), torch.tensor([False, True, False]))
    ledger.admit(torch.tensor([2, 0, 2, 2]), backwards=2)
    ledger.hits(torch.tensor([2, 0, 2, 2]), torch.tensor([False, True, True, True]))
    assert ledger.forwards.tolist() == [3, 0, 4]
    assert ledger.backwards.tolist() == [2, 0, 6]
    assert ledger.first_hit.tolist() == [2, -1, 3]


def test_a_budget_admits_just_as_many_questions_as_it_allows():
    ledger = Ledger(2, Budget(forwards=3, backwards=3))
    assert ledger.admit(torch.tensor([0, 0, 1, 0, 0])).tolist() == [True, True, True, True, False]
    assert ledger.admit(torch.tensor([0, 1]), backwards=2).tolist() == [False, True]
    assert ledger.admit(torch.tensor([1]), backwards=2).tolist() == [False]
    assert ledger.forwards.tolist() == [3, 2]
    assert ledger.backwards.tolist() == [0, 2]


def test_what_the_budget_refuses_is_answered_as_for_the_clean_image(four):
    batch = labelled_batch(four, 3)
    access = ScoreAccess(four, untargeted(batch.labels), batch.images, budget=Budget(forwards=1))
    rows = torch.tensor([0, 1, 1])
    answers = access.logits(torch.rand(3, 3, 16, 16), rows)
    clean = predict(four, batch.pixels)
    assert torch.equal(answers[2], clean[1])
    assert not torch.allclose(answers[1], clean[1])


@pytest.mark.parametrize("limit", [0, 1, 7])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "ddn", "one-pixel", "corner-search"])
def test_hard_budgets(four, name, limit):
    batch = labelled_batch(four, 4)
    hit = attack(four, batch, make(name), budget=Budget(forwards=limit))
    assert int(hit.forwards.max()) <= limit
    assert int(hit.first_hit.max()) <= limit
    assert not hit.success.any() or limit


def test_a_budget_of_gradients(four):
    hit = attack(four, labelled_batch(four, 4), make("pgd", eps="1/255", steps=9), budget=Budget(backwards=3))
    assert int(hit.backwards.max()) == 3


def test_success_within_a_budget_is_the_curve_of_first_hits(four):
    """Cutting the budget at q leaves just the successes whose first hit came within q queries."""
    batch = labelled_batch(four, 24)
    method = make("one-pixel", population=40, generations=6)
    whole = attack(four, batch, method)
    assert whole.success.any()
    for limit in (40, 120, 200):  # whole generations: the attack judges these
        cut = attack(four, batch, method, budget=Budget(forwards=limit))
        assert torch.equal(cut.success, whole.success & (whole.first_hit <= limit))


@pytest.mark.parametrize("criterion", [Criterion(margin=0.02), Criterion(probability=0.72)])
def test_criteria_ask_for_more_than_the_flip(four, criterion):
    batch = labelled_batch(four, 12)
    flips = attack(four, batch, make("pgd", eps="16/255"))
    sure = attack(four, batch, make("pgd", eps="16/255"), criterion=criterion)
    goal = untargeted(batch.labels, criterion)
    assert torch.equal(sure.success, goal.reached(sure.logits))
    assert goal.margin(sure.logits)[sure.success].min() >= criterion.margin
    gone = 1 - sure.logits.softmax(1).gather(1, batch.labels[:, None]).squeeze(1)
    assert gone[sure.success].min() >= criterion.probability - 1e-6
    assert (sure.forwards >= flips.forwards).all()
    assert (sure.forwards > flips.forwards).any()


def test_a_target_must_be_reached_with_the_probability_asked_for():
    goal = targeted(torch.tensor([0, 0]), torch.tensor([1, 1]), Criterion(probability=0.9))
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.3]])  # 0.881, 0.909
    assert goal.reached(logits).tolist() == [False, True]
    with pytest.raises(InvalidInput, match="below 1"):
        Criterion(probability=1.0)


def test_streams_of_any_size_give_the_same_result(four, monkeypatch):
    batch, method = labelled_batch(four, 11, wrong=2), make("pgd", eps="1/255", steps=3)
    whole = attack(four, batch, method, seed=4)
    monkeypatch.setattr(door, "STREAM", 4)
    told = []
    parts = attack(four, batch, method, seed=4, progress=lambda *values: told.append(values))
    for name in ("success", "skipped", "step", "forwards", "backwards", "first_hit"):
        assert torch.equal(getattr(parts, name), getattr(whole, name)), name
    assert torch.equal(parts.adversarial.pixels, whole.adversarial.pixels)
    done, total, tally = told[-1]
    assert done == total == tally.attempted == 9
    assert tally.succeeded == int((whole.first_hit >= 0).sum())
    assert tally.forwards == int(whole.forwards.sum())
    assert (tally.active, tally.given_up) == (0, 9 - tally.succeeded)


def test_the_curve_and_the_flows_count_what_was_found(four):
    batch = labelled_batch(four, 20, wrong=3)
    hit = attack(four, batch, make("pgd", eps="3/255", step="1/255", steps=6))
    points = curve(hit)
    assert points[-1] == (int(hit.forwards.max()), int(hit.success.sum()))
    for limit, count in points:
        assert count == int((hit.success & (hit.first_hit > 0) & (hit.first_hit <= limit)).sum())
    table = flows(hit, four.classes)
    guess = hit.logits.argmax(1)
    for number, row in enumerate(table):
        out, arrived = hit.success & (batch.labels == number), hit.success & (guess == number)
        assert row["attacked"] == int((~hit.skipped & (batch.labels == number)).sum())
        assert (row["driven_out"] or {"count": 0})["count"] == int(out.sum())
        assert (row["driven_in"] or {"count": 0})["count"] == int(arrived.sum())
        assert row["to"] == {four.classes[k]: int((guess[out] == k).sum()) for k in set(guess[out].tolist())}
    assert sum(sum(row["to"].values()) for row in table) == int(hit.success.sum()) > 0


def test_a_tally_reads_as_a_sentence():
    tally = Tally(
        attempted=9, active=2, succeeded=4, given_up=3, forwards=50, backwards=0, per_second=1234.5, seconds_left=3.0
    )
    assert str(tally) == "4 fell, 3 stood, 2 open, 1,234 queries/s"


def test_every_target_keeps_the_least_modified_success(four):
    batch = labelled_batch(four, 8, wrong=1)
    method = make("fgsm", eps="90/255")
    kept = attack_every_target(four, batch, method)
    single = [attack(four, batch, method, targets=(batch.labels + shift) % 4) for shift in (1, 2, 3)]
    success = torch.stack([s.success for s in single])
    steps = torch.stack([torch.where(s.success, s.distance.linf, 999) for s in single])
    assert torch.equal(kept.success, success.any(0))
    assert torch.equal(kept.distance.linf[kept.success], steps.amin(0)[kept.success])
    assert torch.equal(kept.logits.argmax(1)[kept.success], kept.trace["target"][kept.success])
    assert torch.equal(kept.forwards, sum(s.forwards for s in single))
    assert kept.success.any()
    with pytest.raises(InvalidInput, match="cannot aim"):
        attack_every_target(four, batch, make("noise"))


def test_with_two_classes_every_target_is_the_plain_attack():
    linear = linear_classifier()
    batch = labelled_batch(linear, 9)
    one, other = (f(linear, batch, make("fgsm", eps="60/255")) for f in (attack, attack_every_target))
    assert torch.equal(one.adversarial.pixels, other.adversarial.pixels)


def test_the_exact_gain_is_the_closed_form(linear):
    batch = labelled_batch(linear, 30)
    w = (linear.network.dense.weight[1] - linear.network.dense.weight[0]).double()
    lead = (batch.images.flatten(1).double() @ w + (linear.network.dense.bias[1] - linear.network.dense.bias[0])).abs()
    hit = attack(linear, batch, make("fgsm", eps="60/255", exact=True))
    assert hit.success.all()
    assert torch.allclose(hit.trace["gain"].double(), lead / w.abs().sum(), atol=1.1e-3 / 255, rtol=0)
    short = attack(linear, batch, make("fgsm", eps="1/255", exact=True))
    assert torch.equal(short.trace["gain"].isinf(), ~short.success)
    with pytest.raises(InvalidInput, match="refines the ramp"):
        make("fgsm", ramp=False, exact=True)


def test_the_corner_search_is_exhaustive():
    """Against a double loop over every pixel and corner colour."""
    victim = small_classifier(size=8, classes=3, seed=1)
    batch = labelled_batch(victim, 3)
    found = attack(victim, batch, make("corner-search"))
    own = predict(victim, batch.pixels)
    for row in range(3):
        margins = torch.full((8, 8), -math.inf)
        for y, x, colour in itertools.product(range(8), range(8), itertools.product((0, 255), repeat=3)):
            tried = batch.pixels[row].clone()
            tried[:, y, x] = torch.tensor(colour, dtype=torch.uint8)
            margin = untargeted(batch.labels[row : row + 1]).margin(predict(victim, tried[None]))
            margins[y, x] = max(margins[y, x], float(margin))
        assert torch.allclose(found.trace["vulnerability"][row], margins, atol=1e-5)
        assert bool(found.trace["certified"][row]) == bool(margins.max() <= 0)
        assert bool(found.success[row]) == bool(margins.max() > 0)
        kept = untargeted(batch.labels[row : row + 1]).margin(found.logits[row : row + 1])
        assert torch.allclose(kept[0], margins.max(), atol=1e-5)
    assert (found.forwards == 8 * 8 * 8).all()
    assert torch.equal(own, found.clean_logits)
    assert (found.distance.l0 == 1).all()


@pytest.mark.parametrize("preset", ["paper", "scipy"])
def test_no_corner_colour_of_one_pixel_beats_the_corner_search(preset):
    """Every candidate that differential evolution tries, moved to its nearest corner, is one the search has seen."""
    victim = small_classifier(size=12, classes=3, seed=5)
    batch = labelled_batch(victim, 6)
    best = attack(victim, batch, make("corner-search"))
    run = attack(victim, batch, make("one-pixel", preset=preset, population=60, generations=6))
    cornered = torch.where(run.adversarial.pixels == batch.pixels, batch.pixels, (run.adversarial.pixels > 127) * 255)
    goal = untargeted(batch.labels)
    margin = goal.margin(predict(victim, cornered.to(torch.uint8)))
    assert (margin <= goal.margin(best.logits) + 1e-5).all()


def test_a_search_cut_short_certifies_nothing():
    victim = small_classifier(size=8)
    batch = labelled_batch(victim, 2)
    cut = attack(victim, batch, make("corner-search"), budget=Budget(forwards=100))
    assert not cut.trace["certified"].any()


def test_a_finer_grid_only_finds_more():
    victim = small_classifier(size=8, seed=3)
    batch = labelled_batch(victim, 3)
    corners, grid = (attack(victim, batch, make("corner-search", colours=c)) for c in (2, 3))
    assert (grid.trace["vulnerability"] >= corners.trace["vulnerability"] - 1e-6).all()
    assert (grid.forwards == 27 * 64 - torch.tensor([(batch.pixels[i] == 128).all(0).sum() for i in range(3)])).all()


def test_an_empty_batch_is_no_error(four):
    nothing = Batch(
        ids=(), pixels=torch.empty((0, 3, 16, 16), dtype=torch.uint8), labels=torch.empty(0, dtype=torch.long)
    )
    assert attack(four, nothing, make("pgd")).attempted == 0


def test_the_corner_search_keeps_the_strongest_of_many_successes():
    """A pixel that has a corner colour already has nothing to try there; that must not hide which pixel is best."""
    linear = linear_classifier(size=8, scale=2.0)
    batch = labelled_batch(linear, 6)
    pixels = batch.pixels.clone()
    pixels[:, :, 0, 0] = 255
    batch = Batch(ids=batch.ids, pixels=pixels, labels=predict(linear, pixels).argmax(1))
    found = attack(linear, batch, make("corner-search"))
    margin = untargeted(batch.labels).margin(found.logits)
    assert found.success.sum() > 1
    assert torch.allclose(margin, found.trace["vulnerability"].flatten(1).amax(1), atol=1e-5)


def test_gains_that_a_budget_left_untried_undo_nothing(linear):
    batch = labelled_batch(linear, 10)
    free = attack(linear, batch, make("fgsm", eps="60/255"))
    cut = attack(linear, batch, make("fgsm", eps="60/255"), budget=Budget(forwards=int(free.step.max()) + 2))
    assert cut.success.any()
    assert not cut.trace["unflip"].any()


def test_a_tally_of_parts_counts_the_parts_before_and_the_images_after(four):
    batch = labelled_batch(four, 9, wrong=2)
    told = []
    first = attack(four, batch.take(range(5)), make("pgd", eps="1/255", steps=2))
    attack(four, batch.take(range(5, 8)), make("pgd", eps="1/255", steps=2), progress=lambda *v: told.append(v[2]))
    before = Spent(
        attempted=first.attempted,
        succeeded=int((first.first_hit >= 0).sum()),
        forwards=int(first.forwards.sum()),
        backwards=int(first.backwards.sum()),
    )
    tally = told[-1].after(before, waiting=1)
    assert tally.attempted == 3 + 3 + 1
    assert tally.active == 1
    assert tally.succeeded + tally.given_up == 6
    assert tally.forwards == int(first.forwards.sum()) + told[-1].forwards
