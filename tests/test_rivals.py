"""Every detector in one protocol: closed forms, no look at the test part, chance called chance, leaks that show."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.streams import stream
from heatprint.data.menagerie import draw
from heatprint.data.splits import split
from heatprint.detectors import DETECTORS
from heatprint.detectors.door import fit
from heatprint.detectors.examples import Examples
from heatprint.evaluation.detection import Rows, auroc
from heatprint.evaluation.forensics import Measured
from heatprint.evaluation.leaks import STEPS, bayesian_leak
from heatprint.evaluation.rivals import rival, rivals, summary, thinned
from heatprint.testing import small_classifier

SIZE, COUNT = 32, 100
PARTS = {"fit": 0.4, "calibrate": 0.2, "test": 0.4}
KINDS = {"clean": ("clean", 0, False), "noise 2": ("noise", 2, False), "hot": ("hot pixels", 0, False),
         "fgsm": ("fgsm", 60, True), "pgd": ("pgd", 40, True), "jsma": ("jsma", 50, True)}  # fmt: skip
UNSEEN = ("jsma",)


@pytest.fixture(scope="module")
def classifier():
    return small_classifier(size=SIZE, classes=2)


@pytest.fixture(scope="module")
def pictures():
    scenes = [draw(("cat", "dog")[i % 2], rng=stream(i, "test/rivals"), size=SIZE).image for i in range(COUNT)]
    return torch.from_numpy(np.stack(scenes).transpose(0, 3, 1, 2).copy())


def grainy(pixels, levels, name):
    """With grains of so many levels."""
    grains = stream(0, "test/rivals/grains", name).integers(-levels, levels + 1, pixels.shape)
    return (pixels.int() + torch.from_numpy(grains)).clamp(0, 255).to(torch.uint8)


def known(pixels, kinds=KINDS, changed=grainy):
    """Images of known history: each picture once clean and once changed in each way."""
    count = len(pixels)
    sources = tuple(f"picture {i}" for i in range(count)) * len(kinds)
    every = {
        kind: (name, changed(pixels, levels, kind), is_attack) for kind, (name, levels, is_attack) in kinds.items()
    }
    examples = Examples(
        sources=sources, pixels=torch.cat([found for _, found, _ in every.values()]),
        labels=torch.arange(count).remainder(2).repeat(len(kinds)),
        kinds=tuple(np.repeat(list(kinds), count).tolist()),
        names=tuple(np.repeat([name for name, _, _ in every.values()], count).tolist()),
        attacked=np.repeat([is_attack for _, _, is_attack in every.values()], count),
    )  # fmt: skip
    part = np.empty(len(sources), dtype=object)
    for name, index in split(sources, PARTS, salt="forensics").items():
        part[index.numpy()] = name
    rows = Rows(sources=np.asarray(sources), kinds=np.asarray(examples.kinds), attacked=examples.attacked,
                margins=np.linspace(0.1, 3, len(sources)))  # fmt: skip
    return Measured(
        examples=examples, rows=rows, tables={}, part=part.astype(str), unseen=np.isin(examples.kinds, UNSEEN),
        originals=np.tile(np.arange(count), len(kinds)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(pictures):
    return known(pictures)


# --- the numbers ------------------------------------------------------------------------------------------


def scored(attacked, held_out, usual):
    """Rows of two attacks and one other kind, a source each."""
    count = len(attacked) + len(held_out) + len(usual)
    kinds = np.repeat(["pgd", "jsma", "clean"], [len(attacked), len(held_out), len(usual)])
    rows = Rows(sources=np.asarray([f"s{i}" for i in range(count)]), kinds=kinds, attacked=kinds != "clean",
                margins=np.ones(count))  # fmt: skip
    return np.r_[attacked, held_out, usual], rows, kinds == "jsma"


def test_precision_is_bayes_rule_at_the_realised_rates():
    calibration = np.arange(100.0)  # thresholds 94 at 5 % and 98 at 1 %
    usual = np.r_[np.full(90, 10.0), np.full(10, 95.0)]  # 10 % above the first, none above the second
    found = summary(*scored(np.r_[np.full(60, 99.0), np.full(40, 0.0)], np.full(50, 96.0), usual), calibration)
    assert found["realised"]["at 5%"]["share"] == 0.1
    assert found["known"]["at 5%"]["share"] == 0.6
    at = found["known"]["precision"]["1.0% attacked"]["at 5%"]
    assert at["precision"] == pytest.approx(0.01 * 0.6 / (0.01 * 0.6 + 0.99 * 0.1))
    low, high = found["known"]["at 5%"]["low"], found["realised"]["at 5%"]["high"]
    assert at["low"] == pytest.approx(0.01 * low / (0.01 * low + 0.99 * high))
    rare = found["known"]["precision"]["0.1% attacked"]
    assert rare["at 5%"]["precision"] == pytest.approx(0.0006 / (0.0006 + 0.0999))
    assert rare["at 1%"]["precision"] == 1  # none of 100 flagged: only the low end is worth reading
    assert rare["at 1%"]["low"] < 0.02
    assert found["held out"]["precision"]["1.0% attacked"]["at 1%"]["precision"] is None  # nothing is flagged at all


def test_a_detector_generalises_only_where_it_beats_chance_on_attacks_held_out():
    usual, chance = (norm.ppf((np.arange(count) + 0.5) / count) for count in (300, 100))
    high, low, calibration = chance + 2, chance - 2, usual

    def told(attacked, held_out):
        scores, rows, unseen = scored(attacked, held_out, usual)
        return summary(scores, rows, unseen, calibration, seed=1)

    good = told(high, high + 0.1)
    assert good["generalises"] is True
    assert (good["held out"]["at_chance"], good["held out"]["below_chance"]) == ([], [])
    assert good["held out"]["auroc"] == pytest.approx(auroc(high + 0.1, usual))
    assert good["known"]["auroc"] == pytest.approx(auroc(high, usual))
    assert good["attacks"]["jsma"]["held_out"]
    assert not good["attacks"]["pgd"]["held_out"]
    learned_by_heart = told(high, low)
    assert learned_by_heart["known"]["interval"][0] > 0.5
    assert learned_by_heart["generalises"] is False
    assert learned_by_heart["held out"]["below_chance"] == ["jsma"]
    random = told(chance, chance)
    assert random["generalises"] is False
    assert random["held out"]["at_chance"] == ["jsma"]
    assert random["known"]["at_chance"] == ["pgd"]
    assert told(high, high[:0])["generalises"] is None
    assert told(high[:0], high)["known"] is None


# --- the images -------------------------------------------------------------------------------------------


def test_thinning_keeps_the_same_sources_of_every_kind(measured):
    examples = measured.examples
    few = thinned(examples, 10)
    kinds, sources = np.asarray(examples.kinds)[few], np.asarray(examples.sources)[few]
    assert {kind: int((kinds == kind).sum()) for kind in KINDS} == {kind: 10 for kind in KINDS} | {"clean": 100}
    chosen = {kind: set(sources[kinds == kind]) for kind in KINDS}
    assert all(chosen[kind] == chosen["fgsm"] for kind in KINDS if kind != "clean")
    assert chosen["fgsm"] < chosen["clean"]
    assert set(few) < set(thinned(examples, 20))
    assert np.array_equal(few, np.sort(few))
    order = np.random.default_rng(0).permutation(len(examples))
    again = examples.take(order)
    where = thinned(again, 10)
    assert set(order[where]) == set(few)
    assert len(thinned(examples, 10_000)) == len(examples)
    with pytest.raises(InvalidInput, match=r"images = 0 of a kind must be 1 or more\. Write 300"):
        thinned(examples, 0)


@dataclass(frozen=True, kw_only=True)
class Spy:
    """Random scores, and what it was shown."""

    shown: list
    unsupervised = False

    def learn(self, classifier, examples, *, seed, progress):
        self.shown.append(examples)
        return {}

    def score(self, classifier, learned, pixels):
        return np.asarray([float(stream(7, int(image.long().sum())).random()) for image in pixels])


def test_random_scores_are_marked_and_nothing_of_the_test_is_learned_from(classifier, measured):
    shown = []
    told = rival(classifier, measured, "spy", method=Spy(shown=shown))
    assert told["generalises"] is False
    assert set(told["held out"]["at_chance"]) == {"jsma"}
    (examples,) = shown
    assert set(examples.sources) == set(measured.rows.sources[measured.part == "fit"])
    assert set(examples.kinds) == set(KINDS) - set(UNSEEN)
    tested = int((measured.part == "test").sum())
    calibrated = int(((measured.part == "calibrate") & ~measured.rows.attacked).sum())
    assert told["images"] == {"fit": len(examples), "calibrate": calibrated, "test": tested}


def test_a_published_detector_is_judged_as_by_hand(classifier, measured):
    method = DETECTORS.make("squeezing", medians=())
    told = rival(classifier, measured, "squeezing", method=method, images=30, seed=3)
    rows = thinned(measured.examples, 30)
    examples, part = measured.examples.take(rows), measured.part[rows]
    detector = fit(classifier, examples.take(np.flatnonzero(part == "fit")), method, seed=3)
    scores = detector.score(classifier, examples.pixels)
    attacked, test = examples.attacked, part == "test"
    detector = detector.calibrate(scores[(part == "calibrate") & ~attacked])
    assert told["thresholds"]["at 5%"] == pytest.approx(detector.thresholds[0.05])
    jsma = np.asarray(examples.kinds) == "jsma"
    assert told["held out"]["auroc"] == pytest.approx(auroc(scores[test & jsma], scores[test & ~attacked]))
    assert told["unsupervised"]
    assert told["ms_per_image"] > 0
    json.dumps(told, allow_nan=False)


def test_results_are_kept_one_by_one_and_not_computed_twice(classifier, measured):
    kept = {}

    def keep(name, compute):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    names = ("mahalanobis", "bayesian")
    done = []
    first = rivals(classifier, measured, names=names, keep=keep, progress=lambda *a: done.append(a))
    assert list(first) == list(names)
    assert done == [(1, 2, "mahalanobis"), (2, 2, "bayesian")]
    assert first["mahalanobis"]["known"]["auroc"] > 0.6  # coarse grains against fine ones
    clocked = first["mahalanobis"]["seconds_to_fit"]
    assert rivals(classifier, measured, names=names, keep=keep)["mahalanobis"]["seconds_to_fit"] == clocked
    json.dumps(first, allow_nan=False)


def test_a_detector_that_cannot_guard_a_network_says_so(classifier, measured, monkeypatch):
    def learn(self, classifier, examples, *, seed, progress):
        raise Unsupported("squeezing: not this network.")

    monkeypatch.setattr(DETECTORS.load("squeezing"), "learn", learn)
    assert rivals(classifier, measured, names=["squeezing"]) == {
        "squeezing": {"unsupported": "squeezing: not this network."}
    }


# --- leaks ------------------------------------------------------------------------------------------------


def test_leaks_make_a_number_of_nothing(classifier):
    """The attack puts another picture of the same sort in the place of each: there is nothing to be found."""
    scenes = [draw(("cat", "dog")[i % 2], rng=stream(i, "test/leaks"), size=SIZE).image for i in range(2 * COUNT)]
    pixels = torch.from_numpy(np.stack(scenes).transpose(0, 3, 1, 2).copy())

    def swapped(own, levels, name):
        return pixels[COUNT:] if name == "pgd" else own

    kinds = {"clean": ("clean", 0, False), "pgd": ("pgd", 0, True)}
    told = bayesian_leak(classifier, known(pixels[:COUNT], kinds, swapped))
    assert set(told["attacks"]) == {"pgd"}
    assert told["steps"] == told["attacks"]["pgd"]
    assert (told["honest"], told["leaky"]) == (told["steps"]["honest"], told["steps"]["leaky"])
    assert abs(told["honest"] - 0.5) < 0.12
    assert told["leaky"] >= 0.5
    assert told["steps"]["own kernels"] > told["steps"]["leaky"] + 0.08  # only the clean ones meet themselves


def test_each_leak_is_a_step_and_mistakes_and_attacks_held_out_do_not_enter(classifier, measured):
    rows = measured.rows
    mistaken = (rows.kinds == "clean") & (np.arange(len(rows.kinds)) % 3 == 0)
    told = bayesian_leak(
        classifier, replace(measured, rows=replace(rows, kinds=np.where(mistaken, "clean, misclassified", rows.kinds)))
    )
    assert tuple(told["steps"]) == STEPS
    assert set(told["attacks"]) == {"fgsm", "pgd"}
    assert told["leaky"] == pytest.approx(np.mean([found["leaky"] for found in told["attacks"].values()]))
    for found in told["attacks"].values():
        assert all(0 <= value <= 1 for value in found.values())
    with pytest.raises(InvalidInput, match="has 20 images in the fit and in the test part"):
        bayesian_leak(classifier, measured, images=15)
