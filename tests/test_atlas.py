"""The atlas: cards, counterfactual tests, attack flows, the border, and what a study says of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import pairwise_distances
from torch import nn

from heatprint.atlas import (
    border,
    border_distance,
    border_relation,
    cards,
    counterfactual,
    first_to_fall,
    flows,
    gains,
    logit_margin,
    relation,
    suspect_region,
    suspicion,
)
from heatprint.atlas.gains import median
from heatprint.atlas.region import moved_elsewhere
from heatprint.attacks import attack
from heatprint.attacks import make as make_attack
from heatprint.core.errors import InvalidInput
from heatprint.core.norms import distances
from heatprint.core.store import Part, Store
from heatprint.core.streams import stream
from heatprint.core.values import Attacked, Batch
from heatprint.evaluation import share
from heatprint.explainers import make as make_explainer
from heatprint.models import predict, wrap
from heatprint.signatures.spray.gebi import GEBI
from heatprint.signatures.spray.spray import SpRAy
from heatprint.signatures.spray.views import TwoViews
from heatprint.signatures.strategies import Clusterer, Strategies
from heatprint.study import atlas as study
from heatprint.study.atlas_told import letter
from heatprint.testing import labelled_batch, linear_classifier

SIDE = 16


def grouped(labels, *, count=None, proposed=None):
    labels = np.asarray(labels, dtype=np.int64)
    count = count or int(labels.max()) + 1
    nothing = np.empty(0)
    return Strategies(labels=labels, count=count, proposed=proposed or count, eigenvalues=nothing, null=nothing,
                      embedding=np.empty((len(labels), 0)), stability=float("nan"), separability=0.5)  # fmt: skip


@dataclass(frozen=True)
class BySide:
    """A clustering whose answer is known: where a map has its larger half."""

    proposed: int = 2

    def strategies(self, maps, images=None, *, count=None):
        mass = np.abs(maps).reshape(*maps.shape[:2], -1).sum(1)
        right = mass[:, maps.shape[2] // 2 :].sum(1) > mass[:, : maps.shape[2] // 2].sum(1)
        count = count or self.proposed
        return grouped(right if count > 1 else right * 0, count=count, proposed=self.proposed)


def random_batch(count, *, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.uint8))
    labels = torch.zeros(count, dtype=torch.long) if labels is None else torch.as_tensor(labels)
    return Batch(ids=tuple(f"image {i:03d}" for i in range(count)), pixels=pixels, labels=labels)


def maps_of(labels, *, seed=0, noise=0.1):
    """Two kinds of maps: relevance in the middle, or in the lowest rows."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(0, noise, (len(labels), 8, 8))
    for row, label in enumerate(labels):
        if label:
            maps[row, -1] += 1
        else:
            maps[row, 2:6, 2:6] += rng.random((4, 4))
    return maps.astype(np.float32)


def attacked_by_hand(batch, *, step, skipped, answers, classes=3):
    """An attack of known results: the logits say `answers`, and success is where these are wrong."""
    logits = torch.nn.functional.one_hot(torch.as_tensor(answers), classes).float()
    own = torch.nn.functional.one_hot(batch.labels, classes).float()
    whole = torch.zeros(len(batch), dtype=torch.long)
    return Attacked(
        clean=batch, adversarial=batch, step=torch.as_tensor(step), skipped=torch.as_tensor(skipped),
        success=(torch.as_tensor(answers) != batch.labels) & ~torch.as_tensor(skipped),
        distance=distances(batch.pixels, batch.pixels), forwards=whole, backwards=whole, first_hit=whole,
        clean_logits=own, logits=logits,
    )  # fmt: skip


# --- gains ----------------------------------------------------------------------------------------------


def test_gains_tell_apart_what_fell_held_and_was_not_tried():
    batch = random_batch(5)
    hit = attacked_by_hand(batch, step=[3, -1, -1, -1, 7], skipped=[False, False, True, False, False],
                           answers=[1, 0, 2, 1, 1])  # fmt: skip
    assert np.array_equal(gains(hit), [3, np.inf, np.nan, np.nan, 7], equal_nan=True)
    silent = replace(hit, step=torch.full((5,), -1))
    assert np.isnan(gains(silent)).all()
    lost = replace(silent, success=torch.zeros(5, dtype=torch.bool))  # no step is known because none fell
    assert np.array_equal(gains(lost), [np.inf, np.inf, np.nan, np.inf, np.inf], equal_nan=True)
    assert median(gains(lost)).median == np.inf


def test_the_median_of_gains_bounds_half_of_the_images():
    assert median(np.array([np.nan])) is None
    few = median(np.array([1.0, 2, np.inf, np.nan]))
    assert few.median == 2
    assert np.isnan([few.low, few.high]).all()
    assert median(np.array([1.0, np.inf, np.inf, np.inf])).median == np.inf
    six = median(np.array([6.0, 1, 5, 2, 4, 3]))  # all of six: 1 - 2 / 2**6 = 96.9 %
    assert (six.low, six.median, six.high) == (1, 3, 6)


def test_the_interval_of_the_median_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [median(rng.exponential(1, 25)) for _ in range(2000)]
    covered = np.mean([m.low <= np.log(2) <= m.high for m in found])
    assert 0.945 < covered < 0.975  # the exact level at 25 is 95.7 %


# --- cards ----------------------------------------------------------------------------------------------


def test_a_card_counts_what_is_in_the_strategy():
    kinds = [0] * 12 + [1] * 8
    truth = [0] * 11 + [1] + [0] * 6 + [2, 2]
    batch, maps = random_batch(20, labels=truth), maps_of(kinds)
    answers = [0] * 11 + [1] + [1] * 3 + [2] * 2 + [0] + [2, 2]
    hit = attacked_by_hand(batch, step=[-1] * 12 + [4, 2, 6, 1, 1] + [-1] * 3,
                           skipped=[t != 0 for t in truth], answers=answers)  # fmt: skip
    first, second = cards(grouped(kinds), maps, batch, np.zeros(20, int), attacked={"fgsm": hit})
    assert [c.strategy for c in (first, second)] == [0, 1]
    assert first.rows.tolist() == list(range(12))
    assert first.labels == {0: 11, 1: 1}
    assert second.labels == {0: 6, 2: 2}
    assert second.purity == second.accuracy == share(6, 8)
    assert first.accuracy == share(11, 12)
    assert first.attacks["fgsm"].held == share(11, 11)
    assert first.attacks["fgsm"].confusion is None
    assert first.attacks["fgsm"].gain.median == np.inf
    assert second.attacks["fgsm"].held == share(1, 6)
    assert second.attacks["fgsm"].confusion == (1, 3)
    assert second.attacks["fgsm"].gain.median == 2
    assert [c.strategy for c in first_to_fall([first, second], "fgsm")] == [1, 0]
    assert first_to_fall([first, second], "pgd") == []


def test_mean_map_medoids_edge_and_agreement_against_slow_versions():
    kinds = [0] * 9 + [1] * 7
    maps, batch = maps_of(kinds, seed=3), random_batch(16)
    found = cards(grouped(kinds), maps, batch, np.zeros(16, int))
    for card in found:
        own = [maps[row].astype(float) / np.abs(maps[row].astype(float)).sum() for row in card.rows]
        mean = np.mean(own, axis=0)
        assert np.allclose(card.mean_map, mean, atol=1e-7)
        away = [np.linalg.norm(one - mean) for one in own]
        assert card.medoids.tolist() == [int(card.rows[place]) for place in np.argsort(away)[:3]]
        cosines = [(one * mean).sum() / np.linalg.norm(one) / np.linalg.norm(mean) for one in own]
        assert card.agreement == pytest.approx(np.mean(cosines), abs=1e-6)
        inner = np.mean([np.abs(one[1:-1, 1:-1]).sum() for one in own])
        assert card.edge == pytest.approx(1 - inner, abs=1e-6)
        pixels = batch.pixels[card.rows.tolist()].double().mean(0).round().byte()
        assert np.array_equal(card.mean_image, pixels.numpy())


def test_cards_do_not_depend_on_the_order_of_the_images():
    kinds = np.array([0] * 9 + [1] * 7)
    maps, batch = maps_of(kinds, seed=1), random_batch(16)
    turned = np.random.default_rng(0).permutation(16)
    one = cards(grouped(kinds), maps, batch, np.zeros(16, int))
    two = cards(grouped(kinds[turned]), maps[turned], batch.take(turned.tolist()), np.zeros(16, int))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.mean_map, b.mean_map)
        assert (a.suspicion, a.separability, a.edge, a.agreement) == (b.suspicion, b.separability, b.edge, b.agreement)
        assert a.medoids.tolist() == turned[b.medoids].tolist()
        assert sorted(a.rows) == sorted(turned[b.rows])


def test_what_stands_still_at_the_edge_is_the_most_suspicious():
    kinds = [0] * 30 + [1] * 20
    middle, border = cards(grouped(kinds), maps_of(kinds), random_batch(50), np.zeros(50, int))
    assert border.suspicion > 2 * middle.suspicion
    assert border.agreement > middle.agreement
    assert border.edge > 0.5 > middle.edge
    alone = cards(grouped([0] * 50), maps_of([1] * 50), random_batch(50), np.zeros(50, int))[0]
    assert alone.separability == 0
    assert alone.suspicion == pytest.approx(alone.agreement * alone.edge)
    assert suspicion(1.0, -0.2, 0.5) == 0


def test_cards_of_degenerate_maps_are_defined():
    for maps in (np.zeros((6, 4, 4), np.float32), np.ones((6, 4, 4), np.float32)):
        for card in cards(grouped([0, 0, 0, 0, 1, 1]), maps, random_batch(6), np.zeros(6, int)):
            assert np.isfinite([card.suspicion, card.separability, card.agreement, card.edge]).all()
            assert len(card.medoids) == min(3, len(card.rows))
    with pytest.raises(InvalidInput, match="finite maps"):
        cards(grouped([0, 0]), np.full((2, 4, 4), np.nan, np.float32), random_batch(2), np.zeros(2, int))
    with pytest.raises(InvalidInput, match="3 labels, 2 maps"):
        cards(grouped([0, 0, 0]), np.ones((2, 4, 4), np.float32), random_batch(2), np.zeros(2, int))


# --- counterfactual -------------------------------------------------------------------------------------


class Corner(nn.Module):
    """Class 1 where the upper left quarter of the red channel is bright, else class 0: a known Clever Hans."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.8))

    def forward(self, x):
        light = x[:, 0, : SIDE // 4, : SIDE // 4].mean((1, 2))
        return torch.stack([self.threshold - light, light - self.threshold], 1)


def planted(count=24):
    """Every second image carries a bright patch in its corner; the masks say where."""
    batch = random_batch(count, seed=5)
    pixels, masks = batch.pixels.clone() // 2, np.zeros((count, SIDE, SIDE), dtype=bool)
    masks[1::2, : SIDE // 4, : SIDE // 4] = True
    pixels[:, 0][torch.from_numpy(masks)] = 255
    labels = torch.arange(count) % 2
    return wrap(Corner(), classes=["plain", "marked"], size=SIDE), replace(batch, pixels=pixels, labels=labels), masks


@pytest.mark.parametrize("exact", [True, False])
def test_the_counterfactual_flips_the_planted_images_and_not_the_others(exact):
    model, batch, masks = planted()
    found = counterfactual(model, batch, np.arange(1, 24, 2), masks if exact else masks[1])
    assert found.label == 1
    assert found.area == pytest.approx(1 / 16)
    assert found.removed.all()
    assert not found.removed_control.any()
    assert found.others.tolist() == list(range(0, 24, 2))
    assert found.pasted.all()
    assert not found.pasted_control.any()  # no rest of the class: the donor is an image of the other one
    told = found.shares()
    assert told["removed"] == share(12, 12)
    assert told["removed_rest"] is None


def test_a_region_that_does_not_matter_flips_nothing():
    model, batch, masks = planted()
    found = counterfactual(model, batch, np.arange(1, 24, 2), np.roll(masks[1], 8, axis=(0, 1)))
    assert not found.removed.any()
    assert not found.pasted.any()


def test_the_rest_of_the_class_is_tried_too_and_gives_the_control_s_donor():
    model, batch, masks = planted()
    maps = np.zeros((24, 4, 4), np.float32)
    maps[:, 1, 1] = np.arange(24)  # normalised they are equal: the medoid is the first by id
    found = counterfactual(model, batch, np.array([5, 1, 3]), masks, maps=maps)
    assert found.inside.tolist() == [1, 3, 5]
    assert found.rest.tolist() == list(range(7, 24, 2))
    assert found.removed_rest.all()
    assert found.pasted_control.all()  # the rest carries the patch as well


def test_an_image_without_a_region_neither_gives_it_nor_counts_where_it_is_removed():
    model, batch, masks = planted()
    marked = np.arange(1, 24, 2)
    masks[[1, 3]] = False  # of the strategy; the first would be the donor
    masks[21:] = False  # of the rest of the class
    found = counterfactual(model, batch, marked[:8], masks)
    assert found.inside.tolist() == marked[2:8].tolist()
    assert found.rest.tolist() == marked[8:10].tolist()
    told = found.shares()
    assert (told["removed"], told["removed_control"], told["removed_rest"]) == (share(6, 6), share(0, 6), share(2, 2))
    assert told["pasted"] == share(12, 12)
    assert found.area == pytest.approx(1 / 16)
    masks[marked[8:]] = False
    assert counterfactual(model, batch, marked[:8], masks).shares()["removed_rest"] is None


def test_the_control_s_donor_is_not_pasted_on_itself():
    model, batch, masks = planted(4)
    found = counterfactual(model, batch, np.array([1, 3]), masks)
    assert found.shares()["pasted"] == share(2, 2)
    assert found.shares()["pasted_control"] == share(0, 1)
    alone = counterfactual(model, batch.take([0, 1, 3]), np.array([1, 2]), masks[[0, 1, 3]])
    assert alone.shares()["pasted_control"] is None
    with_rest = counterfactual(model, batch, np.array([1]), masks)
    assert with_rest.shares()["pasted_control"] == share(2, 2)


def test_counterfactuals_depend_on_seed_and_id_alone():
    model, batch, _ = planted()
    turned = np.random.default_rng(1).permutation(24)
    rng = np.random.default_rng(2)
    region = rng.random((SIDE, SIDE)) < 0.4
    one = counterfactual(model, batch, np.arange(1, 24, 2), region, seed=3)
    two = counterfactual(model, batch.take(turned.tolist()), np.flatnonzero(turned % 2), region, seed=3)
    for name, rows in (("removed", "inside"), ("removed_control", "inside"), ("pasted", "others")):
        first = dict(zip(getattr(one, rows).tolist(), getattr(one, name).tolist(), strict=True))
        second = dict(zip(turned[getattr(two, rows)].tolist(), getattr(two, name).tolist(), strict=True))
        assert first == second, name


def test_impossible_counterfactuals_are_refused():
    model, batch, masks = planted()
    with pytest.raises(InvalidInput, match="predicted as 2 classes"):
        counterfactual(model, batch, np.array([0, 1]), masks)
    with pytest.raises(InvalidInput, match="region is empty"):
        counterfactual(model, batch, np.array([1]), np.zeros((SIDE, SIDE), bool))
    with pytest.raises(InvalidInput, match="covers a whole image"):
        counterfactual(model, batch, np.array([1]), np.ones((SIDE, SIDE), bool))
    with pytest.raises(InvalidInput, match="must be bool"):
        counterfactual(model, batch, np.array([1]), masks[:3])
    with pytest.raises(InvalidInput, match="0 images"):
        counterfactual(model, batch, np.array([], int), masks)


def test_the_suspect_region_is_where_the_strategy_looks_and_the_rest_does_not():
    kinds = np.array([0] * 30 + [1] * 20)
    maps = maps_of(kinds, noise=0.01)
    region = suspect_region(maps[kinds == 1], maps[kinds == 0], size=(32, 48))
    assert region.shape == (32, 48)
    assert region[28:].mean() >= 0.5
    assert not region[:28].any()
    whole = suspect_region(maps[kinds == 1], maps[kinds == 0], size=(8, 8), share=1.0)
    assert whole[-1].all()
    assert not suspect_region(maps, maps, size=(8, 8)).any()
    with pytest.raises(InvalidInput, match="share = 0"):
        suspect_region(maps, maps, size=(8, 8), share=0)


@given(seed=some.integers(0, 10**6), part=some.floats(0.05, 1.0))
def test_no_smaller_set_of_cells_holds_the_share(seed, part):
    rng = np.random.default_rng(seed)
    own, rest = rng.random((3, 5, 5)).astype(np.float32), rng.random((4, 5, 5)).astype(np.float32)
    chosen = suspect_region(own, rest, size=(5, 5), share=part)

    def mean(maps):
        return np.mean([one / one.sum(dtype=float) for one in maps.astype(float)], axis=0)

    excess = np.clip(mean(own) - mean(rest), 0, None)
    assert excess[chosen].sum() >= part * excess.sum() - 1e-6
    assert np.sort(excess[chosen])[1:].sum() < part * excess.sum() + 1e-6


def test_the_control_s_region_is_the_same_shape_elsewhere():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:3] = True
    for name in "abcdefgh":
        found = moved_elsewhere(mask, stream(0, name))
        assert found.sum() == mask.sum()
        assert not (found & mask).any()


# --- flows ----------------------------------------------------------------------------------------------


def halves(sides, *, seed=0):
    rng = np.random.default_rng(seed)
    maps = rng.normal(0, 0.01, (len(sides), 6, 6))
    for row, right in enumerate(sides):
        maps[row, :, 3:] += right
        maps[row, :, :3] += not right
    return maps.astype(np.float32)


def test_a_flow_is_the_table_of_clean_and_attacked_strategies():
    before, after = [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0]
    clean, moved = halves(before), halves(after, seed=1)
    moved[0] = clean[0]  # a failed attack
    found = flows(clean, moved, BySide(), ids=list("abcdef"))
    assert found.clean.tolist() == before
    assert found.attacked.tolist() == after
    assert found.matrix.tolist() == [[1, 2], [1, 2]]
    assert found.stayed == share(3, 6)
    assert found.difference[0] == -1
    assert (found.difference[1:] >= 0).all()
    assert found.sizes(found.clean) == [3, 3]
    assert sum(found.sizes(found.difference)) == 5
    assert found.matrix.sum(1).tolist() == found.sizes(found.clean)


def test_what_an_attack_leaves_as_it_was_stays():
    @dataclass(frozen=True)
    class Random:
        def strategies(self, maps, images=None, *, count=None):
            return grouped(np.random.default_rng(0).integers(0, 4, len(maps)), count=4)

    clean = halves([0, 1] * 10)
    found = flows(clean, clean.copy(), Random(), ids=[f"{i:02d}" for i in range(20)])
    assert found.stayed == share(20, 20)
    assert (found.difference == -1).all()
    assert len(found.strategies.labels) == 20
    assert np.array_equal(found.matrix, np.diag(np.bincount(found.clean, minlength=4)))


def test_flows_follow_the_ids_and_refuse_what_does_not_fit():
    clean, moved = halves([0, 0, 1, 1, 0]), halves([1, 0, 1, 0, 0], seed=4)
    ids, turned = list("vwxyz"), [3, 1, 4, 0, 2]
    one = flows(clean, moved, BySide(), ids=ids)
    two = flows(clean[turned], moved[turned], BySide(), ids=[ids[k] for k in turned])
    assert np.array_equal(one.attacked[turned], two.attacked)
    assert np.array_equal(one.difference[turned], two.difference)
    with pytest.raises(InvalidInput, match="do not belong together"):
        flows(clean, moved[:4], BySide(), ids=ids)
    with pytest.raises(InvalidInput, match="unique"):
        flows(clean, moved, BySide(), ids=list("vvxyz"))


# --- border ---------------------------------------------------------------------------------------------


def two_clouds(count=60, *, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(-1, 1, (count, 2)), rng.normal(1, 1, (count, 2))]), np.repeat([0, 1], count)


def test_border_distances_against_the_slow_matrix_version():
    places, predicted = two_clouds(25)
    places[3] = places[2]  # copies count once
    table = pairwise_distances(places.astype(np.float32).astype(float))
    expected = []
    for row in range(len(places)):
        others = np.sort(table[row, predicted != predicted[row]])[:5].mean()
        kin = np.unique(places[predicted == predicted[row]], axis=0)
        own = np.sort(np.linalg.norm(kin - places[row], axis=1))[1:6].mean()
        expected.append(0.5 * (others - own))
    assert np.allclose(border_distance(places, predicted), expected, atol=1e-5)


def test_flows_show_images_to_methods_that_look_at_them():
    """A method that groups by the image alone: attacked images differ, so every changed one moves."""

    class ByImage:
        def strategies(self, maps, images=None, *, count=None):
            assert len(images) == len(maps)
            return grouped((images.reshape(len(images), -1).mean(1) > 0.5).astype(int), count=2, proposed=2)

    maps = np.arange(8.0, dtype=np.float32).reshape(4, 2, 1)
    moved = maps.copy()
    moved[2:] += 1
    dark, bright = np.zeros((4, 3, 2, 2)), np.ones((4, 3, 2, 2))
    found = flows(maps, moved, ByImage(), ids=list("dcba"), images=(dark, bright))
    assert found.clean.tolist() == [0, 0, 0, 0]
    assert found.attacked.tolist() == [0, 0, 1, 1]
    assert found.difference.tolist() == [-1, -1, 1, 1]


def test_five_images_that_fell_are_too_few_to_relate_anything():
    gain = np.full(40, np.inf)
    gain[:5] = np.arange(5)
    few = relation(np.arange(40.0), gain)
    assert np.isnan([few.rho, few.low, few.high, few.p, few.pooled]).all()
    gain[5] = 5
    assert relation(np.arange(40.0), gain).rho > 0.5


def test_images_near_the_border_with_small_gains_are_found():
    places, predicted = two_clouds()
    far = border_distance(places, predicted)
    gain = np.ceil(4 * (far - far.min())) + 1
    gain[gain > 8] = np.inf
    found = border_relation(places, predicted, gain)
    assert found.rho > 0.9
    assert found.low <= found.rho <= found.high
    assert found.p == pytest.approx(1 / 2001)
    assert (found.images, found.censored) == (120, int((gain == np.inf).sum()))
    assert border_relation(places, predicted, -gain).rho == pytest.approx(-found.rho)


def test_rho_is_spearman_s_with_censored_images_tied_at_the_top():
    rng = np.random.default_rng(0)
    distance, gain = rng.normal(size=80), rng.integers(1, 9, 80).astype(float)
    gain[gain > 6] = np.inf
    expected = spearmanr(distance, np.where(np.isinf(gain), 99, gain)).statistic
    found = relation(distance, gain)
    assert found.rho == pytest.approx(expected, abs=1e-12)
    assert found == relation(distance, gain, within=np.full(80, "cats"))
    assert found.pooled == found.rho


def test_resampled_ranks_are_those_of_the_repeated_images():
    rng = np.random.default_rng(0)
    far, gain = rng.normal(size=30), rng.integers(1, 5, 30).astype(float)
    times = rng.multinomial(30, np.full(30, 1 / 30), size=5)
    expected = [spearmanr(np.repeat(far, t), np.repeat(gain, t)).statistic for t in times]
    assert np.allclose(border._spearman(far, gain, np.zeros(30, int), times), expected)
    group = np.repeat([0, 1, 2, 3], [17, 8, 4, 1])
    expected = [slow_rho(np.repeat(far, t), np.repeat(gain, t), np.repeat(group, t)) for t in times]
    assert np.allclose(border._spearman(far, gain, group, times), expected)


def slow_rho(far, gain, group):
    """The stratified coefficient, group by group."""
    one, two = np.zeros(len(far)), np.zeros(len(far))
    for own in set(group.tolist()):
        rows = group == own
        middle, size = (rows.sum() + 1) / 2, rows.sum() + 1
        one[rows], two[rows] = ((rankdata(values[rows]) - middle) / size for values in (far, gain))
    return one @ two / np.sqrt((one @ one) * (two @ two))


@settings(max_examples=settings.default.max_examples // 2)
@given(some.lists(some.tuples(some.integers(0, 3), some.integers(0, 6), some.integers(0, 4)), min_size=15, max_size=40))
def test_within_groups_rho_is_the_stratified_one(rows):
    group, far, gain = np.array(rows, dtype=float).T
    found = relation(far, np.where(gain == 4, np.inf, gain), within=group)
    alone = np.bincount(group.astype(int))[group.astype(int)] == 1
    assert found.images == (~alone).sum()
    several = [any(len({*values[group == one]}) > 1 for one in {*group}) for values in (far, gain)]
    assert np.isnan(found.rho) == (not all(several))
    if all(several):
        assert found.rho == pytest.approx(slow_rho(far, gain, group), abs=1e-12)
        assert found.pooled == pytest.approx(spearmanr(far[~alone], gain[~alone]).statistic, abs=1e-12)


def classes_apart(*, shift, slope, seed=0):
    """Three classes of unlike sizes: `shift` couples class means of distance and gain, `slope` images of one class."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0, 1, 2], [90, 60, 30])
    far = rng.normal(size=180)
    gain = slope * far + rng.normal(size=180) + shift * 5 * kind
    return far + 5 * kind, gain, kind


def test_differences_between_classes_alone_are_no_relation():
    cases = [classes_apart(shift=1, slope=0, seed=seed) for seed in range(10)]
    within = [relation(far, gain, within=kind, seed=seed) for seed, (far, gain, kind) in enumerate(cases)]
    pooled = [relation(far, gain, seed=seed) for seed, (far, gain, _) in enumerate(cases)]
    assert all(r.low > 0.6 and r.p == pytest.approx(1 / 2001) for r in pooled)
    assert [r.pooled for r in within] == pytest.approx([r.rho for r in pooled], abs=1e-12)
    assert all(abs(r.rho) < 0.25 for r in within)
    assert sum(r.low <= 0 <= r.high for r in within) >= 8
    assert sum(r.p < 0.05 for r in within) <= 2


def test_a_relation_that_pooling_hides_is_found_within_classes():
    far, gain, kind = classes_apart(shift=-1, slope=2)
    found = relation(far, gain, within=kind)
    assert found.pooled < -0.3
    assert found.low > 0.6
    assert found.p == pytest.approx(1 / 2001)


def test_p_is_that_of_all_pairings_within_groups():
    """Against all of them; images that leave their group would meet the ties of the third, and p would be too small."""
    rng = np.random.default_rng(5)
    group, far, gain = np.repeat([0, 1, 2], [5, 4, 20]), np.ones(29), np.full(29, np.inf)
    far[:9], gain[:9] = rng.normal(size=9), rng.normal(size=9)
    gain[:9] += far[:9]
    one, two = (np.append(rankdata(v[:5]) / 6, rankdata(v[5:9]) / 5) - 0.5 for v in (far, gain))
    pairings = [[*first, *second] for first in permutations(range(5)) for second in permutations(range(5, 9))]
    exact = (abs(two[np.array(pairings)] @ one) >= abs(one @ two) - 1e-9).mean()
    assert 0.1 < exact < 0.4
    assert relation(far, gain, within=group).p == pytest.approx(exact, abs=0.03)


def test_an_image_alone_in_its_group_says_nothing():
    far, gain, kind = classes_apart(shift=0, slope=1)
    more = [np.append(values, one) for values, one in ((far, [99.0, -99]), (gain, [np.inf, np.inf]), (kind, [7, 8]))]
    assert relation(more[0], more[1], within=more[2]) == relation(far, gain, within=kind)
    pairs = np.repeat(np.arange(9), 2)  # 2**9 orders: fewer than six images have
    assert np.isnan(relation(far[:18], far[:18], within=pairs).rho)
    assert relation(far[:20], far[:20], within=np.repeat(np.arange(10), 2)).rho == pytest.approx(1)
    with pytest.raises(InvalidInput, match=r"groups \[3\]"):
        relation(far, gain, within=kind[:3])


def test_without_a_relation_p_is_uniform_and_the_interval_covers_zero():
    rng = np.random.default_rng(1)
    found = [relation(rng.normal(size=40), rng.normal(size=40), seed=seed) for seed in range(10)]
    assert sum(r.low <= 0 <= r.high for r in found) >= 8
    assert sum(r.p < 0.1 for r in found) <= 4
    assert len({r.p for r in found}) > 6


def test_relations_repeat_themselves_whatever_the_order():
    places, predicted = two_clouds(30)
    gain = np.random.default_rng(3).integers(1, 5, 60).astype(float)
    turned = np.random.default_rng(4).permutation(60)
    one = border_relation(places, predicted, gain, seed=7)
    assert one == border_relation(places[turned], predicted[turned], gain[turned], seed=7)
    assert one != border_relation(places, predicted, gain, seed=8)
    named = np.array(["cats", "dogs"])[predicted]
    assert one == border_relation(places, named, gain, seed=7)


def test_undefined_relations_are_nan_and_do_not_crash():
    places, predicted = two_clouds(10)
    gain = np.arange(20.0)
    for found in (
        border_relation(places, np.zeros(20, int), gain),  # one class
        border_relation(places, predicted, np.full(20, np.inf)),  # nothing fell
        border_relation(places[:5], predicted[[0, 0, 0, 10, 10]], gain[:5]),  # too few
        border_relation(np.zeros((20, 2)), predicted, gain),  # all equal
    ):
        assert np.isnan([found.rho, found.low, found.high, found.p, found.pooled]).all()
    assert border_relation(places, predicted, np.where(gain < 4, np.nan, gain)).images == 16
    with pytest.raises(InvalidInput, match="finite places"):
        border_distance(np.full((4, 2), np.nan), np.array([0, 0, 1, 1]))
    with pytest.raises(InvalidInput, match="must be alike"):
        relation(np.zeros(3), np.zeros(4))


def test_the_logit_margin_is_that_of_the_two_largest():
    assert logit_margin(np.array([[1.0, 5, 2], [3, 3, -9]])).tolist() == [3, 0]


# --- the study's steps ----------------------------------------------------------------------------------

EXPLAINER = "input_t_gradient"


@pytest.fixture(scope="module")
def lab():
    model = linear_classifier(size=SIDE, classes=3)
    batch = labelled_batch(model, 48, wrong=4)
    hits = {
        "fgsm": attack(model, batch, make_attack("fgsm", eps="3/255")),
        "noise": attack(model, batch, make_attack("noise", eps="2/255")),
    }
    return model, batch, hits, make_explainer(EXPLAINER)


def places_of(model, batch, hits):
    rng = np.random.default_rng(0)
    answers = predict(model, batch.pixels).argmax(1)
    count = len(batch)
    rows = {
        "id": [*batch.ids, batch.ids[0]], "kind": ["clean"] * count + ["fgsm"],
        "predicted": [model.classes[k] for k in answers] + [model.classes[0]],
    }  # fmt: skip
    signatures = rng.normal(size=(count + 1, 4)).astype(np.float32)
    return Part(rows=rows, arrays={"signatures": signatures, "clean_plane": rng.normal(size=(count, 2))})


def whole_atlas(lab, method, *, batch=None, hits=None, side=8):
    model, own, attacks, explainer = lab
    batch, hits = batch or own, attacks if hits is None else hits
    images = study.measure_images(model, batch, explainer, method, side=side)
    found = study.measure_cards(model, batch, images, explainer, hits, units={"fgsm": "levels of 1/255"})
    moved = {name: study.measure_flows(model, images, hit, explainer, method) for name, hit in hits.items()}
    border = study.measure_border(places_of(model, batch, hits), hits)
    return images, found, moved, study.summarised(images, found, moved, border, method="spray", explainer=EXPLAINER)


@pytest.fixture(scope="module")
def atlas(lab):
    return whole_atlas(lab, study.Exploring(method=BySide()))


def test_a_study_s_atlas_is_json_without_nan_and_repeats_itself(lab, atlas, tmp_path):
    method = study.Exploring(method=BySide())
    images, found, moved, told = atlas
    text = json.dumps(told, allow_nan=False, sort_keys=True)
    assert text == json.dumps(whole_atlas(lab, method)[3], allow_nan=False, sort_keys=True)
    assert json.loads(text) == told
    names = [card["name"] for card in told["cards"]]
    assert names == found.rows["name"]
    assert {(n, c) for n, c in Counter(images.rows["strategy"]).items()} == {
        (c["name"], c["images"]) for c in told["cards"]
    }
    assert [c["suspicion"] for c in told["cards"]] == sorted((c["suspicion"] for c in told["cards"]), reverse=True)
    assert sum(c["images"] for c in told["classes"]) == told["images"] == 48
    assert told["side"] == 8
    store = Store(tmp_path / "run")
    for step, part in (("atlas/images", images), ("atlas/cards", found), ("atlas/flows/fgsm", moved["fgsm"])):
        read = store.memo(step, 0, "key", lambda part=part: part)
        assert read.rows.keys() == part.rows.keys()
    again = study.measure_cards(lab[0], lab[1], store.read("atlas/images", 0), lab[3], lab[2],
                                units={"fgsm": "levels of 1/255"})  # fmt: skip
    assert np.array_equal(again.arrays["told"], found.arrays["told"])


def test_the_parts_have_the_shapes_that_reports_and_exports_read(lab, atlas):
    images, found, moved, told = atlas
    count = len(told["cards"])
    assert {name: (array.shape, array.dtype.name) for name, array in found.arrays.items() if name != "told"} == {
        "mean_map": ((count, 8, 8), "float32"), "mean_image": ((count, 3, 16, 16), "uint8"),
        "region": ((count, 16, 16), "bool"), "medoid_pixels": ((count, 3, 3, 16, 16), "uint8"),
        "medoid_heat": ((count, 3, 16, 16), "float32"),
    }  # fmt: skip
    assert (images.arrays["maps"].dtype, images.arrays["maps"].shape) == (np.float32, (48, 8, 8))
    assert set(images.rows) == {"id", "label", "predicted", "strategy", "image"}
    row = {name: place for place, name in enumerate(images.rows["id"])}
    for number, card in enumerate(told["cards"]):
        ids = found.rows["medoid_ids"][number]
        assert len(ids) == 3
        assert all(images.rows["strategy"][row[name]] == card["name"] for name in ids)
        assert np.array_equal(found.arrays["medoid_pixels"][number, 0], lab[1].pixels[row[ids[0]]].numpy())
        test = card["counterfactual"]
        if test is not None:
            assert test["region"] == pytest.approx(found.arrays["region"][number].mean(), abs=1e-6)
            assert {"removed", "removed_control", "pasted", "pasted_control"} < set(test)
        assert set(card["attacks"]) == {"fgsm", "noise"}
        assert card["attacks"]["noise"]["gain"] is None
        assert card["attacks"]["fgsm"]["unit"] == "levels of 1/255"
    flow = told["flows"]["fgsm"]
    assert flow["images"] == lab[2]["fgsm"].attempted == 44
    assert np.sum(flow["matrix"]) == 44
    assert [sum(line) for line in flow["matrix"]] == [s["clean"] for s in flow["strategies"]]
    assert [sum(s["classes"].values()) for s in flow["strategies"]] == [s["clean"] for s in flow["strategies"]]
    assert {fall["name"] for fall in flow["falls"]} <= {card["name"] for card in told["cards"]}
    assert set(moved["fgsm"].rows) == {"id", "clean", "attacked", "difference"}
    relations = told["border"]["fgsm"]["relations"]
    assert [r["of"] for r in relations] == ["plane", "signature", "logit margin"]
    assert all(r["images"] == 44 and r["low"] <= r["rho"] <= r["high"] for r in relations)
    assert relations[2]["rho"] > 0.9  # of a linear model the margin says nearly all
    assert set(relations[0]) == {"of", "rho", "low", "high", "p", "pooled", "images"}
    assert told["border"]["fgsm"]["censored"] == int((~lab[2]["fgsm"].success).sum()) - 4
    assert "noise" not in told["border"]


def test_the_border_is_that_of_the_clean_plane_within_predicted_classes(lab):
    model, batch, hits, _ = lab
    part = places_of(model, batch, hits)
    told = json.loads(bytes(study.measure_border(part, hits).arrays["told"]))["fgsm"]
    predicted = np.array(part.rows["predicted"][:-1])
    gain = gains(hits["fgsm"])
    expected = {
        "plane": border_relation(part.arrays["clean_plane"], predicted, gain),
        "signature": border_relation(part.arrays["signatures"][:-1], predicted, gain),
        "logit margin": relation(logit_margin(hits["fgsm"].clean_logits.numpy()), gain, within=predicted),
    }
    for one in told["relations"]:
        for name, value in asdict(expected[one["of"]]).items():
            assert name == "censored" or one[name] == pytest.approx(value, abs=1e-6)
    assert all(one["pooled"] != one["rho"] for one in told["relations"])


def test_where_one_strategy_is_proposed_a_few_are_shown_and_marked(lab):
    shown = study.Exploring(method=BySide(proposed=1), shown=2)
    told = whole_atlas(lab, shown)[3]
    large = [one for one in told["classes"] if one["images"] >= study.FEWEST]
    assert large
    assert all((one["proposed"], one["count"], one["forced"]) == (1, 2, True) for one in large)
    assert told["flows"]["fgsm"]["forced"]
    asked = study.Exploring(method=BySide(), wanted=2)
    assert not any(one["forced"] for one in whole_atlas(lab, asked)[3]["classes"] if one["images"] >= study.FEWEST)


def test_attacks_that_left_all_as_it_was_have_a_flow_that_stays(lab):
    model, batch, _, _ = lab
    nothing = {"fgsm": attack(model, batch, make_attack("fgsm", eps=0.0))}
    told = whole_atlas(lab, study.Exploring(method=BySide()), hits=nothing)[3]
    flow = told["flows"]["fgsm"]
    assert flow["stayed"] == share(44, 44)
    assert all(s["difference"] == 0 for s in flow["strategies"])
    beyond = [card["attacks"]["fgsm"]["gain"] for card in told["cards"] if card["attacks"]["fgsm"]["held"]]
    assert all(gain["median"] is None for gain in beyond)  # beyond every gain tried
    border_told = told["border"]["fgsm"]
    assert (border_told["images"], border_told["censored"]) == (44, 44)
    assert all(one["rho"] is None for one in border_told["relations"])
    skipped = {"fgsm": replace(nothing["fgsm"], skipped=torch.ones(48, dtype=torch.bool))}
    told = whole_atlas(lab, study.Exploring(method=BySide()), hits=skipped)[3]
    assert told["flows"] == {}
    assert all(card["attacks"]["fgsm"]["held"] is None for card in told["cards"])


def test_one_class_and_three_images_make_an_atlas(lab):
    model, batch, _, _ = lab
    answers = predict(model, batch.pixels).argmax(1)
    own = (answers == answers[0]).nonzero().squeeze(1)
    for rows in (own, own[:3]):
        some_images = batch.take(rows)
        hits = {"fgsm": attack(model, some_images, make_attack("fgsm", eps="3/255"))}
        told = whole_atlas(lab, study.Exploring(method=BySide()), batch=some_images, hits=hits)[3]
        json.dumps(told, allow_nan=False)
        assert len(told["classes"]) == 1
        assert all(card["counterfactual"] is None or card["counterfactual"]["pasted"] is None for card in told["cards"])
    assert told["classes"][0]["count"] == 1
    assert told["images"] == 3


def test_what_a_counterfactual_is_tried_on_does_not_depend_on_the_true_class(monkeypatch):
    batch = random_batch(100, labels=[1] * 10 + [0] * 90)
    monkeypatch.setattr(study, "TESTED", 40)
    chosen = study._some(batch, np.arange(100))
    assert len(chosen) == 40
    assert (chosen < 10).sum() < 10  # equal shares of the classes would take all ten
    turned = np.random.default_rng(0).permutation(100)
    assert sorted(turned[study._some(batch.take(turned.tolist()), np.arange(100))]) == chosen.tolist()
    assert study._some(batch, np.array([7, 3, 5])).tolist() == [3, 5, 7]
    relabelled = replace(batch, labels=batch.labels.flip(0))
    assert study._some(relabelled, np.arange(100)).tolist() == chosen.tolist()


def test_maps_a_method_refuses_are_one_strategy_with_the_reason():
    rng = np.random.default_rng(0)
    maps, images = rng.random((16, 8, 8)).astype(np.float32), rng.random((16, 3, 8, 8)).astype(np.float32)
    for method in (GEBI(), TwoViews(reduce="isomap")):
        found = study.Exploring(method=method).strategies(maps, images)
        assert (found.count, found.proposed, found.labels.tolist()) == (1, 1, [0] * 16)
        assert "isomap: 16 different vectors are too few" in found.note
    assert "maps that differ: 5, fewer than 12" in study.Exploring(method=SpRAy()).strategies(maps[:5]).note
    assert study.Exploring(method=SpRAy(parts=2)).strategies(maps).note == ""
    with pytest.raises(InvalidInput, match="16 of 16 maps hold NaN"):
        study.Exploring(method=SpRAy()).strategies(np.full((16, 8, 8), np.nan, np.float32))


def test_as_many_strategies_as_the_method_sees_maps():
    """Maps and their negatives are the same to a method that looks at |maps|."""
    maps = np.random.default_rng(0).random((12, 8, 8)).astype(np.float32)
    asked = study.Exploring(method=SpRAy(parts=0, shuffles=0), wanted=20)
    assert asked.strategies(np.concatenate([maps, -maps])).count == 12


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_maps_of_any_size_are_kept_as_they_are(lab, monkeypatch, scale):
    maps = scale * np.random.default_rng(0).random((48, 8, 8)).astype(np.float32)
    monkeypatch.setattr(study, "heat_maps", lambda *_, **__: maps)
    kept = study.measure_images(lab[0], lab[1], lab[3], study.Exploring(method=BySide())).arrays["maps"]
    assert np.array_equal(kept, maps)


def test_maps_that_differ_in_scale_alone_are_one_strategy():
    maps = np.arange(1, 41)[:, None, None] * np.ones((1, 4, 4), np.float32)
    found = study.Exploring(method=SpRAy(parts=2, shuffles=1)).strategies(maps)
    assert (found.count, found.proposed, found.labels.tolist()) == (1, 1, [0] * 40)


def test_spray_itself_fits_the_study(lab):
    spray = SpRAy(parts=2, shuffles=1)
    assert isinstance(spray, Clusterer)
    assert isinstance(study.Exploring(method=spray), Clusterer)
    told = whole_atlas(lab, study.Exploring(method=spray))[3]
    json.dumps(told, allow_nan=False)
    assert all(len(one["eigenvalues"]) <= 16 for one in told["classes"])


def test_letters_go_on_after_z():
    assert [letter(k) for k in (-1, 0, 25, 26, 27, 52)] == ["", "A", "Z", "AA", "AB", "BA"]
