"""Before and after: measures in closed form, their laws, and their peers' numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from heatprint.attacks import attack
from heatprint.attacks import make as make_attack
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Attacked, Explained
from heatprint.explainers import explain, make
from heatprint.explainers.pairs import MEASURES, Compared, compare, spread
from heatprint.explainers.ranks import spearman
from heatprint.study.before_after import chosen_pairs, measured, summarised
from heatprint.testing import labelled_batch

METHOD = make("gradient")


def explained(heat) -> Explained:
    """A map [H, W] as an explanation; the relevance lies in one channel."""
    heat = torch.as_tensor(heat, dtype=torch.float64)
    relevance = torch.stack([torch.zeros_like(heat), heat, torch.zeros_like(heat)])[None]
    return Explained(ids=("a",), relevance=relevance, target=torch.tensor([0]), score=torch.ones(1))


def pair(before, after, changed=None) -> Compared:
    shape = np.shape(before)
    changed = torch.zeros(shape, dtype=torch.bool) if changed is None else torch.as_tensor(changed)
    return Compared(clean=explained(before), adversarial=explained(after), changed=changed[None])


def one(shape, *places):
    mask = torch.zeros(shape, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


def test_an_identical_pair_agrees_in_everything():
    heat = np.random.default_rng(0).normal(size=(6, 7))
    same = pair(heat, heat)
    assert same.rank_correlation.item() == pytest.approx(1, abs=1e-12)
    assert same.cosine.item() == pytest.approx(1, abs=1e-12)
    assert same.moved.item() == 0
    assert not same.difference.any()


def test_maps_that_share_no_pixel_have_moved_wholly():
    before, after = np.zeros((4, 4)), np.zeros((4, 4))
    before[0], after[3] = 2.0, -5.0
    apart = pair(before, after)
    assert apart.moved.item() == 1
    assert apart.cosine.item() == 0
    assert pair(before, -before).moved.item() == 1
    after = before.copy()
    after[3, 0] = 2.0  # a fifth of the sum now lies elsewhere
    assert pair(before, after).moved.item() == pytest.approx(0.2)


def test_shares_on_changed_pixels_and_the_distance_to_the_peak():
    before, after = np.ones((4, 5)), np.zeros((4, 5))
    after[0, 0], after[3, 4] = -6.0, 2.0
    hit = pair(before, after, one((4, 5), (3, 4), (3, 3)))
    assert hit.on_changed.item() == pytest.approx(0.25)
    assert hit.clean_on_changed.item() == pytest.approx(0.1) == hit.chance.item()
    assert hit.peak_distance.item() == pytest.approx(math.hypot(3, 3))
    assert pair(before, after, one((4, 5), (0, 0))).peak_distance.item() == 0


def test_what_has_no_meaning_is_nan_and_nothing_else_is():
    heat, zero, even = np.arange(12.0).reshape(3, 4), np.zeros((3, 4)), np.ones((3, 4))
    undefined = {name for name in MEASURES if getattr(pair(heat, heat), name).isnan()}
    assert undefined == {"on_changed", "clean_on_changed", "chance", "peak_distance"}
    spot = one((3, 4), (1, 1))
    undefined = {name for name in MEASURES if getattr(pair(heat, zero, spot), name).isnan()}
    assert undefined == {"rank_correlation", "cosine", "moved", "moved_unsigned", "on_changed", "peak_distance"}
    undefined = {name for name in MEASURES if getattr(pair(zero, heat, spot), name).isnan()}
    assert undefined == {"rank_correlation", "cosine", "moved", "moved_unsigned", "clean_on_changed"}
    undefined = {name for name in MEASURES if getattr(pair(heat, even, spot), name).isnan()}
    assert undefined == {"rank_correlation"}
    maps = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    assert torch.equal(pair(maps[0, 0], maps[1, 0]).rank_correlation, spearman(maps[0], maps[1]))


def test_one_scale_for_both_maps():
    before, after = np.full((10, 10), 0.5), np.full((10, 10), -2.0)
    after[0, 0] = 100.0
    both = pair(before, after)
    assert both.scale().item() == 100
    assert both.scale(99).item() == 2
    after[:] = 0
    after[0, 0] = 3.0
    assert pair(after, after).scale(50).item() == 3  # the middle of a sparse map is 0, which scales nothing
    zero = np.zeros((10, 10))
    assert pair(zero, zero).scale().item() == 1
    with pytest.raises(InvalidInput, match="from 0 to 100"):
        both.scale(101)


maps = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).integers(-3, 4, (5, 6)).astype(float))


@given(before=maps, after=maps, places=st.integers(0, 2**30 - 1))
def test_ranks_with_ties_equal_scipy_and_the_rest_keeps_its_laws(before, after, places):
    changed = np.array([places >> n & 1 for n in range(30)], dtype=bool).reshape(5, 6)
    forth, back = pair(before, after, changed), pair(after, before, changed)
    assert forth.rank_correlation.item() == pytest.approx(spearmanr(before.ravel(), after.ravel()).statistic, abs=1e-12)
    for name in ("rank_correlation", "cosine", "moved", "moved_unsigned"):  # symmetry
        assert getattr(forth, name).item() == pytest.approx(getattr(back, name).item(), abs=1e-12)
    assert forth.on_changed.item() == pytest.approx(back.clean_on_changed.item(), abs=1e-12, nan_ok=True)
    assert torch.equal(forth.difference, -back.difference)
    grown = pair(before * 1e-9, after * 1e7, changed)  # invariance to scale, of each map by itself
    for name in MEASURES:
        assert getattr(grown, name).item() == pytest.approx(getattr(forth, name).item(), abs=1e-9, nan_ok=True), name
    assert -1 <= forth.cosine.item() <= 1
    assert 0 <= forth.moved.item() <= 1 + 1e-12
    rest = pair(before, after, ~changed)
    if changed.any() and not changed.all():
        assert forth.on_changed.item() + rest.on_changed.item() == pytest.approx(1)


@given(before=maps, after=maps, other=maps)
def test_relevance_moved_is_a_distance(before, after, other):
    there, on, straight = pair(before, after).moved, pair(after, other).moved, pair(before, other).moved
    assert (straight <= there + on + 1e-12).item()


@pytest.fixture(scope="module")
def attacked(small):
    batch = labelled_batch(small, 12)
    return attack(small, batch, make_attack("fgsm", eps="12/255"))


@pytest.mark.parametrize("target", ["predicted", "true", "contrast"])
def test_compare_explains_each_image_for_its_own_or_for_the_same_class(small, attacked, target):
    seen = compare(small, attacked.clean, attacked.adversarial, METHOD, target=target)
    assert torch.equal(seen.clean.relevance, explain(small, attacked.clean, METHOD, target=target).relevance)
    assert attacked.success.any()
    same = seen.clean.target == seen.adversarial.target
    assert torch.equal(same, ~attacked.success if target == "predicted" else torch.ones(12, dtype=torch.bool))
    assert (seen.adversarial.against is not None) == (target == "contrast")
    assert torch.equal(seen.changed, (attacked.clean.pixels != attacked.adversarial.pixels).any(1))


def test_a_pair_is_measured_alone_as_among_others(small, attacked):
    whole = compare(small, attacked.clean, attacked.adversarial, METHOD)
    alone = compare(small, attacked.clean.take([7]), attacked.adversarial.take([7]), METHOD)
    for name in MEASURES:
        assert getattr(alone, name)[0].item() == pytest.approx(getattr(whole, name)[7].item(), rel=1e-4, nan_ok=True)


def test_rows_and_summary_say_the_same(small, attacked):
    told = []
    seen = compare(small, attacked.clean, attacked.adversarial, METHOD, progress=lambda *step: told.append(step[:2]))
    assert told[-1] == (24, 24)
    rows, summary = seen.rows(), seen.summary()
    assert [row["id"] for row in rows] == list(attacked.clean.ids)
    for name in MEASURES:
        values = np.array([row[name] for row in rows])
        known = values[~np.isnan(values)]
        assert (summary[name]["count"], summary[name]["undefined"]) == (len(known), 12 - len(known))
        assert summary[name]["median"] == pytest.approx(np.median(known), abs=1e-6)
        assert summary[name]["low"] <= summary[name]["median"] <= summary[name]["high"]
    assert spread([math.nan]) == {"count": 0, "undefined": 1, "median": None, "low": None, "high": None}


def test_batches_that_are_not_pairs_are_refused(small, attacked):
    with pytest.raises(InvalidInput, match=r"clean\.with_pixels"):
        compare(small, attacked.clean, attacked.adversarial.take(range(5)), METHOD)
    with pytest.raises(InvalidInput, match="do not belong together"):
        pair(np.zeros((3, 3)), np.zeros((4, 4)))


def test_a_map_and_its_negative_lie_in_the_same_places():
    heat = np.random.default_rng(1).normal(size=(5, 5))
    turned = pair(heat, -heat)
    assert turned.moved.item() == pytest.approx(1)
    assert turned.moved_unsigned.item() == 0
    before, after = np.zeros((4, 4)), np.zeros((4, 4))
    before[0], after[3] = 2.0, -5.0
    assert pair(before, after).moved_unsigned.item() == 1


@pytest.mark.parametrize("control", [False, True])
def test_a_study_compares_successes_and_of_a_control_every_attempt(small, control):
    batch = labelled_batch(small, 20, wrong=4)
    hit = attack(small, batch, make_attack("fgsm", eps="7/255"))
    allowed = ~hit.skipped if control else hit.success
    clean, changed, available = chosen_pairs(hit, 6, control=control)
    assert available == int(allowed.sum()) > 6
    assert len(clean) == 6
    assert set(clean.ids) <= {name for name, ok in zip(batch.ids, allowed.tolist(), strict=True) if ok}
    rows = [hit.clean.ids.index(name) for name in clean.ids]
    assert torch.equal(changed.pixels, hit.adversarial.pixels[rows])
    part = measured(small, clean, changed, METHOD, lambda *_: None)
    told = summarised([part], available=available, control=control)
    assert (told["images"], told["of"]) == (6, "attempts" if control else "successes")
    seen = compare(small, clean, changed, METHOD, target="true")
    assert told["explained"]["true"]["measures"] == seen.summary()
    assert sum(told["explained"]["true"]["histograms"]["moved"]) == seen.summary()["moved"]["count"]


def test_a_study_without_successes_says_so(small, attacked):
    nothing = Attacked(**{**vars(attacked), "success": torch.zeros(12, dtype=torch.bool)})
    clean, changed, available = chosen_pairs(nothing, 5, control=False)
    told = summarised([measured(small, clean, changed, METHOD)], available=available, control=False)
    assert (told["images"], told["available"]) == (0, 0)
    assert told["explained"]["predicted"]["measures"]["moved"]["median"] is None
    json.dumps(told, allow_nan=False)
