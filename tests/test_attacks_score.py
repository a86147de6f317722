"""Square Attack and SimBA: what they ask, how they count, and what they find."""

from __future__ import annotations

import math

import pytest
import torch

from heatprint.attacks import attack, make
from heatprint.attacks.access import NoAccess, ScoreAccess
from heatprint.attacks.ledger import Budget
from heatprint.attacks.simba import SimBA, dct_basis
from heatprint.attacks.square import Square, bumps, window_side
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import untargeted
from heatprint.core.protocols import silent
from heatprint.core.streams import Streams
from heatprint.models import predict
from heatprint.testing import labelled_batch, linear_classifier, small_classifier


@pytest.fixture(scope="module")
def four():
    return linear_classifier(classes=4, seed=3)


def lead_and_weight(classifier, batch):
    """By how much the true class of two leads, float64 [N], and the weights of the other's lead, [N, 3, S, S]."""
    dense = classifier.network.dense
    own, other = dense.weight[batch.labels].double(), dense.weight[1 - batch.labels].double()
    bias = (dense.bias[batch.labels] - dense.bias[1 - batch.labels]).double()
    lead = (batch.images.double().flatten(1) * (own - other)).sum(1) + bias
    return lead, (other - own).view(batch.images.shape)


def record(monkeypatch):
    """Every image asked about from now on, as (rows, images)."""
    asked = []
    original = NoAccess._ask

    def ask(self, images, rows):
        asked.append((rows.clone(), images.clone()))
        return original(self, images, rows)

    monkeypatch.setattr(NoAccess, "_ask", ask)
    return asked


def test_square_falls_short_below_the_optimum_and_succeeds_above_it(linear):
    batch = labelled_batch(linear, 12)
    lead, weight = lead_and_weight(linear, batch)
    optimum = lead / weight.abs().sum((1, 2, 3)) * 255
    levels = int(optimum.median())
    hit = attack(linear, batch, make("square", eps=levels / 255, queries=800))
    assert not hit.success[optimum > levels].any(), "no image of the ball flips these"
    assert hit.success[optimum < 0.75 * levels].all(), "the ball holds much more than is needed"
    assert (optimum > levels).any()
    assert (optimum < 0.75 * levels).any()


def test_square_l2_falls_short_below_the_optimum_and_succeeds_above_it(linear):
    batch = labelled_batch(linear, 12)
    lead, weight = lead_and_weight(linear, batch)
    optimum = lead / weight.square().sum((1, 2, 3)).sqrt()
    eps = float(optimum.median())
    hit = attack(linear, batch, make("square", norm="l2", eps=eps, queries=600))
    assert not hit.success[optimum > eps].any()
    assert hit.success[optimum < 0.5 * eps].all()
    assert (optimum < 0.5 * eps).any()


def test_square_asks_about_corners_of_the_ball_only(monkeypatch, small):
    asked = record(monkeypatch)
    batch = labelled_batch(small, 4)
    attack(small, batch, make("square", eps="6/255", queries=40))
    assert len(asked) == 40
    for rows, images in asked:
        levels = images * 255
        assert torch.equal(levels.round() / 255, images)
        assert ((levels.round() - batch.pixels[rows].float()).abs() == 6).all(), "mid-grey images are never clipped"


def test_square_starts_with_stripes_then_changes_one_square_a_query(monkeypatch, small):
    asked = record(monkeypatch)
    batch = labelled_batch(small, 3)
    attack(small, batch, make("square", eps="6/255", queries=2, share=0.1))
    change = asked[0][1] - batch.images
    assert (change.amax(2) - change.amin(2)).abs().max() < 1e-6, "a column has one colour"
    assert (change.sign().sum(3).abs() < 16).any(), "columns differ"
    touched = (asked[1][1] - asked[0][1]).abs().amax(1) > 1e-6
    side = window_side(0.1, 16)
    for image in touched:
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        assert 0 < len(rows) == int(rows[-1] - rows[0]) + 1 <= side
        assert 0 < len(columns) == int(columns[-1] - columns[0]) + 1 <= side


def test_square_l2_asks_about_8_bit_images_that_use_the_radius(monkeypatch, small):
    asked = record(monkeypatch)
    batch = labelled_batch(small, 4)
    attack(small, batch, make("square", norm="l2", eps=1.5, queries=60))
    lengths = torch.cat([(images - batch.images[rows]).flatten(1).norm(dim=1) for rows, images in asked])
    assert lengths.max() <= 1.5 + 1e-5
    assert lengths.min() > 1.45, "what a window gives up goes into the other"
    assert all(torch.allclose((x * 255).round() / 255, x, atol=1e-7) for _, x in asked)


def test_square_counts_every_query_and_stops_at_success(linear):
    batch = labelled_batch(linear, 12)
    hit = attack(linear, batch, make("square", eps="3/255", queries=90))
    assert hit.success.any()
    assert not hit.success.all()
    assert torch.equal(hit.forwards, torch.where(hit.success, hit.step + 1, 90))
    assert torch.equal(hit.first_hit, torch.where(hit.success, hit.step + 1, -1))


def test_the_square_shrinks_as_published_whatever_the_number_of_queries():
    for queries in (10_000, 500):
        method = Square(queries=queries, share=0.8)
        halvings = [round(math.log2(0.8 / method.share_at(query))) for query in range(queries)]
        assert halvings == sorted(halvings)
        assert halvings[0] == 0
        assert halvings[-1] == 8
        assert halvings[queries // 2] == 6, "halved at 10, 50, 200, 1000, 2000 and 4000 of 10000"
    assert [window_side(share, 20) for share in (1.0, 0.25, 0.0001)] == [20, 10, 1]
    assert [window_side(share, 20, odd=True) for share in (0.21, 0.3, 0.0001)] == [9, 11, 3]


@pytest.mark.parametrize("side", [3, 5, 8])
def test_bumps_are_the_published_ones(side):
    def bump(high, wide):  # equation 2, entry by entry, counted from 1
        n = high // 2
        out = torch.zeros(high, wide)
        for r in range(1, high + 1):
            for s in range(1, wide + 1):
                m = n - max(abs(r - high // 2 - 1), abs(s - wide // 2 - 1))
                out[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
        return out

    pair = torch.cat([bump(side, side // 2), -bump(side, side - side // 2)], dim=1)
    assert torch.allclose(bumps(side), pair / pair.norm(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("square", {"eps": "8/255", "queries": 80}),
        ("square", {"norm": "l2", "eps": 1.0, "queries": 80}),
        ("simba", {"queries": 80}),
        ("simba", {"basis": "dct", "share": 1.0, "queries": 80}),
    ],
)
def test_batch_size_and_order_leave_outcomes_alone(monkeypatch, small, name, settings):
    batch, method = labelled_batch(small, 10), make(name, **settings)
    first = attack(small, batch, method, seed=1)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("heatprint.attacks.access.batch_size", lambda _: 3)
    other = attack(small, batch.take(order), method, seed=1)
    assert torch.equal(other.forwards, first.forwards[order])
    assert torch.equal(other.adversarial.pixels, first.adversarial.pixels[order])
    assert not torch.equal(attack(small, batch, method, seed=2).adversarial.pixels, first.adversarial.pixels)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("square", {"eps": "30/255", "queries": 600}),
        ("square", {"norm": "l2", "eps": 3.0, "queries": 600}),
        ("square", {"eps": "30/255", "queries": 600, "loss": "cross_entropy"}),
        ("simba", {"queries": 900}),
        ("simba", {"basis": "dct", "share": 1.0, "queries": 900}),
    ],
)
def test_a_target_that_is_the_least_likely_class_is_reached(four, name, settings):
    batch = labelled_batch(four, 12)
    targets = predict(four, batch.pixels).argsort(1)[:, 0]
    hit = attack(four, batch, make(name, **settings), targets=targets)
    assert torch.equal(hit.success, hit.logits.argmax(1) == targets)
    assert hit.success.all()


def test_simba_pixel_moves_single_channels_the_right_way(linear):
    batch = labelled_batch(linear, 8)
    _, weight = lead_and_weight(linear, batch)
    hit = attack(linear, batch, make("simba", step="40/255", queries=400))
    moved = hit.adversarial.pixels.int() - batch.pixels.int()
    assert hit.success.all()
    assert ((moved == 0) | (moved.abs() == 40)).all()
    assert (moved.double() * weight >= 0).all(), "a kept change brings the goal nearer"
    assert torch.equal((moved != 0).flatten(1).sum(1), hit.trace["moves"])


def test_simba_is_as_long_as_its_moves_are_many(small):
    victim = small_classifier(classes=4, seed=2)
    batch = labelled_batch(victim, 8)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]  # hard, so that many moves are made
    hit = attack(victim, batch, make("simba", queries=500), targets=targets)
    assert hit.trace["moves"].min() > 20
    assert (hit.distance.l2 <= 0.2 * hit.trace["moves"].sqrt() + 1e-6).all()
    assert hit.forwards.max() <= 500


def test_simba_dct_uses_low_frequencies_only(small):
    batch = labelled_batch(small, 4)
    goal, rows = untargeted(batch.labels), torch.arange(4)
    access = ScoreAccess(small, goal, batch.images, budget=Budget())
    method = SimBA(basis="dct", share=0.25, step=0.02, queries=60)
    streams = Streams(seed=0, purpose="test", ids=batch.ids)
    made = method.perturb(access, batch.images, goal, streams=streams, progress=silent)
    standing = rows[made.step < 0]
    assert len(standing)
    basis = dct_basis(16)
    assert torch.allclose(basis @ basis.T, torch.eye(16), atol=1e-6)
    energy = (basis @ (made.images - batch.images)[standing] @ basis.T).abs()
    assert energy[:, :, :4, :4].amax() > 0.015
    energy[:, :, :4, :4] = 0
    assert energy.amax() < 1e-5


def test_simba_keeps_to_its_queries_and_tries_no_direction_twice(monkeypatch, small):
    asked = record(monkeypatch)
    batch = labelled_batch(small, 3)
    hit = attack(small, batch, make("simba", step="1/255", queries=41))
    assert torch.equal(hit.forwards, torch.where(hit.success, hit.step, 41))
    seen = [[] for _ in range(3)]
    for rows, images in asked[1:]:
        for row, image in zip(rows.tolist(), images, strict=True):
            seen[row].append(image)
    for images in seen:
        assert len({tuple(image.flatten().tolist()) for image in images}) == len(images)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Square, {"norm": "l1"}, "write norm='linf'"),
        (Square, {"eps": 8.0}, "write '8/255'"),
        (Square, {"queries": 0}, "queries = 0 must be 1 or more"),
        (Square, {"share": 0.0}, "share = 0.0 above 0"),
        (Square, {"loss": "dlr"}, "write one of"),
        (SimBA, {"basis": "wavelet"}, "write 'pixel' or 'dct'"),
        (SimBA, {"step": 51.0}, "write '51/255'"),
        (SimBA, {"queries": 0}, "queries = 0 1 or more"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(cls, settings, message):
    with pytest.raises(InvalidInput, match=message):
        cls(**settings)
